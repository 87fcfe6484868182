"""The weights of PyTorch models, to be changed in place: modules and .pt2 files."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import parametrize

from pconvgen.errors import PconvgenError
from pconvgen.files import replacing
from pconvgen.frontend.spec import check_dtype
from pconvgen.frontend.torch.calls import arguments
from pconvgen.frontend.torch.export import load_file as load
from pconvgen.frontend.torch.sparse import is_sparse
from pconvgen.frontend.weights import OtherWeight, WeightedLayer, as_kernels
from pconvgen.sparsity.structure import swap_channels

__all__ = ["Use", "from_kernels", "layers", "load", "module_layers", "others", "save", "to_kernels", "uses"]

# Operator -> name of the argument that is the weight, and whether that is stored as [channels, filters].
_OPERATORS = {
    "conv2d.default": ("weight", False),
    "conv2d.padding": ("weight", False),
    "convolution.default": ("weight", False),
    "conv_transpose2d.input": ("weight", False),
    "linear.default": ("weight", False),
    "addmm.default": ("mat2", True),
    "mm.default": ("mat2", True),
}
_TRANSPOSES = ("t.default", "permute.default", "transpose.int")


def module_layers(module: nn.Module) -> list[WeightedLayer]:
    """The nn.Conv2d, nn.ConvTranspose2d and nn.Linear layers of a module, in its order.

    Raises PconvgenError when a weight is not float32 or comes from a parametrisation, which would undo every change.
    """
    source = type(module).__name__
    found = []
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        if not isinstance(layer._parameters.get("weight"), nn.Parameter):
            raise PconvgenError(
                "the weight is computed by a parametrisation",
                file=source,
                layer=name,
                found="parametrize" if parametrize.is_parametrized(layer) else "torch.nn.utils.prune",
                remedy="make it permanent: prune.remove(layer, 'weight'), or parametrize.remove_parametrizations",
            )
        convolution = isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        groups = layer.groups if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) else 1
        backwards = isinstance(layer, nn.ConvTranspose2d)
        op = ("conv2d_transpose" if backwards else "conv2d") if convolution else "linear"
        found.append(_layer(name, op, groups, layer.weight, False, source))
    return found


@dataclass(frozen=True)
class Use:
    """Where a program applies a weight.

    Attributes
    ----------
    name: of the layer, as `explain` names it.
    op: conv2d, conv2d_transpose or linear.
    groups: of the convolution.
    target: of the weight in the program's state; None when the program computes it.
    flipped: whether a linear weight lies there as [channels, filters].
    pixels: outputs of a filter; inputs of a channel where the convolution is transposed.
    """

    name: str
    op: str
    groups: int
    target: str | None
    flipped: bool
    pixels: int


def layers(program: torch.export.ExportedProgram, source: str) -> list[WeightedLayer]:
    """The two-dimensional convolutions, also transposed ones, and linear layers of an ExportedProgram, in its order.

    Raises PconvgenError when a weight is not float32.
    """
    found = []
    for use in uses(program):
        if use.target is None:
            found.append(WeightedLayer(use.name, use.op, use.groups, None, _refuse, use.name))
        else:
            tensor = program.state_dict.get(use.target, program.constants.get(use.target))
            found.append(_layer(use.name, use.op, use.groups, tensor, use.flipped, source))
    return found


def others(program: torch.export.ExportedProgram) -> list[OtherWeight]:
    """The parameters of matrices and kernels that are of no layer in `layers`, in the program's order."""
    known = {use.target for use in uses(program)}
    parameters = program.graph_signature.inputs_to_parameters
    found = []
    for node in program.graph.nodes:
        target = parameters.get(node.name)
        tensor = None if target is None or target in known else program.state_dict[target]
        if tensor is None or tensor.dim() < 2 or not node.users:
            continue
        op = next(iter(node.users)).target.__name__.partition(".")[0]
        density = torch.count_nonzero(tensor).item() / max(tensor.numel(), 1)
        found.append(OtherWeight(target.rpartition(".")[0] or target, op, tuple(tensor.shape), density))
    return found


