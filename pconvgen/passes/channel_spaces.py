"""Which channels of a network's tensors the outputs depend on, and which hold a constant.

Tensors that must have the same channels form one *space*: what an elementwise operator, a pool or a depthwise
convolution joins, as a residual stream does. A space lies between the layers (convolutions and matrix products) that
write it and those that read it. One that reaches a parameter, a result or an operator that is not known here is
*frozen*: all its channels stay.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.passes.channel_values import BINARY, Values, by_channel, is_pool, is_unary, mapped, pooled
from pconvgen.tvm_compat.relax import Expr, Module, Var, constant_value, is_dataflow_var, is_op, shape_of, variables_of
from pconvgen.tvm_compat.rewriting import main_bindings, main_results

RESHAPES = ("relax.reshape", "relax.flatten", "relax.squeeze", "relax.expand_dims", "relax.nn.batch_flatten")


@dataclass(frozen=True)
class View:
    """Where a tensor has the channels of a space: channel c is [c * block, (c + 1) * block) of `axis`.

    A block is longer than 1 behind a flattening of pixels into the channel axis.
    """

    space: int
    axis: int
    block: int = 1


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A convolution with groups=1 or a matrix product, between two spaces.

    Attributes
    ----------
    data, result: what it reads and writes.
    kernels: its weight as [filters, channels of data, weights of this kernel].
    values: constants among its input channels.
    padded: whether it also reads zeros beside its data.
    """

    data: View
    result: View
    kernels: NDArray[Any]
    values: Values
    padded: bool

    @cached_property
    def needs(self) -> NDArray[np.bool_]:
        """[filters, channels], whether a filter's result is not known without the channel."""
        nonzero: NDArray[np.bool_] = (self.kernels != 0).any(axis=2)
        return nonzero & ~self.absorbable

    @cached_property
    def absorbable(self) -> NDArray[np.bool_]:
        """Channels that only add a constant to each filter's result."""
        # Padding breaks up a constant that is not zero: the border sees less of it than the middle.
        return (self.values == 0) | (~np.isnan(self.values) & (not self.padded))

    def constant_part(self, channels: NDArray[np.bool_]) -> Values:
        """What those of `channels` that are absorbable add to each filter's result."""
        chosen = np.flatnonzero(channels & self.absorbable & (self.values != 0))
        return self.kernels[:, chosen].sum(axis=2, dtype=np.float64) @ self.values[chosen]


@dataclass
class _Spaces:
    """A disjoint-set forest of spaces."""

    parent: list[int] = field(default_factory=list)
    channels: list[int] = field(default_factory=list)
    frozen: set[int] = field(default_factory=set)

    def new(self, channels: int) -> int:
        self.parent.append(len(self.parent))
        self.channels.append(channels)
        return self.parent[-1]

    def find(self, space: int) -> int:
        while self.parent[space] != space:
            space = self.parent[space]
        return space

    def join(self, a: int, b: int) -> int:
        root, other = self.find(a), self.find(b)
        self.parent[other] = root
        if other in self.frozen:
            self.frozen.add(root)
        return root


Joined = tuple[View, Values]


