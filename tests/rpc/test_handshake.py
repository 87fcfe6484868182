"""The parser of what clients say first, under mutations and the compiler's checks of memory and arithmetic."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import pconvgen.devices

NATIVE = Path(pconvgen.devices.__file__).parent / "native"
COUNT = 100_000


@pytest.mark.skipif(not shutil.which("g++"), reason="g++ is not installed")
def test_mutated_handshakes_crash_nothing(tmp_path: Path) -> None:
    program = tmp_path / "fuzz"
    flags = [
        "-std=c++17",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover",
    ]
    source = Path(__file__).parent / "fuzz_handshake.cc"
    subprocess.run(["g++", *flags, f"-I{NATIVE}", str(source), "-o", str(program)], check=True)
    done = subprocess.run([program, str(COUNT), "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    taken, invalid = map(int, done.stdout.split())
    assert taken > COUNT / 5, "some are left as they were"
    assert invalid > COUNT / 5
