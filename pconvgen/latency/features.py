"""What models of latency see of a trial: numbers from a record's parts, the same for all layers and families."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.schedules.roofline import ARITHMETIC
from pconvgen.sparsity import STRUCTURES
from pconvgen.templates.family import FAMILIES, parameters
from pconvgen.values.core import Costs
from pconvgen.values.dtype import DType

VECTOR = 16
"""Elements by which work on outputs is counted: only its share of the cycles matters."""
INDEXED = 2.0
"""How much larger a weight that has an index of its own is with it."""


def features(
    workload: Mapping[str, Any],
    places: Mapping[str, Any] | None,
    weight: Mapping[str, Any],
    trial: Mapping[str, Any],
    predicted_cycles: float,
) -> dict[str, float]:
    """Layer, weight, encoding, schedule and layouts; and what the trial does and moves by the analytic model's cycles.

    By name, so that models that were learned before there was a structure, a family or a feature can still be used.

    The latter are there because a factor by which that model is wrong is near to linear in what it counts too low.
    """
    w = workload
    source, target = (places or {}).get("source") or {}, (places or {}).get("target") or {}
    rows, columns = -(-w["height"] // w["stride"][0]), -(-w["width"] // w["stride"][1])
    lanes, vectors = trial.get("lanes", 1), trial.get("vectors", 1)
    block = max(1, trial.get("rows", rows))
    structure = STRUCTURES[trial["structure"]]
    group = trial["max_group"] if structure.shares_positions else 1
    planes = max(1, len(source.get("phases", ()))) if w["kernel"][0] > 1 else 1
    element = DType(w["precision"]["activations"]).bytes
    surviving = max(1, weight["nonzeros"]) * rows * columns
    inputs = element * w["in_channels"] * planes * source.get("pitch", 1) * source.get("rows", 1)
    outputs = w["out_channels"] * rows * columns
    weights = DType(w["precision"]["weights"]).bytes * max(1, weight["nonzeros"])
    weights *= INDEXED if structure.per_weight else 1.0
    visits = outputs / group / (lanes * vectors)
    activation = _instructions(w["epilogue"]["activation"]) * outputs / VECTOR
    halo = (block + w["kernel"][0] - 1) / block

    def share(amount: float) -> float:
        return math.log(max(amount, 1e-9) / predicted_cycles)

    names = {name: float(trial["structure"] == name) for name in STRUCTURES}
    families = {name: float(trial["template"] == name) for name in FAMILIES}
    return {
        "cycles": math.log(predicted_cycles),
        # The layer.
        "batch": float(w["batch"]),
        "in_channels": float(w["in_channels"]),
        "height": float(w["height"]),
        "width": float(w["width"]),
        "out_channels": float(w["out_channels"]),
        "kernel rows": float(w["kernel"][0]),
        "kernel columns": float(w["kernel"][1]),
        "stride rows": float(w["stride"][0]),
        "stride columns": float(w["stride"][1]),
        "groups": float(w["groups"]),
        "residual": float(w["epilogue"]["residual"]),
        "half arithmetic": float(w["precision"]["arithmetic"] == DType.FLOAT16),
        # The weight.
        "density": weight["nonzeros"] / weight["size"],
        "spread": float(weight["spread"]),
        "nonzeros": math.log1p(weight["nonzeros"]),
        # Encoding and schedule.
        **{f"structure {name}": value for name, value in names.items()},
        **{f"family {name}": value for name, value in families.items()},
        "max group": float(trial["max_group"]),
        "block filters": float(trial["params"].get("n", 0) or 0),
        **{f"schedule {name}": float(trial.get(name, -1)) for name in parameters()},
        "accumulators": float(group * vectors),
        "blocks": float(-(-rows // block)),
        "rows beyond blocks": float(rows % block),
        "columns beyond vectors": columns % lanes / lanes,
        "tile by row": lanes * vectors / columns,
        # The layouts.
        "source pitch": float(source.get("pitch", 0)),
        "source planes": float(len(source.get("phases", ()))),
        "source interleaved": float(source.get("interleaved", False)),
        "source align": float(source.get("align", 0)),
        "source lead": float(source.get("lead", 0)),
        "source pitch by row": source.get("pitch", 0) / columns,
        "target pitch": float(target.get("pitch", 0)),
        "target planes": float(len(target.get("phases", ()))),
        "target interleaved": float(target.get("interleaved", False)),
        # What it does, by the predicted cycles.
        "share products": share(surviving / VECTOR),
        "share vector products": share(surviving / lanes),
        "share visits": share(visits),
        "share activation": share(activation),
        "share call": share(Costs.call),
        "share inputs": share(inputs),
        "share inputs with halo": share(inputs * halo),
        "share outputs": share(element * outputs),
        "share weights": share(weights),
        "share weights of all blocks": share(weights * -(-rows // block)),
        # What it holds in caches.
        "inputs": math.log(inputs),
        "outputs": math.log(element * outputs),
        "weights": math.log(weights),
        "inputs and weights": math.log(inputs + weights),
        "block of inputs": math.log(inputs * (block + w["kernel"][0] - 1) / max(1, source.get("rows", 1))),
        "tile of inputs": math.log(element * w["in_channels"] / w["groups"] * planes * lanes * vectors),
        "products by output": math.log(surviving / outputs),
        "products by input": math.log(surviving / inputs),
    }


def matrix(rows: Sequence[Mapping[str, float]], columns: Sequence[str]) -> NDArray[np.float64]:
    """`features` as float64 [rows, columns]: a model sees those that it was learned from, in its own order."""
    return np.array([[row[column] for column in columns] for row in rows], np.float64).reshape(-1, len(columns))


def _instructions(activation: Mapping[str, Any] | None) -> int:
    """As `schedules.roofline` counts them."""
    if activation is None:
        return 0
    inner = [operand for operand in activation["operands"] if isinstance(operand, Mapping) and operand["operands"]]
    return ARITHMETIC.get(activation["name"], 1) + sum(map(_instructions, inner))