class ChannelSpaces:
    """The spaces of "main".

    Attributes
    ----------
    views: variable -> its view; absent where channels are not followed.
    layers: variable -> its layer.
    """

    def __init__(self, module: Module) -> None:
        self.views: dict[Var, View] = {}
        self.layers: dict[Var, LinearMap] = {}
        self._values: dict[Var, Values] = {}
        self._spaces = _Spaces()
        with np.errstate(all="ignore"):
            for binding in main_bindings(module) or []:
                self._visit(binding.var, binding.value)
        for result in main_results(module):
            self._freeze(result)
        self._live = self._liveness()

    def live(self, view: View) -> NDArray[np.bool_]:
        """The channels of a view's space that have to stay, at least one."""
        return self._live[self._spaces.find(view.space)]

    def kept(self, view: View) -> NDArray[np.intp] | None:
        """The indices along a view's axis that have to stay; None when these are all."""
        live = self.live(view)
        if live.all():
            return None
        return (np.flatnonzero(live)[:, None] * view.block + np.arange(view.block)).reshape(-1)

    def _liveness(self) -> dict[int, NDArray[np.bool_]]:
        """Least fixpoint: a channel lives when a live filter needs it, so a cycle of channels cannot feed itself."""
        spaces, find = self._spaces, self._spaces.find
        frozen = {find(space) for space in spaces.frozen}
        roots = [space for space, parent in enumerate(spaces.parent) if space == parent]
        live = {root: np.full(spaces.channels[root], root in frozen) for root in roots}
        while True:
            before = sum(int(channels.sum()) for channels in live.values())
            for layer in reversed(self.layers.values()):
                rows = layer.needs[live[find(layer.result.space)]]
                live[find(layer.data.space)] |= rows.any(axis=0)
            if before == sum(int(channels.sum()) for channels in live.values()):
                empty = [root for root in roots if not live[root].any()]
                if not empty:
                    return live
                # No operator takes a tensor without channels. The last one first: others may be what it needs.
                live[empty[-1]][self._cheapest(empty[-1])] = True

    def _cheapest(self, root: int) -> int:
        """The channel of a space whose filters need the fewest channels."""
        writers = [layer for layer in self.layers.values() if self._spaces.find(layer.result.space) == root]
        return int(np.argmin(sum(layer.needs.sum(axis=1) for layer in writers)))

    def _visit(self, var: Var, value: Expr) -> None:
        rules = (self._layer, self._depthwise, self._unary, self._binary, self._pool, self._reshape)
        joined = next((found for found in (rule(var, value) for rule in rules) if found is not None), None)
        if joined is None:
            for used in variables_of(value):
                self._freeze(used)
            return
        self.views[var], values = joined
        self._values[var] = np.where(np.isfinite(values), values, np.nan)
        if not is_dataflow_var(var):
            self._freeze(var)

    def _freeze(self, var: Var) -> None:
        if var in self.views:
            self._spaces.frozen.add(self._spaces.find(self.views[var].space))

    def _channels(self, view: View) -> int:
        return self._spaces.channels[self._spaces.find(view.space)]

    def _read(self, data: Expr, axis: int) -> Joined:
        """The view of what a layer reads; a new frozen one when its channels are not followed along `axis`."""
        view = self.views.get(data)
        if view is not None and view.axis == axis:
            return view, self._values[data]
        self._freeze(data)
        channels = (shape_of(data) or ())[axis]
        view = View(self._spaces.new(channels), axis)
        self._spaces.frozen.add(view.space)
        return view, np.full(channels, np.nan)

    def _layer(self, var: Var, value: Expr) -> Joined | None:
        convolution = _is_conv2d(value) and int(value.attrs.groups) == 1
        if not convolution and not is_op(value, "relax.matmul"):
            return None
        weight, shape = constant_value(value.args[1]), shape_of(value.args[0])
        if weight is None or shape is None or (not convolution and weight.ndim != 2):
            return None
        axis = 1 if convolution else len(shape) - 1
        data, values = self._read(value.args[0], axis)
        filters = weight.shape[0 if convolution else 1]
        by_filter = weight if convolution else weight.T
        kernels = by_filter.reshape(filters, self._channels(data), -1)
        padded = convolution and any(int(size) for size in value.attrs.padding)
        result = View(self._spaces.new(filters), axis)
        layer = self.layers[var] = LinearMap(data, result, kernels, values, padded)
        alone = ~(layer.needs.any(axis=1))
        return result, np.where(alone, layer.constant_part(np.ones(len(values), bool)), np.nan)

    def _depthwise(self, _var: Var, value: Expr) -> Joined | None:
        if not is_depthwise(value) or value.args[0] not in self.views:
            return None
        view, values = self.views[value.args[0]], self._values[value.args[0]]
        weight = constant_value(value.args[1])
        if weight is None or view.axis != 1 or view.block != 1:
            return None
        padded = any(int(size) for size in value.attrs.padding)
        zero = (values == 0) | ~weight.any(axis=(1, 2, 3))
        passed = np.nan if padded else values * weight.sum(axis=(1, 2, 3), dtype=np.float64)
        return view, np.where(zero, 0, passed)

    def _unary(self, _var: Var, value: Expr) -> Joined | None:
        if not is_unary(value) or value.args[0] not in self.views:
            return None
        return self.views[value.args[0]], mapped(value, self._values[value.args[0]])

    def _binary(self, _var: Var, value: Expr) -> Joined | None:
        """Joins two tensors, one perhaps with a single pixel; a constant goes along, by channel or not."""
        shape = shape_of(value)
        if shape is None or not is_op(value, *BINARY):
            return None
        views = [
            View(view.space, view.axis + len(shape) - len(shape_of(arg) or ()), view.block)
            for arg in value.args
            if (view := self.views.get(arg)) is not None
        ]
        if not views or any((view.axis, view.block) != (views[0].axis, views[0].block) for view in views):
            return None
        view, size = views[0], self._channels(views[0]) * views[0].block
        if shape[view.axis] != size or any(self._channels(other) * other.block != size for other in views):
            return None
        values = []
        for arg in value.args:
            constant = constant_value(arg)
            if constant is not None:
                values.append(by_channel(constant, len(shape), view.axis, self._channels(view)))
            elif arg in self.views:
                values.append(self._values[arg])
            else:
                return None
        for other in views[1:]:
            self._spaces.join(view.space, other.space)
        return view, BINARY[value.op.name](*values)

    def _pool(self, _var: Var, value: Expr) -> Joined | None:
        view = self.views.get(value.args[0]) if is_pool(value) else None
        if view is None or view.axis != 1:
            return None
        return view, pooled(value, self._values[value.args[0]])

    def _reshape(self, _var: Var, value: Expr) -> Joined | None:
        """Pixels that are flattened into the channel axis, or reshaped behind it."""
        view = self.views.get(value.args[0]) if is_op(value, *RESHAPES) else None
        if view is None:
            return None
        axis, old, new = view.axis, shape_of(value.args[0]) or (), shape_of(value) or ()
        if old[:axis] != new[:axis] or len(new) <= axis:
            return None
        values = self._values[value.args[0]]
        if new[axis] == old[axis]:
            return view, values
        pixels = int(np.prod(old[axis + 1 :]))
        return (View(view.space, axis, view.block * pixels), values) if new[axis:] == (old[axis] * pixels,) else None


def is_depthwise(value: Expr) -> bool:
    """Whether `value` is a convolution with one filter for each of several channels."""
    if not _is_conv2d(value) or int(value.attrs.groups) == 1:
        return False
    return (shape_of(value.args[1]) or ())[:2] == (int(value.attrs.groups), 1)


def _is_conv2d(value: Expr) -> bool:
    layouts = ("NCHW", "OIHW")
    return is_op(value, "relax.nn.conv2d") and (value.attrs.data_layout, value.attrs.kernel_layout) == layouts
