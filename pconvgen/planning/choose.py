"""Choosing a layer's encoding and kernel by predicted cost, and saying why."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.matching.fused_ops import FusedOp
from pconvgen.planning.search import ALL, rank
from pconvgen.planning.split import schedule_split
from pconvgen.records.describe import Described, describe_places, describe_weight, describe_workload
from pconvgen.sparsity import DENSE, STRUCTURES, Candidate, Filter, candidates, encode, smallest
from pconvgen.sparsity.counts import WeightCounts, count
from pconvgen.sparsity.split import Split, splits
from pconvgen.templates.choice import Choice, SplitChoice
from pconvgen.templates.family import DIRECT, Family, instantiate
from pconvgen.templates.instance import Instance
from pconvgen.values.decision import Decision
from pconvgen.values.dtype import DType
from pconvgen.values.isa import Isa
from pconvgen.values.planes import Places
from pconvgen.values.precision import FLOAT32
from pconvgen.values.target import Target

FILL_SHARE, FILL_BYTES = 0.1, 8192
"""Zeros that a sparse encoding may store: this share of its non-zeros, and some bytes for incomplete blocks."""

MIXED = 0.8
"""A weight may be split when less of what any structure would store is not zero: more, and it has that structure."""

SPLIT_GAIN = 1.05
"""How many times fewer cycles a split has to take: below that, predictions do not tell."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer with the encodings that may hold its weight.

    Attributes
    ----------
    fused_op: the layer in the module.
    name: its name in the model.
    dense: whether only the dense encoding was asked for.
    original: shape of the weight before dead channels were removed from it, None if there were none.
    weight: what is encoded. NaN holds the place of a zero that is to be computed.
    found: encodings that hold the weight's non-zeros.
    candidates: those of them that are small enough.
    splits: ways to split it into two encodings.
    families: kernels that may compute it.
    """

    fused_op: FusedOp
    name: str
    dense: bool
    original: tuple[int, ...] | None
    weight: NDArray[np.float32]
    found: tuple[Candidate, ...]
    candidates: tuple[Candidate, ...]
    splits: tuple[Split, ...] = ()
    families: tuple[Family, ...] = ALL

    @property
    def is_product(self) -> bool:
        """Whether it is a product of matrices, whose tensors have no planes."""
        return self.fused_op.workload.is_product

    @cached_property
    def counts(self) -> WeightCounts:
        """Where the non-zeros of the model's weight are."""
        return count(self.fused_op.weight)

    def described(self, places: Places | None) -> Described:
        """The layer in layouts, as records have it."""
        return (
            describe_workload(self.fused_op.workload),
            describe_places(places),
            describe_weight(self.found, self.counts),
        )

    def scattered(self) -> Layer:
        """The layer when its input's channels do not lie side by side."""
        left = tuple(c for c in self.candidates if not STRUCTURES[c.structure].spans_channels)
        return replace(self, candidates=left, families=tuple(f for f in self.families if f.scattered))

    def exact(self, *, rewritten: bool) -> Layer:
        """The layer when NaN and infinities may reach no outputs but those whose windows hold them.

        Kernels that are not direct spread them. Of a weight that is `rewritten`, so do zeros that the model does not
        have and an encoding stores.
        """
        layer = replace(self, families=tuple(f for f in self.families if f.direct))
        if not rewritten:
            return layer
        return replace(
            layer,
            candidates=tuple(candidate for candidate in self.candidates if candidate.stored == candidate.nonzeros),
            splits=tuple(split for split in self.splits if split.stored == split.nonzeros),
        )


@dataclass(frozen=True)
class ReasonedChoice:
    """How a layer is to be computed.

    Attributes
    ----------
    choice: encoding and schedule.
    reason: why, with the numbers that decided.
    """

    choice: Choice | SplitChoice
    reason: str


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """What becomes of one layer.

    Attributes
    ----------
    layer: the layer.
    choice: how it is computed.
    instances: its kernels, one after the other; each adds the result of the one before it as its residual.
    decision: the choice and why.
    """

    layer: Layer
    choice: Choice | SplitChoice
    instances: tuple[Instance, ...]
    decision: Decision


Planner = Callable[..., LayerPlan]
"""What plans layers: `plan_layer`, or something that takes the same arguments and calls it."""


