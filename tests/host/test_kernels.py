"""Every template on hundreds of random workloads, with each of this machine's instruction sets.

`--workloads N` sets how many workloads of a template are checked, over all instruction sets together; of those in RARE
fewer, of each with each set some. Which ones turns with the commit: pytest's header has the first number.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from check_kernels import CHECKED, CPUS, command

from pconvgen.targets.host import CPUINFO, cpu_flags
from tests.random_kernels import RARE, TEMPLATES, draw
from tests.tally import WORKLOADS

pytestmark = pytest.mark.host

ROOT = Path(__file__).resolve().parents[2]
PART = 170
"""Workloads of one test: half a minute at most, so that tests spread over processes, of which each starts for 2 s."""
DRAWN = 120
"""Workloads of a template that are compared with each other, which takes no compiler."""


def missing(isa: str) -> str | None:
    """Why this machine cannot run an instruction set."""
    lacks = CPUS[isa][1] - cpu_flags(CPUINFO.read_text())
    return f"{isa}: this processor has no {', '.join(sorted(lacks))}" if lacks else None


def ranges(workloads: int, first: int = 0) -> dict[str, range]:
    """The numbers to check with each instruction set: equally many, and some more, as a few are drawn twice."""
    usable = [isa for isa in CHECKED if not missing(isa)]
    share = -(-workloads * 101 // (100 * len(usable)))
    return {isa: range(first, first + share) for isa in usable}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "part" not in metafunc.fixturenames:
        return
    found = []
    option = metafunc.config.option
    for template in TEMPLATES:
        shares = ranges(max(1, option.workloads // RARE.get(template, 1)), option.first_workload)
        for isa in CHECKED:
            if isa not in shares:
                found.append(pytest.param(template, isa, None, marks=pytest.mark.skip(reason=str(missing(isa)))))
                continue
            for begin in range(0, len(shares[isa]), PART):
                part = shares[isa][begin : begin + PART]
                found.append(pytest.param(template, isa, part, id=f"{template}-{isa}-{part.start}"))
    metafunc.parametrize(("template", "isa", "part"), found)


def test_random_workloads_are_right(
    template: str, isa: str, part: range, record_property: Callable[[str, object], None]
) -> None:
    record_property(WORKLOADS, [template, isa, len(part)])
    done = subprocess.run(command(template, isa, part), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    last = done.stdout.splitlines()[-1:]
    told = re.findall(r"^FAILED .*$", done.stdout, re.MULTILINE)
    if done.returncode != 1 or not told:
        told.append(f"ended with {done.returncode} while {' '.join(last)}\n{done.stderr[-2000:]}")
    # A process that ended has said what it was at; what failed to compile is not one workload.
    numbers = re.findall(rf"^(?:FAILED|running) {template} {isa} (\d+):", "\n".join([*told, *last]), re.MULTILINE)
    again = range(int(numbers[0]), int(numbers[0]) + 1) if numbers else part
    pytest.fail("\n".join([*told, f"reproduce with: {' '.join(command(template, isa, again))}"]), pytrace=False)


@pytest.mark.parametrize("template", TEMPLATES)
def test_random_workloads_differ(template: str) -> None:
    """Whatever the weights, workloads count once for each shape, structure, epilogue and schedule."""
    shares = ranges(DRAWN)
    kernels = {(isa, draw(template, isa, number).kernels) for isa, numbers in shares.items() for number in numbers}
    assert len(kernels) >= DRAWN
