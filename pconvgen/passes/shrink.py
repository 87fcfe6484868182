"""Removing channels that no output depends on, with everything that computes and reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.passes.channel_spaces import RESHAPES, ChannelSpaces, LinearMap, View, is_depthwise
from pconvgen.tvm_compat.passes import module_pass
from pconvgen.tvm_compat.relax import (
    Expr,
    Module,
    Var,
    constant,
    constant_value,
    is_op,
    op,
    shape_of,
    with_args,
    with_weight,
)
from pconvgen.tvm_compat.rewriting import Emit, eliminate_dead_code, main_bindings, rewrite_main, with_main_attr

ORIGINAL_SHAPES = "pconvgen.original_shapes"
"""Attribute of "main": name of a layer's variable -> shape of its weight before channels were removed,
[filters, input channels / groups, ...], for layers that became smaller."""


@module_pass
class RemoveDeadChannels:
    """Relax pass that makes filter-pruned networks smaller dense ones; results stay equal.

    before: a = conv2d(x, weight[64, 3]); b = relu(add(a, bias[64])); c = conv2d(b, weight[32, 64])
    after:  a = conv2d(x, weight[40, 3]); b = relu(add(a, bias[40])); c = conv2d(b, weight[32, 40])

    A channel goes when every layer that reads it has only zeros for it, or when it is constant (an empty filter behind
    bias and activation) and what it contributes to the reader is a constant too, which the reader's bias takes over.
    Inputs and outputs keep their shapes, layers their variables' names. A module without such channels is returned
    as it is.
    """

    def transform_module(self, module: Module, _context: object) -> Module:
        """A new module, or the same one."""
        if main_bindings(module) is None:
            return module
        spaces = ChannelSpaces(module)
        if all(spaces.kept(view) is None for view in spaces.views.values()):
            return module
        shrunk = eliminate_dead_code(rewrite_main(module, _Shrinker(spaces).rule, typed=False))
        new = _weight_shapes(shrunk)
        originals = {name: list(shape) for name, shape in _weight_shapes(module).items() if new.get(name) != shape}
        return with_main_attr(shrunk, ORIGINAL_SHAPES, originals)


def original_shapes(module: Module) -> dict[str, tuple[int, ...]]:
    """Attribute ORIGINAL_SHAPES of "main"; empty when nothing was removed."""
    attrs = module["main"].attrs
    shapes = attrs[ORIGINAL_SHAPES] if attrs and ORIGINAL_SHAPES in attrs else {}
    return {str(name): tuple(int(size) for size in shape) for name, shape in shapes.items()}


def _weight_shapes(module: Module) -> dict[str, tuple[int, ...]]:
    """Weight shapes of convolutions and products, filters first, by the names of their variables."""
    shapes = {}
    for binding in main_bindings(module) or []:
        if is_op(binding.value, "relax.nn.conv2d", "relax.matmul"):
            shape = shape_of(binding.value.args[1]) or ()
            shapes[binding.var.name] = shape[::-1] if is_op(binding.value, "relax.matmul") else shape
    return shapes


class _Shrinker:
    def __init__(self, spaces: ChannelSpaces) -> None:
        self.spaces = spaces
        self.shifted: dict[Var, tuple[Var, NDArray[np.float32]]] = {}

    def rule(self, var: Var, value: Expr, emit: Emit) -> Expr:
        """The operation on what is left of its operands."""
        layer, view = self.spaces.layers.get(var), self.spaces.views.get(var)
        if layer is not None:
            return self._layer(var, value, layer, emit)
        if view is None:
            return value
        kept = self.spaces.kept(view)
        if kept is not None:
            value = _shrunk(var, value, view, kept)
        value = self._with_shift(value)
        # A variable has the type of its value, so a smaller value needs a new one.
        return value if kept is None else emit(value, var.name)

    def _layer(self, var: Var, value: Expr, layer: LinearMap, emit: Emit) -> Expr:
        rows, columns = self.spaces.kept(layer.result), self.spaces.kept(layer.data)
        if rows is None and columns is None:
            return value
        weight = constant_value(value.args[1])
        output, data = (1, 0) if is_op(value, "relax.matmul") else (0, 1)
        call = with_weight(value, _take(_take(weight, rows, output), columns, data))
        live = self.spaces.live(layer.result)
        shift = layer.constant_part(~self.spaces.live(layer.data))[live].astype(np.float32)
        if not shift.any():
            return call if rows is None else emit(call, var.name)
        shift = shift.reshape((-1,) + (1,) * (len(shape_of(var) or ()) - 1 - layer.result.axis))
        call = emit(call, var.name)
        shifted = op.add(call, constant(shift))
        result = shifted if rows is None else emit(shifted, var.name)
        self.shifted[var if rows is None else result] = call, shift
        return result

    def _with_shift(self, value: Expr) -> Expr:
        """One bias of the two that a layer with a shift would have.

        before: b = add(add(a, shift), bias)
        after:  b = add(a, shift + bias)
        """
        if is_op(value, "relax.add"):
            for data, other in (tuple(value.args), tuple(value.args)[::-1]):
                bias = constant_value(other)
                if data in self.shifted and bias is not None:
                    call, shift = self.shifted[data]
                    return op.add(call, constant(bias + shift))
        return value


def _shrunk(var: Var, value: Expr, view: View, kept: NDArray[np.intp]) -> Expr:
    """An operation inside a space, whose tensor operands are already smaller."""
    if is_depthwise(value):
        return with_weight(value, _take(constant_value(value.args[1]), kept, 0), groups=len(kept))
    if is_op(value, *RESHAPES):
        shape = list(shape_of(var) or ())
        shape[view.axis] = len(kept)
        return op.reshape(value.args[0], tuple(shape))
    args = [_operand(arg, view.axis - len(shape_of(var) or ()), kept) for arg in value.args]
    return with_args(value, args)


def _operand(expr: Expr, axis: int, kept: NDArray[np.intp]) -> Expr:
    """A constant operand without the channels of `axis` (from the end) that go; anything else as it is."""
    array = constant_value(expr)
    if array is None or array.ndim < -axis or array.shape[axis] == 1:
        return expr
    return constant(np.take(array, kept, axis))


def _take(array: Any, indices: NDArray[np.intp] | None, axis: int) -> NDArray[Any]:
    return array if indices is None else np.take(array, indices, axis)
