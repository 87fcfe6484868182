"""Lets tests import `zoo` (this folder) and `benchmarks` (the repository root), and keeps calibrations out of them."""

import os
import sys
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings

_NUMBERS = count()
ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, ROOT / "tests"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from tests.tally import tally  # noqa: E402
from tests.turn import first_workload  # noqa: E402

# Commands, those in processes of their own included, do not stop to calibrate this machine.
os.environ["CI"] = "1"

settings.register_profile("pconvgen", deadline=None)  # speed is asserted in benchmarks
settings.load_profile("pconvgen")


@pytest.fixture(autouse=True)
def calibrations(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where calibrations are kept, and found, in place of this user's; whether or not it exists."""
    folder = tmp_path_factory.getbasetemp() / f"calibrations-{next(_NUMBERS)}"
    monkeypatch.setattr("pconvgen.records.kept.folder", lambda: folder)
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    """Says how long to look for a wrong kernel, and where."""
    parser.addoption("--workloads", type=int, default=500, help="random workloads of each kernel template")
    parser.addoption("--first-workload", type=int, help="number of the first one; by default it turns with the commit")
    parser.addoption("--long", action="store_true", help="run what takes minutes, too")


def pytest_configure(config: pytest.Config) -> None:
    """Decides once, before pytest-xdist hands its workers the options: they must agree on the tests there are."""
    config.option.turn = "--first-workload"
    if config.option.first_workload is None:
        config.option.first_workload, config.option.turn = first_workload()


def pytest_report_header(config: pytest.Config) -> str:
    option = config.option
    return f"random kernels: {option.workloads} of each template, from {option.first_workload} on ({option.turn})"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leaves out what takes minutes, unless asked for."""
    if item.get_closest_marker("long") and not item.config.getoption("--long"):
        pytest.skip("it takes minutes: make test-long runs it")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The long tier says what it has covered: nobody reads through its dots."""
    if config.getoption("--long"):
        terminalreporter.section("covered")
        found = (terminalreporter.getreports(outcome) for outcome in ("passed", "failed", "skipped"))
        for line in tally(*found):
            terminalreporter.write_line(line)