def layer_of(
    fused_op: FusedOp,
    name: str,
    *,
    dense: bool = False,
    original: tuple[int, ...] | None = None,
    present: NDArray[np.bool_] | None = None,
) -> Layer:
    """A layer with the encodings that compete.

    Parameters
    ----------
    fused_op, name, dense, original: as in Layer.
    present: which elements of the weight the model has, None for all; the others are zeros of a rewriting, which even
        a dense layer need not compute.
    """
    weight = fused_op.weight
    if dense and present is not None:
        weight = np.where(present & (weight == 0), np.float32(np.nan), weight)
    everything = dense and present is None
    found = STRUCTURES[DENSE].detect(weight) if everything else candidates(weight, fused_op.workload.groups)
    small = tuple(c for c in found if c.structure == DENSE or _compact(c))
    mixed = not dense and all(c.fill < MIXED for c in found if not STRUCTURES[c.structure].per_weight)
    parted = splits(weight, fused_op.workload.groups) if mixed and not fused_op.workload.is_product else ()
    parted = tuple(split for split in parted if _compact(split))
    return Layer(
        fused_op, name, dense, original, weight, tuple(found), small, parted, ALL if present is None else DIRECT
    )


def options(layer: Layer, target: Target, places: Places | None) -> tuple[list[Choice], list[SplitChoice]]:
    """The layer's encodings and its splits, each with its best schedule, the fastest first."""
    workload, core = layer.fused_op.workload, target.core
    ranking = rank(workload, layer.candidates, core, places, families=layer.families)
    # The sums between the kernels of a split are float32.
    if places is None or workload.precision != FLOAT32:
        return ranking, []
    parted = [schedule_split(workload, split, core, places) for split in layer.splits]
    return ranking, sorted(parted, key=lambda choice: choice.cycles)


def fastest(ranking: list[Choice], parted: list[SplitChoice]) -> Choice | SplitChoice:
    """The choice among `options`; a split only where that pays for certain."""
    best = ranking[0]
    return parted[0] if parted and SPLIT_GAIN * parted[0].cycles <= best.cycles else best


def predicted(layer: Layer, target: Target, places: Places | None) -> ReasonedChoice:
    """What the analytic model predicts to be fastest."""
    ranking, parted = options(layer, target, places)
    best = fastest(ranking, parted)
    if isinstance(best, SplitChoice):
        return ReasonedChoice(best, _split_reason(best, ranking[0]))
    return ReasonedChoice(best, _reason(ranking, layer.dense))


def plan_layer(
    layer: Layer,
    target: Target,
    places: Places | None = None,
    *,
    slots: NDArray[np.int64] | None = None,
    first: tuple[int, int] = (0, 0),
    chosen: ReasonedChoice | None = None,
) -> LayerPlan:
    """Instantiates what was chosen for a layer, by default the fastest of its encodings.

    Parameters
    ----------
    layer: the layer.
    target: decides instruction set and caches.
    places: where the layer's tensors lie; None for a product of matrices.
    slots, first: see `convolution` (templates/instance.py).
    chosen: in place of `predicted`.
    """
    fused_op = layer.fused_op
    chosen = chosen or predicted(layer, target, places)
    best, reason = chosen.choice, chosen.reason
    instances = tuple(_instances(layer, best, target.core.isa, places, slots, first))
    shape = fused_op.weight.shape if fused_op.op != "linear" else fused_op.weight.shape[:2]
    stays_dense = isinstance(best, Choice) and best.candidate.structure == DENSE
    structure = DENSE if stays_dense else smallest(layer.found).structure
    original = layer.original
    whole = original or shape
    if original is not None:
        gone = [before - after for before, after in zip(original, shape, strict=True)][:2]
        reason = f"{gone[0]} of {original[0]} filters and {gone[1]} of {original[1]} channels removed; {reason}"
        structure = Filter.name if structure == DENSE else structure
    decision = Decision(
        name=layer.name,
        op=fused_op.op,
        shape=whole,
        macs=fused_op.workload.macs * math.prod(whole) // math.prod(shape),
        structure=structure,
        density=layer.counts.nonzeros / math.prod(whole),
        choice=str(best),
        reason=reason,
        schedule=_schedule(best) | _described(places),
        predicted_cycles=best.cycles,
        nbytes=sum(instance.nbytes for instance in instances),
    )
    return LayerPlan(layer, best, instances, decision)


