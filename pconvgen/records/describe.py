"""Workloads, layouts, weights and schedules as plain JSON values, for records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pconvgen.sparsity import Candidate, smallest
from pconvgen.sparsity.counts import WeightCounts
from pconvgen.templates.choice import Choice
from pconvgen.values.planes import Places
from pconvgen.values.target import Target
from pconvgen.values.workload import ConvWorkload

Described = tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any]]
"""A layer as records have it: its workload, its layouts, and its weight."""


def describe_workload(workload: ConvWorkload) -> dict[str, Any]:
    """All of its fields."""
    return _plain(asdict(workload))


def describe_places(places: Places | None) -> dict[str, Any] | None:
    """All fields of the layouts; None for a product of matrices."""
    return None if places is None else _plain(asdict(places))


def describe_weight(found: Sequence[Candidate], counts: WeightCounts) -> dict[str, Any]:
    """What the cost of a layer depends on besides its shapes, by the encodings that hold its weight's non-zeros.

    "structure" with its parameters, "size" and "nonzeros", "spread": standard deviation of the non-zeros of a filter by
    their mean, "patterns": how many kernels have how many non-zeros, from none to all.
    """
    return {
        "structure": str(smallest(found)),
        "size": counts.size,
        "nonzeros": counts.nonzeros,
        "spread": counts.spread,
        "patterns": counts.kernels.tolist(),
    }


def describe_choice(choice: Choice) -> dict[str, Any]:
    """What a choice is found by again: encoding and schedule.

    Which patterns a weight has is no part of it: layers that are alike in all else share their records.
    """
    return {
        "structure": choice.candidate.structure,
        "params": _plain({name: value for name, value in choice.candidate.params.items() if name != "patterns"}),
        "max_group": choice.max_group,
        "template": choice.family.name,
        **asdict(choice.schedule),
    }


def describe_target(target: Target) -> dict[str, Any]:
    """What decides which code is generated."""
    return {
        "name": target.name,
        "isa": target.core.isa.name,
        "triple": target.triple,
        "cpu": target.cpu,
        "features": list(target.features),
    }


def _plain(value: Any) -> Any:
    """As JSON gives it back: lists for tuples, Python's numbers for NumPy's."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
