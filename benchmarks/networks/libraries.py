"""Compiling a network in a process of its own, so that its memory is its own."""

from __future__ import annotations

import multiprocessing
import resource
import time
from pathlib import Path

import numpy as np

from benchmarks.models.cases import Case, Variant
from benchmarks.networks.results import DENSE, Library

MEBI = 1 << 20


def weights_of(variant: Variant | None) -> str:
    """As results name the weights of a variant; None is the network as it is."""
    return variant.name if variant else DENSE


def compiled(case: Case, variant: Variant | None, path: Path) -> Library:
    """Writes the library of a network; `variant` None compiles it as it is."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_compile, (case, variant, path))


def _compile(case: Case, variant: Variant | None, path: Path) -> Library:
    import pconvgen

    model = case.build() if variant is None else case.pruned(variant)
    imported = pconvgen.load_model(model, example=(case.image(),))
    started = time.perf_counter()
    library = pconvgen.compile(imported)
    library.export(path)
    seconds = time.perf_counter() - started
    surviving = sum(4 * decision.density * np.prod(decision.shape) for decision in library.decisions)
    indices = sum(decision.nbytes for decision in library.decisions) - surviving
    return Library(
        weights=weights_of(variant),
        compile_s=seconds,
        peak_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEBI,
        nbytes=path.stat().st_size,
        allowed_bytes=int(1.1 * (surviving + max(0.0, indices)) + MEBI),
        macs=float(sum(decision.macs * decision.density for decision in library.decisions)),
    )
