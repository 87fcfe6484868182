"""One-shot pruning: zeros of a structure put into a model, by magnitude or at random.

To try the compiler and to start a training from; a network that is to keep its accuracy is trained afterwards.
"""

from __future__ import annotations

import fnmatch
import importlib
import math
import zlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pconvgen.errors import UsageError
from pconvgen.frontend import model_format
from pconvgen.frontend.spec import check_finite
from pconvgen.frontend.weights import OtherWeight, WeightedLayer
from pconvgen.sparsity import DENSE, SPARSE, STRUCTURES, SimdBlock, Weight, project
from pconvgen.sparsity import density as density_of

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class PrunedLayer:
    """What became of a layer.

    Attributes
    ----------
    name, op, shape: the layer; its weight's shape.
    structure: what its zeros form now; "dense" when it was left as it is.
    density: share of its weights that are not zero.
    note: why it is not what was asked for, empty when it is.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    structure: str
    density: float
    note: str = ""

    @property
    def weights(self) -> int:
        """How many it has, zeros included; 0 when the model computes them."""
        return math.prod(self.shape) if self.shape else 0


@dataclass(frozen=True)
class Recipe:
    """What is asked for.

    Attributes
    ----------
    structure: key of STRUCTURES.
    density: share of the weights to keep, over 0 and at most 1.
    layers: globs of layer names; empty for all but the first convolution and the last linear layer.
    random: random positions of the structure in place of the largest weights.
    seed: for the random positions.

    Raises
    ------
    UsageError: the structure is unknown, or the density is out of range.
    """

    structure: str
    density: float
    layers: tuple[str, ...] = ()
    random: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.structure not in SPARSE:
            raise UsageError("unknown structure", found=self.structure, expected=f"one of {', '.join(SPARSE)}")
        if not 0 < self.density <= 1:
            raise UsageError(
                "density is out of range",
                found=self.density,
                expected="0 < density <= 1",
                remedy="give the share of weights to keep, e.g. 0.25",
            )


def sparsify(
    module: nn.Module,
    structure: str,
    density: float,
    layers: Sequence[str] | str | None = None,
    random: bool = False,
    seed: int = 0,
) -> dict[str, float]:
    """Prunes the convolution and linear layers of a module in place; see `Recipe` for the parameters.

    Returns the density of every such layer, of those that were left alone as well.

    Raises
    ------
    UsageError: an unknown structure, a density out of range, no layer of that name.
    PconvgenError: a weight is not finite, not float32, or is computed by a parametrisation.
    """
    from pconvgen.frontend.torch.weights import module_layers

    globs = (layers,) if isinstance(layers, str) else tuple(layers or ())
    recipe = Recipe(structure, density, globs, random, seed)
    return {row.name: row.density for row in prune(module_layers(module), recipe, type(module).__name__)}


def sparsify_file(model: Path, output: Path, recipe: Recipe) -> tuple[PrunedLayer, ...]:
    """Writes a pruned copy of a .pt2 or .onnx model in its own format.

    Tells what became of its layers, and then which other weights it has.

    Raises
    ------
    UsageError: as `sparsify`; no such model; the output has another extension.
    PconvgenError: the model is damaged, a weight is not finite, or the output cannot be written.
    """
    kind = model_format(model)
    if output.suffix.lower() != model.suffix.lower():
        raise UsageError("the output has another format than the model", file=output, expected=f"a {model.suffix} file")
    weights = importlib.import_module(f"pconvgen.frontend.{kind}.weights")
    program = weights.load(model)
    rows = prune(weights.layers(program, str(model)), recipe, str(model))
    weights.save(program, output)
    return (*rows, *map(_left, weights.others(program)))


def file_layers(model: Path) -> tuple[WeightedLayer, ...]:
    """The layers of a .pt2 or .onnx model that can be pruned. Raises what `sparsify_file` raises of a model."""
    weights = importlib.import_module(f"pconvgen.frontend.{model_format(model)}.weights")
    return tuple(weights.layers(weights.load(model), str(model)))


def prune(layers: Sequence[WeightedLayer], recipe: Recipe, source: str) -> tuple[PrunedLayer, ...]:
    """Prunes the chosen ones of `layers` and tells what became of all.

    Raises
    ------
    UsageError: a glob matches no layer, or there is nothing to prune.
    PconvgenError: a weight is not finite. No layer has been changed then.
    """
    chosen = chosen_layers([(layer.name, layer.op) for layer in layers], recipe.layers, source)
    for layer in layers:
        if layer.weight is not None:
            check_finite(layer.name, "weight", layer.weight, source)
    done: dict[Hashable, PrunedLayer] = {}
    for layer in layers:
        if layer.name in chosen and layer.key not in done:
            done[layer.key] = _prune_layer(layer, recipe)
    return tuple(_row(layer, done) for layer in layers)


def chosen_layers(layers: Sequence[tuple[str, str]], globs: Sequence[str], source: str) -> frozenset[str]:
    """Names of the layers that are to be pruned.

    Parameters
    ----------
    layers: (name, operator) of all layers, in the order of the network.
    globs: of names; without any, all but the first convolution and the last linear layer.
    source: the model, for messages.

    Raises
    ------
    UsageError: a glob matches no layer, or there is nothing to prune.
    """
    names = [name for name, _ in layers]
    if not globs:
        ends = {*[name for name, op in layers if op == "conv2d"][:1], *[n for n, op in layers if op == "linear"][-1:]}
        if not set(names) - ends:
            raise UsageError(
                "there is nothing to prune besides the first convolution and the last linear layer",
                file=source,
                found=", ".join(names) or "no layers",
                remedy="name the layers to prune, e.g. '*'",
            )
        return frozenset(names) - ends
    for glob in globs:
        if not fnmatch.filter(names, glob):
            raise UsageError(
                "no layer has such a name",
                file=source,
                found=glob,
                expected=_few(names),
                remedy="give a glob of layer names, e.g. 'features.*'",
            )
    return frozenset(name for name in names if any(fnmatch.fnmatchcase(name, glob) for glob in globs))


def _few(names: Sequence[str], most: int = 8) -> str:
    return f"one of {', '.join(names[:most])}{', ...' if len(names) > most else ''}"


def _prune_layer(layer: WeightedLayer, recipe: Recipe) -> PrunedLayer:
    weight = layer.weight
    if weight is None:
        return PrunedLayer(layer.name, layer.op, (), DENSE, 1.0, "left as it is: its weight is computed")
    structure, params, note = fitting(layer.op, weight.shape, layer.groups, recipe.structure)
    density = recipe.density
    if reason := STRUCTURES[structure].keeps_all(weight.shape):
        density, note = 1.0, reason
    if recipe.random:
        # From the layer's name, so that a layer's zeros do not depend on which others are pruned.
        rng = np.random.default_rng([recipe.seed, zlib.crc32(layer.name.encode())])
        positions = rng.standard_normal(weight.shape, dtype=np.float32)
        keep = project(structure, positions, density, groups=layer.groups, **params) != 0
        pruned: Weight = np.where(keep, weight, np.float32(0))
    else:
        pruned = project(structure, weight, density, groups=layer.groups, **params)
    if structure != DENSE:
        layer.store(pruned)
    return PrunedLayer(layer.name, layer.op, _shape(layer), structure, density_of(pruned), note)


def fitting(op: str, shape: tuple[int, ...], groups: int, wanted: str) -> tuple[str, dict[str, Any], str]:
    """The structure that is nearest to the wanted one and applies to such a weight, its parameters, and why."""
    params = STRUCTURES[wanted].fit(shape, groups)
    if params is not None:
        return wanted, params, ""
    kind = "depthwise" if shape[1] == 1 and groups > 1 else op if op == "linear" else f"{shape[2]}x{shape[3]}"
    params = STRUCTURES[SimdBlock.name].fit(shape, groups)
    if params is not None:
        return SimdBlock.name, params, f"{wanted} does not apply to {kind}"
    return DENSE, {}, f"left as it is: {wanted} does not apply to {kind}"


def _row(layer: WeightedLayer, done: Mapping[Hashable, PrunedLayer]) -> PrunedLayer:
    """What became of a layer, which may have its weight from another."""
    if layer.key not in done:
        density = 1.0 if layer.weight is None else density_of(layer.weight)
        return PrunedLayer(layer.name, layer.op, _shape(layer), DENSE, density, "not chosen")
    row = done[layer.key]
    if row.name == layer.name:
        return row
    return PrunedLayer(layer.name, layer.op, row.shape, row.structure, row.density, f"shares the weight of {row.name}")


def _left(weight: OtherWeight) -> PrunedLayer:
    """A weight that no kernel reads."""
    note = f"left as it is: nothing skips the zeros of {weight.op}"
    return PrunedLayer(weight.name, weight.op, weight.shape, DENSE, weight.density, note)


def _shape(layer: WeightedLayer) -> tuple[int, ...]:
    if layer.weight is None:
        return ()
    return layer.weight.shape[:2] if layer.op == "linear" else layer.weight.shape
