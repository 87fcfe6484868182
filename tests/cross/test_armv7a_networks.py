"""Whole networks as libraries for 32-bit ARM: linked and looked at, not run, because TVM has no runtime for it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import pconvgen
from pconvgen.devices import get_device
from pconvgen.errors import PconvgenError
from pconvgen.manifest import read_manifest
from pconvgen.targets.elf import machine_of
from pconvgen.targets.linker import LIBC, LIBM, PROVIDED_PREFIXES, find_linkers, library_linker
from pconvgen.targets.presets import get_target
from pconvgen.tvm_compat import export_library
from tests.networks import imported

pytestmark = pytest.mark.cross

LIBRARIES = {"cortex-a7": {"libm.so.6", "libc.so.6"}, "android-armv7a": {"libm.so", "libc.so"}}
HARD_FLOAT = 0x400


@pytest.mark.skipif(not shutil.which("readelf"), reason="readelf is not installed")
@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v2"])
def test_library_needs_only_what_devices_have(network: str, name: str, tmp_path: Path) -> None:
    target = get_target(name)
    compiled = pconvgen.compile(imported(network, "pattern"), name)
    linkers = find_linkers(target.platform)
    assert linkers, "ziglang is a requirement of the tests"
    for linker in linkers:
        path = tmp_path / "model.so"
        export_library(compiled._executable, str(path), library_linker(target, linker))
        assert machine_of(path) == "armv7l"
        assert read_manifest(path).target == name
        check_needs(path, name)


def check_needs(path: Path, name: str) -> None:
    command = ["readelf", "-hdrW", "--dyn-syms", path]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"\(NEEDED\).*\[(.+)\]", printed)) <= LIBRARIES[name]
    assert "TEXTREL" not in printed
    open_symbols = set(re.findall(r" UND (\w+)", printed))
    assert open_symbols, "memset at least"
    assert {symbol for symbol in open_symbols if not symbol.startswith(PROVIDED_PREFIXES)} <= LIBM | LIBC
    assert not re.search(r" R_ARM_\w+ .*__aeabi_unwind", printed), "nobody provides what only unwind tables name"
    flags = re.search(r"Flags:\s+(0x[0-9a-f]+)", printed)
    assert flags
    assert bool(int(flags.group(1), 16) & HARD_FLOAT) == (name == "cortex-a7"), "loaders check how floats are passed"


def test_running_one_is_refused(tmp_path: Path) -> None:
    compiled = pconvgen.compile(imported("resnet18", None), "cortex-a7")
    model = compiled.manifest.model(compiled.export(tmp_path / "model.so"))
    for device in ("local", "emulated"):
        with pytest.raises(PconvgenError, match=r"another processor \(found armv7l"):
            get_device(device).run(model, compiled.manifest.random_inputs(0))
