"""What was measured before: for a target, records of tuning (.jsonl) and a learned model of latency (.json).

The files are named by core and processor. `python -m benchmarks.latency` makes them.
"""

from __future__ import annotations

from pathlib import Path


def records_of(core: str) -> list[Path]:
    """The files of records, of all processors that are such cores (a name of CORES)."""
    return sorted(Path(__file__).parent.glob(f"{core}-*.jsonl"))


def latency_of(core: str, cpu: str) -> Path | None:
    """The file of the learned model, None where there is none."""
    path = Path(__file__).parent / f"{core}-{cpu}.json"
    return path if path.is_file() else None


def models_of(isa: str) -> list[Path]:
    """The files of the learned models of all cores with an instruction set (the name of an Isa)."""
    return sorted(Path(__file__).parent.glob(f"{isa}-*.json"))
