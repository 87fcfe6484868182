"""What was measured before: for a target, records of tuning (.jsonl) and a learned model of latency (.json).

The files are named by instruction set and processor. `python -m benchmarks.latency` makes them.
"""

from __future__ import annotations

from pathlib import Path


def records_of(isa: str) -> list[Path]:
    """The files of records, of all processors that code with such instructions was measured on (a name of ISAS)."""
    return sorted(Path(__file__).parent.glob(f"{isa}-*.jsonl"))


def latency_of(isa: str, cpu: str) -> Path | None:
    """The file of the learned model, None where there is none."""
    path = Path(__file__).parent / f"{isa}-{cpu}.json"
    return path if path.is_file() else None


def models_of(isa: str) -> list[Path]:
    """The files of the learned models of all cores with an instruction set (the name of an Isa)."""
    return sorted(Path(__file__).parent.glob(f"{isa}-*.json"))
