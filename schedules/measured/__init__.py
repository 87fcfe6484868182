"""What was measured before: for a target, records of tuning (.jsonl) and a learned model of latency (.json).

The files are named by instruction set and processor. `python -m benchmarks.latency` makes them.
"""

from __future__ import annotations

from pathlib import Path


def records_of(isa: str, cpu: str) -> Path | None:
    """The file of records, None where there is none."""
    return _existing(f"{isa}-{cpu}.jsonl")


def latency_of(isa: str, cpu: str) -> Path | None:
    """The file of the learned model, None where there is none."""
    return _existing(f"{isa}-{cpu}.json")


def _existing(name: str) -> Path | None:
    path = Path(__file__).parent / name
    return path if path.is_file() else None
