"""What a network would take at other densities, before anyone trains it: it is pruned by magnitude and lowered.

The zeros are where one-shot pruning puts them. Training moves them, but a layer's cost depends on how many there are
and which structure they have.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.compiler import compile as compile_model
from pconvgen.compiler import decide
from pconvgen.devices import Device
from pconvgen.errors import UsageError
from pconvgen.frontend import Imported, load_model
from pconvgen.frontend.weights import WeightedLayer
from pconvgen.planning.experience import experience
from pconvgen.sparsify import Recipe, file_layers, prune, sparsify_file
from pconvgen.sparsity import Weight
from pconvgen.targets.presets import get_target
from pconvgen.values.decision import Decision
from pconvgen.whatif.masked import masked

WORTH = 1.05
"""How many times faster a layer has to be at the lowest density for pruning it to be worth anything."""


@dataclass(frozen=True)
class Point:
    """The network at one density.

    Attributes
    ----------
    density: of the layers that are pruned; 1 for the network as it is.
    layers: its layers.
    together: how many times longer the network is predicted to take than its layers alone.
    measured_ms: of the whole network on the device; None where nothing was measured.
    """

    density: float
    layers: tuple[Decision, ...]
    together: float = 1.0
    measured_ms: float | None = None

    @property
    def total_ms(self) -> float | None:
        """Measured, else predicted of all layers with kernels; None where nothing was learned of the device."""
        if self.measured_ms is not None:
            return self.measured_ms
        times = [layer.predicted_ms for layer in self.layers if layer.predicted_cycles is not None]
        known = [time for time in times if time is not None]
        return self.together * sum(known) if known and len(known) == len(times) else None

    @property
    def total_cycles(self) -> float:
        """A static estimate."""
        return sum(layer.predicted_cycles or 0.0 for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "density": self.density,
            "total_ms": self.total_ms,
            "total_cycles": self.total_cycles,
            "measured": self.measured_ms is not None,
            "layers": [layer.to_json() for layer in self.layers],
        }


@dataclass(frozen=True)
class LayerOutlook:
    """What pruning brings a layer.

    Attributes
    ----------
    name: the layer.
    dense_cycles, sparse_cycles: without zeros, and at the lowest density.
    even: the highest density at which it is faster than without zeros, between those that were looked at; None where it
        never is.
    """

    name: str
    dense_cycles: float
    sparse_cycles: float
    even: float | None

    @property
    def worth(self) -> bool:
        """Whether pruning it is worth anything."""
        return self.even is not None and self.dense_cycles >= WORTH * self.sparse_cycles


def whatif(
    model: Path,
    structure: str,
    densities: Sequence[float],
    target: str = "host",
    *,
    layers: Sequence[str] = (),
    inputs: Mapping[str, Sequence[int]] | None = None,
    device: Device | None = None,
    latency: Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> tuple[Point, ...]:
    """The network as it is, and at each of the densities, the highest first.

    Parameters
    ----------
    model: a .pt2 or .onnx file.
    structure, layers: see `Recipe`.
    densities: shares of the weights that are kept.
    target: name of a preset.
    inputs: shapes of inputs with dynamic dimensions.
    device: where to measure whole networks; without it times are predicted.
    latency: what `pconvgen latency fit` wrote, in place of the model that pconvgen brings for the target.
    report: told what is being done.

    Raises
    ------
    UsageError: what `Recipe` raises, or no density.
    PconvgenError: the model cannot be read or lowered, or the latency model cannot be read.
    """
    if not densities:
        raise UsageError("there is no density", expected="one at least, e.g. 0.25")
    recipes = {density: Recipe(structure, density, tuple(layers)) for density in sorted(set(densities), reverse=True)}
    preset = get_target(target)
    known = experience(preset, latency=latency)
    together = 1.0 if known.model is None else known.model.together
    points = []
    dense, weights = load_model(model, inputs), file_layers(model)
    with tempfile.TemporaryDirectory(prefix="pconvgen-whatif-") as folder:
        for density in (1.0, *(density for density in recipes if density < 1)):
            report(f"density {density:g}")
            imported = dense
            if density < 1:
                imported = _pruned(dense, weights, recipes[density], model, Path(folder), inputs)
            if device is None:
                points.append(Point(density, decide(imported, preset, planner=known), together))
                continue
            compiled = compile_model(imported, target, latency=latency)
            found = compiled.export(Path(folder) / "model.so")
            result = device.bench(compiled.manifest.model(found), compiled.manifest.random_inputs(0))
            points.append(Point(density, compiled.decisions, together, result.median_ms))
    return tuple(points)


def _pruned(
    dense: Imported,
    weights: Sequence[WeightedLayer],
    recipe: Recipe,
    model: Path,
    folder: Path,
    inputs: Mapping[str, Sequence[int]] | None,
) -> Imported:
    """The model of a file with its layers, pruned: in memory, or as a file where it has changed weights on its way."""
    keys: dict[Hashable, NDArray[np.bool_]] = {}

    def keeping(layer: WeightedLayer) -> WeightedLayer:
        def store(weight: Weight) -> None:
            keys[layer.key] = weight != 0

        return replace(layer, store=store)

    prune([keeping(layer) for layer in weights], recipe, str(model))
    found = masked(dense, [(layer.name, keys[layer.key]) for layer in weights if layer.key in keys])
    if found is not None:
        return found
    path = folder / f"pruned{model.suffix}"
    sparsify_file(model, path, recipe)
    return load_model(path, inputs)


def outlooks(points: Sequence[Point]) -> tuple[LayerOutlook, ...]:
    """What pruning brings each layer that a kernel computes at all densities, in the order of the network."""
    dense, *pruned = points
    found = []
    for layer in dense.layers:
        cycles = [next((row.predicted_cycles for row in p.layers if row.name == layer.name), None) for p in pruned]
        known = [value for value in cycles if value is not None]
        if layer.predicted_cycles is None or len(known) != len(cycles) or not known:
            continue
        costs = [layer.predicted_cycles, *known]
        found.append(LayerOutlook(layer.name, costs[0], costs[-1], _even([p.density for p in points], costs)))
    return tuple(found)


def _even(densities: Sequence[float], costs: Sequence[float]) -> float | None:
    """Where the cost falls below that of the first density; linear between those that were looked at."""
    for n in range(1, len(costs)):
        if costs[n] < costs[0]:
            above, below = (densities[n - 1], costs[n - 1]), (densities[n], costs[n])
            if n == 1:
                return above[0]
            share = (above[1] - costs[0]) / (above[1] - below[1])
            return above[0] + share * (below[0] - above[0])
    return None
