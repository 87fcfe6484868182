"""The list of the benchmarks: complete, and each answers --help without importing what takes seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.catalogue import BENCHMARKS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks"
ELSEWHERE = FOLDER / "engines" / "guest"
"""Programs that engines run in their own environments."""

HELP = """
import runpy, sys
for package in sys.argv[1:]:
    sys.argv = [package, "--help"]
    try: runpy.run_module(package, run_name="__main__", alter_sys=True)
    except SystemExit as stop: assert not stop.code, package
    else: raise AssertionError(f"{package} went on")
    heavy = {"tvm", "torch", "onnx", "numpy", "matplotlib", "sklearn"} & set(sys.modules)
    assert not heavy, (package, heavy)
"""


def python(*args: str) -> str:
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_benchmark_answers_help_at_once() -> None:
    told = python("-c", HELP, "benchmarks", *(row.package for row in BENCHMARKS))
    for row in BENCHMARKS:
        assert f"python -m {row.package} " in told


def test_every_module_that_runs_is_in_the_list() -> None:
    runnable = [
        path for path in FOLDER.rglob("*.py") if "__name__ ==" in path.read_text() and ELSEWHERE not in path.parents
    ]
    assert {path.name for path in runnable} == {"__main__.py"}
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in runnable}
    assert packages == {"benchmarks", *(row.package for row in BENCHMARKS)}


def test_the_list_has_a_line_for_each() -> None:
    lines = python("-m", "benchmarks").splitlines()
    assert len(lines) == 1 + len(BENCHMARKS)
    for line, row in zip(lines[1:], BENCHMARKS, strict=True):
        assert line.split()[0] == row.package
        assert row.measures in line