def _instances(
    layer: Layer,
    choice: Choice | SplitChoice,
    isa: Isa,
    places: Places | None,
    slots: NDArray[np.int64] | None,
    first: tuple[int, int],
) -> Iterator[Instance]:
    """The kernels of a choice."""
    workload, weight = layer.fused_op.workload, layer.weight
    if isinstance(choice, SplitChoice):
        # The sums between the kernels are a tensor of their own.
        ends = ((0, first[1]), (first[0], 0))
        weights = choice.split.parts(weight, workload.groups)
        for work, part, weight, end in zip(choice.workloads, choice.parts, weights, ends, strict=True):
            encoding = encode(weight, part.candidate, groups=workload.groups, max_group=part.max_group)
            yield instantiate(work, encoding, part.schedule, isa, part.places, slots=slots, first=end)
        return
    encoding = encode(weight, choice.candidate, groups=workload.groups, max_group=choice.max_group)
    if weight is not layer.fused_op.weight:
        encoding = replace(encoding, values=np.nan_to_num(encoding.values))
    yield instantiate(workload, encoding, choice.schedule, isa, places, slots=slots, first=first)


def _schedule(choice: Choice | SplitChoice) -> dict[str, Any]:
    """The schedule's values; of a split those of both kernels."""
    if isinstance(choice, SplitChoice):
        blocks, rest = choice.parts
        return {"blocks": asdict(blocks.schedule), "rest": asdict(rest.schedule)}
    return asdict(choice.schedule)


def _described(places: Places | None) -> dict[str, str]:
    return {} if places is None else {"source": str(places.source), "target": str(places.target)}


def _compact(found: Candidate | Split) -> bool:
    """Whether an encoding keeps the promise that a library is as small as its surviving weights."""
    element = DType.FLOAT32.bytes
    return element * (found.stored - found.nonzeros) <= FILL_SHARE * element * found.nonzeros + FILL_BYTES


def _split_reason(best: SplitChoice, single: Choice) -> str:
    """How many of the non-zeros the blocks hold, and what a split gains over the best that holds all weights."""
    blocks = round(100 * best.split.blocks.nonzeros / best.split.nonzeros)
    gain = f"{single.cycles / best.cycles:.2f}x fewer cycles than the best single encoding ({single})"
    return f"split {blocks} % / {100 - blocks} %: {gain}"


def _reason(ranking: list[Choice], decided_dense: bool) -> str:
    """Why the first of the ranking was taken, with predicted cycles against the alternative a user would ask about."""
    best = ranking[0]
    zeros = best.candidate.nonzeros < _dense_size(ranking, best)
    if not best.family.direct:
        text = (
            "dense was asked for" if decided_dense else _against_sparse(ranking) if zeros else "the weight has no zeros"
        )
        return f"{_against_direct(ranking)}; {text}"
    if decided_dense:
        return "dense was asked for"
    if not any(choice.candidate.structure == DENSE for choice in ranking):
        return "zeros of the rewriting may not be computed"
    if not zeros:
        return "the weight has no zeros"
    if best.candidate.structure == DENSE:
        return _against_sparse(ranking)
    dense = next(choice for choice in ranking if choice.candidate.structure == DENSE)
    text = f"{dense.cycles / best.cycles:.1f}x fewer cycles than dense"
    if best.candidate.fill < 0.995:
        text += f", fill {best.candidate.fill:.2f}"
    rival = next((choice for choice in ranking[1:] if choice.candidate.structure != best.candidate.structure), dense)
    return text + f"; next {rival.candidate} at {rival.cycles / best.cycles:.2f}x"


def _against_direct(ranking: list[Choice]) -> str:
    """What the first of the ranking, which computes in another way, gains over direct convolution."""
    direct = next(choice for choice in ranking if choice.family.direct and choice.candidate.structure == DENSE)
    return f"{direct.cycles / ranking[0].cycles:.1f}x fewer cycles than direct convolution"


def _against_sparse(ranking: list[Choice]) -> str:
    """What the first of the ranking, a dense choice, gains over the best sparse encoding."""
    rival = next((choice for choice in ranking if choice.candidate.structure != DENSE), None)
    if rival is None:
        return "no sparse encoding fits"
    slower, fill = rival.cycles / ranking[0].cycles, rival.candidate.fill
    return f"{rival.candidate} would take {slower:.2f}x the cycles (fill {fill:.2f})"


def _dense_size(ranking: list[Choice], best: Choice) -> int:
    return next((c.candidate.stored for c in ranking if c.candidate.structure == DENSE), best.candidate.stored)