def uses(program: torch.export.ExportedProgram) -> list[Use]:
    """Every application of a two-dimensional convolution, also a transposed one, or linear layer, in program order."""
    signature = program.graph_signature
    targets = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    found: list[Use] = []
    for node in program.graph.nodes:
        operator = getattr(node.target, "__name__", "")
        if node.op != "call_function" or operator not in _OPERATORS:
            continue
        given = arguments(node)
        argument, transposed = _OPERATORS[operator]
        weight, flipped = _through_transposes(given[argument])
        convolution = "conv" in operator
        if weight.meta["val"].dim() != (4 if convolution else 2):
            continue
        backwards = given.get("transposed") or "transpose" in operator
        op = ("conv2d_transpose" if backwards else "conv2d") if convolution else "linear"
        groups = int(given.get("groups", 1))
        target = targets.get(weight.name)
        shape = node.args[0].meta["val"].shape if backwards else node.meta["val"].shape
        pixels = math.prod(shape) // shape[1 if convolution else -1]
        if target is not None:
            name = target.rpartition(".")[0] or target
            found.append(Use(name, op, groups, target, transposed != flipped, pixels))
        elif convolution or operator == "linear.default":
            # A product of two activations is no layer, so addmm and mm without a parameter are left out.
            found.append(Use(node.name, op, groups, None, False, pixels))
    return found


def save(program: torch.export.ExportedProgram, path: Path) -> None:
    """Writes an ExportedProgram, whole or not at all. Raises PconvgenError when the path cannot be written."""
    # torch names the folder inside the archive after the file, and this file's name is temporary.
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def _through_transposes(node: torch.fx.Node) -> tuple[Any, bool]:
    """The node behind transpositions of a matrix, and whether there is an odd number of them."""
    flipped = False
    while node.op == "call_function" and node.target.__name__ in _TRANSPOSES and node.meta["val"].dim() == 2:
        flipped = not flipped
        node = node.args[0]
    return node, flipped


def _layer(name: str, op: str, groups: int, tensor: torch.Tensor, flipped: bool, source: str) -> WeightedLayer:
    if is_sparse(tensor):
        raise PconvgenError(
            "the weight is kept in a format for sparse tensors, whose zeros cannot be chosen anew",
            file=source,
            layer=name,
            found=str(tensor.layout).removeprefix("torch."),
            expected="a dense tensor",
            remedy="make it dense: layer.weight = nn.Parameter(layer.weight.to_dense())",
        )
    check_dtype("weight", f"{name}.weight", str(tensor.dtype).removeprefix("torch."), source)

    def store(weight: NDArray[np.float32]) -> None:
        with torch.no_grad():
            tensor.copy_(from_kernels(weight, op, groups, flipped))

    return WeightedLayer(name, op, groups, to_kernels(tensor, op, groups, flipped), store, id(tensor))


def to_kernels(tensor: torch.Tensor, op: str, groups: int, flipped: bool) -> NDArray[np.float32]:
    """A weight as [filters, channels / groups, height, width], a view where that is possible; see `Use`."""
    weight = tensor.detach().cpu().numpy()
    if op == "conv2d_transpose":
        return swap_channels(weight, groups)
    return as_kernels(weight.T if flipped else weight)


def from_kernels(weight: NDArray[Any], op: str, groups: int, flipped: bool) -> torch.Tensor:
    """The inverse of `to_kernels`, for weights and masks."""
    values = torch.from_numpy(np.ascontiguousarray(swap_channels(weight, groups) if "transpose" in op else weight))
    if op != "linear":
        return values
    return values.flatten(1).T if flipped else values.flatten(1)


def _refuse(weight: NDArray[np.float32]) -> None:
    raise AssertionError("a weight that is computed cannot be stored")
