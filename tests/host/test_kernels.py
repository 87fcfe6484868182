"""Every template on thousands of random workloads, with each of this machine's instruction sets.

`--workloads N` sets how many workloads of a template are checked, over all instruction sets together; of those in RARE
fewer.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from check_kernels import CPUS, command

from pconvgen.targets.host import CPUINFO, cpu_flags
from tests.random_kernels import RARE, TEMPLATES, draw

pytestmark = pytest.mark.host

ROOT = Path(__file__).resolve().parents[2]
PART = 120
"""Workloads of one test: a few seconds, so that tests spread over processes."""


def missing(isa: str) -> str | None:
    """Why this machine cannot run an instruction set."""
    lacks = CPUS[isa][1] - cpu_flags(CPUINFO.read_text())
    return f"{isa}: this processor has no {', '.join(sorted(lacks))}" if lacks else None


def ranges(workloads: int) -> dict[str, range]:
    """The numbers to check with each instruction set: equally many, and some more, as a few are drawn twice."""
    usable = [isa for isa in CPUS if not missing(isa)]
    return {isa: range(-(-workloads * 101 // (100 * len(usable)))) for isa in usable}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "part" not in metafunc.fixturenames:
        return
    found = []
    for template in TEMPLATES:
        shares = ranges(metafunc.config.getoption("--workloads") // RARE.get(template, 1))
        for isa in CPUS:
            if isa not in shares:
                found.append(pytest.param(template, isa, None, marks=pytest.mark.skip(reason=str(missing(isa)))))
                continue
            for first in shares[isa][::PART]:
                part = shares[isa][first : first + PART]
                found.append(pytest.param(template, isa, part, id=f"{template}-{isa}-{first}"))
    metafunc.parametrize(("template", "isa", "part"), found)


def test_random_workloads_are_right(template: str, isa: str, part: range) -> None:
    done = subprocess.run(command(template, isa, part), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    told = re.findall(r"^FAILED .*$", done.stdout, re.MULTILINE)
    if done.returncode != 1 or not told:
        last = done.stdout.splitlines()[-1:]
        told.append(f"ended with {done.returncode} while {' '.join(last)}\n{done.stderr[-2000:]}")
    again = f"reproduce one with: {' '.join(command(template, isa, range(1))[:-2])} NUMBER"
    pytest.fail("\n".join([*told, again]), pytrace=False)


@pytest.mark.parametrize("template", TEMPLATES)
def test_random_workloads_differ(template: str, request: pytest.FixtureRequest) -> None:
    """Whatever the weights, workloads count once for each shape, structure, epilogue and schedule."""
    wanted = request.config.getoption("--workloads") // RARE.get(template, 1)
    shares = ranges(wanted)
    kernels = {(isa, draw(template, isa, number).kernels) for isa, numbers in shares.items() for number in numbers}
    assert len(kernels) >= wanted
