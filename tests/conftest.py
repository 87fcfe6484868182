"""Lets tests import `zoo` (this folder) and `benchmarks.networks` (the repository root)."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, ROOT / "tests"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Says how long to look for a wrong kernel."""
    parser.addoption("--workloads", type=int, default=2000, help="random workloads of each kernel template")
    parser.addoption("--long", action="store_true", help="run what takes minutes, too")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leaves out what takes minutes, unless asked for."""
    if item.get_closest_marker("long") and not item.config.getoption("--long"):
        pytest.skip("it takes minutes: make test-long runs it")
