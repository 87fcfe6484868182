"""Schedules of a layer: for each encoding of its weight, those that the analytic model likes best."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pconvgen.schedules.roofline import pack_cycles
from pconvgen.sparsity.structure import Candidate
from pconvgen.templates.choice import Choice
from pconvgen.templates.family import FAMILIES, Family
from pconvgen.templates.layout.proposals import layouts
from pconvgen.values.core import Core
from pconvgen.values.planes import Places, plain_layout
from pconvgen.values.workload import ConvWorkload

ALL = tuple(FAMILIES.values())


def rank(
    workload: ConvWorkload,
    candidates: Iterable[Candidate],
    core: Core,
    places: Places | None = None,
    *,
    families: Sequence[Family] = ALL,
) -> list[Choice]:
    """The best choice of every candidate by each family that computes it, the fastest first.

    Without `places`, the input is packed for this layer, which counts, and the output is NCHW; a product of matrices
    has none.
    """
    options: list[tuple[float, Places | None]] = [(0.0, places)]
    if places is None and not workload.is_product:
        options = list(_alone(workload, core))
    usable = [family for family in families if family.applies(workload)]
    best = (_best(workload, candidate, core, family, options) for candidate in candidates for family in usable)
    return sorted((choice for choice in best if choice is not None), key=lambda choice: choice.cycles)


def _best(
    workload: ConvWorkload,
    candidate: Candidate,
    core: Core,
    family: Family,
    options: Sequence[tuple[float, Places | None]],
) -> Choice | None:
    """The fastest of a candidate and a family in any of some (cycles to pack the input, layouts)."""
    found = []
    for max_group, shape in family.encodings(workload, candidate, core):
        for pack, places in options:
            priced = family.price(workload, shape, core, places)
            if priced.schedules:
                cycles = priced.cycles(places, core.costs)
                fastest = int(cycles.argmin())
                schedule = priced.schedules[fastest]
                found.append(Choice(candidate, max_group, schedule, pack + float(cycles[fastest]), places))
    return min(found, key=lambda choice: choice.cycles, default=None)


def all_choices(
    workload: ConvWorkload,
    candidates: Iterable[Candidate],
    core: Core,
    places: Places | None,
    *,
    families: Sequence[Family] = ALL,
) -> Iterator[Choice]:
    """Every legal choice in these layouts, in no order; None as `places` is for products of matrices only."""
    usable = [family for family in families if family.applies(workload)]
    for candidate in candidates:
        for family in usable:
            for max_group, shape in family.encodings(workload, candidate, core):
                priced = family.price(workload, shape, core, places)
                for schedule, cycles in zip(priced.schedules, priced.cycles(places, core.costs).tolist(), strict=True):
                    yield Choice(candidate, max_group, schedule, cycles, places)


def _alone(workload: ConvWorkload, core: Core) -> Iterator[tuple[float, Places]]:
    """(cycles to pack the input, layouts) of a layer by itself."""
    target = plain_layout(workload.out_channels, workload.out_height, workload.out_width)
    residual = target if workload.epilogue.residual else None
    lanes = core.lanes(workload.precision.arithmetic)
    for source in layouts(workload, core.isa):
        pack = 0.0 if source.plain else workload.batch * pack_cycles(source, lanes, core.costs)
        yield pack, Places(source, target, residual)
