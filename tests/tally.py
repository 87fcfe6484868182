"""What a run has covered: tests of each folder and marker, and random workloads of each template."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

MARKERS = ("long", "host", "cross")
WORKLOADS = "workloads"
"""Property of a test that has checked random workloads: [template, instruction set, how many]."""


def tally(passed: Iterable[Any], failed: Iterable[Any], skipped: Iterable[Any]) -> Iterator[str]:
    """Lines of a summary, of pytest's reports."""
    outcomes: Mapping[str, list[Any]] = {"passed": list(passed), "failed": list(failed), "skipped": list(skipped)}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    workloads: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome, reports in outcomes.items():
        for report in reports:
            folder = str(PurePath(report.nodeid.split("::")[0]).parent)
            for group in (folder, *(f"marker {marker}" for marker in MARKERS if marker in report.keywords)):
                counts[group][outcome] += 1
            if outcome != "skipped":
                for template, isa, number in (value for name, value in report.user_properties if name == WORKLOADS):
                    workloads[template][isa] += number
    for group, of in sorted(counts.items(), key=lambda item: (item[0].startswith("marker"), item[0])):
        yield f"{group}: " + ", ".join(f"{of[outcome]} {outcome}" for outcome in outcomes if of[outcome])
    for template, isas in workloads.items():
        yield f"random {template}: " + ", ".join(f"{number} on {isa}" for isa, number in sorted(isas.items()))
