"""The core that a benchmark runs on: what it is called, what it can do, and where its results lie."""

from __future__ import annotations

from pathlib import Path

from benchmarks.command import RESULTS
from pconvgen.targets.presets import get_target
from pconvgen.values.dtype import DType
from pconvgen.values.target import Target


def results_of(target: Target) -> Path:
    """The folder of what was measured on such cores with such instructions, as avx2-znver3."""
    return RESULTS / f"{target.core.isa.name}-{target.cpu}"


def host_results() -> Path:
    """That of this machine."""
    return results_of(get_target("host"))


def described(target: Target) -> str:
    """Processor, row of CORES, and its vectors: "znver3 (zen3): 8 lanes, 2 FMAs and 2 loads a cycle"."""
    widths = (
        f"{width.lanes} lanes, {width.fma:g} FMAs and {width.loads:g} loads a cycle"
        for width in target.core.widths(DType.FLOAT32)
    )
    return f"{target.cpu} ({target.core.name}): {'; '.join(widths)}"
