"""Choosing a layer's encoding and kernel by predicted cost, and saying why."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pconvgen.decision import Decision
from pconvgen.passes.sites import Site
from pconvgen.schedules import ISAS
from pconvgen.schedules.default import Choice, rank
from pconvgen.schedules.schedule import ChannelSchedule, WinogradSchedule
from pconvgen.sparsity import STRUCTURES, Candidate, candidates, encode, smallest
from pconvgen.targets.target import Target
from pconvgen.templates.instance import Instance, instantiate

FILL_SHARE, FILL_BYTES = 0.1, 8192
"""Zeros that a sparse encoding may store: this share of its non-zeros, and some bytes for incomplete blocks."""


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """What becomes of one layer."""

    site: Site
    instance: Instance
    decision: Decision


def plan_layer(
    site: Site,
    name: str,
    target: Target,
    *,
    dense: bool = False,
    original: tuple[int, ...] | None = None,
    present: NDArray[np.bool_] | None = None,
) -> LayerPlan:
    """Ranks the encodings that hold the layer's weight and instantiates the fastest.

    Parameters
    ----------
    site: the layer.
    name: its name in the model.
    target: decides instruction set, caches and clock.
    dense: consider only the dense encoding.
    original: shape of the weight before dead channels were removed from it, if there were some.
    present: which elements of the weight the model has, None for all; the others are zeros of a rewriting, which even
        a dense layer need not compute.
    """
    isa = ISAS[target.isa]
    weight = site.weight
    if dense and present is not None:
        # NaN holds the place of a zero that is to be computed.
        weight = np.where(present & (weight == 0), np.float32(np.nan), weight)
    everything = dense and present is None
    found = STRUCTURES["dense"].detect(weight) if everything else candidates(weight, site.workload.groups)
    ranking = rank(site.workload, [c for c in found if _compact(c)], isa, target.l2_kib)
    best = ranking[0]
    encoding = encode(weight, best.candidate, groups=site.workload.groups, max_group=best.max_group)
    if weight is not site.weight:
        encoding = replace(encoding, values=np.nan_to_num(encoding.values))
    instance = instantiate(site.workload, encoding, best.schedule, isa)
    shape = site.weight.shape if site.op != "linear" else site.weight.shape[:2]
    structure = "dense" if best.candidate.structure == "dense" else smallest(found).structure
    reason = _reason(ranking, decided_dense=dense)
    whole = original or shape
    if original is not None:
        gone = [before - after for before, after in zip(original, shape, strict=True)][:2]
        reason = f"{gone[0]} of {original[0]} filters and {gone[1]} of {original[1]} channels removed; {reason}"
        structure = "filter" if structure == "dense" else structure
    decision = Decision(
        name=name,
        op=site.op,
        shape=whole,
        macs=site.workload.macs * math.prod(whole) // math.prod(shape),
        structure=structure,
        density=np.count_nonzero(site.weight) / math.prod(whole),
        choice=_text(best),
        reason=reason,
        schedule=asdict(best.schedule),
        predicted_cycles=best.cycles,
        nbytes=instance.nbytes,
    )
    return LayerPlan(site, instance, decision.timed(target.ghz))


def _text(choice: Choice) -> str:
    """Template and encoding."""
    if isinstance(choice.schedule, WinogradSchedule):
        return f"winograd: F({choice.schedule.tile},3)"
    template = "channels" if isinstance(choice.schedule, ChannelSchedule) else "pixels"
    return f"{template}: {choice.candidate}"


def _compact(candidate: Candidate) -> bool:
    """Whether an encoding keeps the promise that a library is as small as its surviving weights; dense always may."""
    fill_bytes = 4 * (candidate.stored - candidate.nonzeros)
    return candidate.structure == "dense" or fill_bytes <= FILL_SHARE * 4 * candidate.nonzeros + FILL_BYTES


def _reason(ranking: list[Choice], *, decided_dense: bool) -> str:
    """Why the first of the ranking was taken, with predicted cycles against the alternative a user would ask about."""
    best = ranking[0]
    zeros = best.candidate.nonzeros < _dense_size(ranking, best)
    if decided_dense or not zeros:
        text = "dense was asked for" if decided_dense else "the weight has no zeros"
        return f"{_against_direct(ranking)}; {text}" if isinstance(best.schedule, WinogradSchedule) else text
    if isinstance(best.schedule, WinogradSchedule):
        return f"{_against_direct(ranking)}; the weight has hardly any zeros"
    if best.candidate.structure == "dense":
        rival = next((choice for choice in ranking if choice.candidate.structure != "dense"), None)
        if rival is None:
            return "no sparse encoding fits"
        slower, fill = rival.cycles / best.cycles, rival.candidate.fill
        return f"{rival.candidate} would take {slower:.2f}x the cycles (fill {fill:.2f})"
    dense = next(choice for choice in ranking if choice.candidate.structure == "dense")
    text = f"{dense.cycles / best.cycles:.1f}x fewer cycles than dense"
    if best.candidate.fill < 0.995:
        text += f", fill {best.candidate.fill:.2f}"
    rival = next((choice for choice in ranking[1:] if choice.candidate.structure != best.candidate.structure), dense)
    return text + f"; next {rival.candidate} at {rival.cycles / best.cycles:.2f}x"


def _against_direct(ranking: list[Choice]) -> str:
    """What Winograd, the first of the ranking, gains over direct convolution."""
    direct = next(choice for choice in ranking[1:] if choice.candidate.structure == "dense")
    return f"{direct.cycles / ranking[0].cycles:.1f}x fewer cycles than direct convolution"


def _dense_size(ranking: list[Choice], best: Choice) -> int:
    return next((c.candidate.stored for c in ranking if c.candidate.structure == "dense"), best.candidate.stored)
