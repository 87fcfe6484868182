"""Time of every layer of a network in its network, from the calls that TVM's virtual machine makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.networks.results import LayerTime, Profile
from pconvgen.values.decision import Decision

TOLERANCE, TOLERANCE_MS = 1.05, 0.01
"""How much longer than dense a layer may seem to take: what repeated measurements differ by."""


def kind_of(decision: Decision) -> str:
    """linear, depthwise, or a convolution by its kernel, e.g. 3x3."""
    if decision.op == "linear":
        return "linear"
    _, channels, height, width = decision.shape
    return "depthwise" if channels == 1 and decision.shape[0] > 1 else f"{height}x{width}"


def assign(calls: Sequence[dict[str, Any]], decisions: Sequence[Decision]) -> list[Decision | None]:
    """Which layer each call computes; None for calls that compute none.

    A layer's call is known by its constants: arguments in a row, neither the first nor the last, of as many bytes
    as the decision says, or two kernels in a row if the layer is split. Layers with equal constants are called in
    program order.
    """
    left = [decision for decision in decisions if decision.nbytes]
    found: list[Decision | None] = [None] * len(calls)
    kernels = [number for number, call in enumerate(calls) if not call["name"].startswith("vm.")]
    for at, number in enumerate(kernels):
        if found[number] is not None:
            continue
        match = next(
            (one for one in left if one.nbytes in _sums([calls[n] for n in kernels[at:][: _parts(one)]])), None
        )
        if match is not None:
            left.remove(match)
            for n in kernels[at:][: _parts(match)]:
                found[n] = match
    return found


def _parts(decision: Decision) -> int:
    """Kernels of a layer: one for each encoding."""
    return len(decision.choice.split(" + "))


def _sums(calls: Sequence[dict[str, Any]]) -> set[int]:
    """What neighbours among the constants may add up to, one or more of each call."""
    totals = {0}
    for call in calls:
        sizes = call["nbytes"][1:-1]
        runs = {sum(sizes[start:end]) for start in range(len(sizes)) for end in range(start + 1, len(sizes) + 1)}
        totals = {total + run for total in totals for run in runs}
    return totals


def layer_ms(calls: Sequence[dict[str, Any]], owners: Sequence[Decision | None]) -> dict[str, float]:
    """Milliseconds of each layer; what packs inputs counts for the next layer."""
    found: dict[str, float] = {}
    packing = 0.0
    for call, owner in zip(calls, owners, strict=True):
        if owner is not None:
            found[owner.name] = found.get(owner.name, 0.0) + packing + call["ms"]
            packing = 0.0
        elif call["name"].startswith("pack"):
            packing += call["ms"]
    return found


def part_of(call: dict[str, Any], owner: Decision | None) -> str:
    """What a call is counted as."""
    if owner is not None:
        return kind_of(owner)
    for prefix, part in (("pack", "packing"), ("pool", "pooling"), ("vm.", "runtime")):
        if call["name"].startswith(prefix):
            return part
    return "other operators"


def profile(
    weights: str,
    calls: Sequence[dict[str, Any]],
    decisions: Sequence[Decision],
    dense_calls: Sequence[dict[str, Any]],
    dense_decisions: Sequence[Decision],
) -> Profile:
    """Layers and parts of a pruned network, beside the same network compiled dense."""
    owners = assign(calls, decisions)
    ms = layer_ms(calls, owners)
    dense_ms = layer_ms(dense_calls, assign(dense_calls, dense_decisions))
    layers = tuple(
        LayerTime(d.name, kind_of(d), d.macs * d.density, ms[d.name], dense_ms[d.name], d.density < 1)
        for d in decisions
        if d.name in ms and d.name in dense_ms
    )
    parts: dict[str, float] = {}
    for call, owner in zip(calls, owners, strict=True):
        part = part_of(call, owner)
        parts[part] = parts.get(part, 0.0) + call["ms"]
    return Profile(weights, layers, parts)


def slower_than_dense(found: Profile) -> list[LayerTime]:
    """Layers that take longer pruned than dense."""
    return [
        layer
        for layer in found.layers
        if layer.pruned and layer.ms > TOLERANCE * layer.dense_ms and layer.ms > layer.dense_ms + TOLERANCE_MS
    ]
