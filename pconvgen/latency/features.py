"""What models of latency see of a trial: numbers from a record's parts, the same for all layers and templates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pconvgen.schedules.cost import ARITHMETIC, CALL
from pconvgen.values.precision import BYTES

VECTOR = 16
"""Elements by which work on outputs is counted: only its share of the cycles matters."""
INDEXED = 2.0
"""How much larger a weight without structure is with its index."""


def features(
    workload: Mapping[str, Any],
    places: Mapping[str, Any] | None,
    weight: Mapping[str, Any],
    trial: Mapping[str, Any],
    predicted_cycles: float,
) -> list[float]:
    """Layer, weight, encoding, schedule and layouts; and what the trial does and moves by the analytic model's cycles.

    The latter are there because a factor by which that model is wrong is near to linear in what it counts too low.
    """
    w = workload
    source, target = (places or {}).get("source") or {}, (places or {}).get("target") or {}
    rows, columns = -(-w["height"] // w["stride"][0]), -(-w["width"] // w["stride"][1])
    lanes, vectors = trial.get("lanes", 1), trial.get("vectors", 1)
    block = max(1, trial.get("rows", rows))
    grouped = trial["structure"] in ("dense", "simd_block", "block_punched")
    group = trial["max_group"] if grouped else 1
    planes = max(1, len(source.get("phases", ()))) if w["kernel"][0] > 1 else 1
    element = BYTES[w["precision"]["activations"]]
    surviving = max(1, weight["nonzeros"]) * rows * columns
    inputs = element * w["in_channels"] * planes * source.get("pitch", 1) * source.get("rows", 1)
    outputs = w["out_channels"] * rows * columns
    weights = BYTES[w["precision"]["weights"]] * max(1, weight["nonzeros"])
    weights *= INDEXED if trial["structure"] == "unstructured" else 1.0
    visits = outputs / group / (lanes * vectors)
    activation = _instructions(w["epilogue"]["activation"]) * outputs / VECTOR
    halo = (block + w["kernel"][0] - 1) / block

    def share(amount: float) -> float:
        return math.log(max(amount, 1e-9) / predicted_cycles)

    return [
        math.log(predicted_cycles),
        # The layer.
        float(w["batch"]), float(w["in_channels"]), float(w["height"]), float(w["width"]), float(w["out_channels"]),
        float(w["kernel"][0]), float(w["kernel"][1]), float(w["stride"][0]), float(w["stride"][1]), float(w["groups"]),
        float(w["epilogue"]["residual"]), float(w["precision"]["arithmetic"] == "float16"),
        # The weight.
        weight["nonzeros"] / weight["size"], float(weight["spread"]), math.log1p(weight["nonzeros"]),
        # Encoding and schedule.
        *(float(trial["structure"] == name) for name in ("dense", "pattern", "simd_block", "unstructured")),
        *(float(trial["template"] == name) for name in ("pixels", "channels", "winograd")),
        float(trial["max_group"]), float(trial["params"].get("n", 0) or 0), float(lanes),
        *(float(trial.get(name, -1)) for name in ("vectors", "height", "rows", "filters_inside", "channels")),
        *(float(trial.get(name, -1)) for name in ("prefetch", "images", "unroll", "tile", "filters")),
        float(group * vectors), float(-(-rows // block)), float(rows % block), columns % lanes / lanes,
        lanes * vectors / columns,
        # The layouts.
        float(source.get("pitch", 0)), float(len(source.get("phases", ()))), float(source.get("interleaved", False)),
        float(source.get("align", 0)), float(source.get("lead", 0)), source.get("pitch", 0) / columns,
        float(target.get("pitch", 0)), float(len(target.get("phases", ()))), float(target.get("interleaved", False)),
        # What it does, by the predicted cycles.
        share(surviving / VECTOR), share(surviving / lanes), share(visits), share(activation), share(CALL),
        share(inputs), share(inputs * halo), share(element * outputs),
        share(weights), share(weights * -(-rows // block)),
        # What it holds in caches.
        math.log(inputs), math.log(element * outputs), math.log(weights), math.log(inputs + weights),
        math.log(inputs * (block + w["kernel"][0] - 1) / max(1, source.get("rows", 1))),
        math.log(element * w["in_channels"] / w["groups"] * planes * lanes * vectors),
        math.log(surviving / outputs), math.log(surviving / inputs),
    ]  # fmt: skip


def _instructions(activation: Mapping[str, Any] | None) -> int:
    """As `schedules.cost` counts them."""
    if activation is None:
        return 0
    inner = [operand for operand in activation["operands"] if isinstance(operand, Mapping) and operand["operands"]]
    return ARITHMETIC.get(activation["name"], 1) + sum(map(_instructions, inner))
