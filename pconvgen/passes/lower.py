"""Lowering: layers and pooling become calls of generated kernels, with activations in the layouts they like best.

before: lv1 = conv2d(x, weight); lv2 = add(lv1, bias); lv3 = relu(lv2); lv4 = conv2d(lv3, weight2)
after:  packed = call_tir(pack, (x,))
        buffer = call_tir(pixels, (packed, offsets, values, indptr, order, chunks, bias))
        buffer2 = call_tir(pixels2, (buffer, offsets2, ...))

A tensor that shares a buffer with others is written in place:

before: a = conv2d(x, w); b = conv2d(y, v); c = concat(a, b)
after:  buffer = call_tir(pixels, (x, ...)); buffer1 = call_tir_inplace(pixels2, (y, ..., buffer))

The module's operators are float32. In half precision buffers are float16; packing and unpacking convert, so that what
stays for TVM, and the inputs and outputs of "main", are float32 as before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pconvgen.matching.fused_ops import find_fused_ops
from pconvgen.passes.shrink import original_shapes
from pconvgen.passes.transposed import transposed_layers
from pconvgen.planning.choose import Layer, Planner, layer_of, plan_layer
from pconvgen.planning.convolution import Convolution
from pconvgen.planning.fallback import fallback_layers
from pconvgen.planning.half import in_precision
from pconvgen.planning.network import Network
from pconvgen.planning.operations import Operation
from pconvgen.planning.plans import NetworkPlans
from pconvgen.planning.tensors import Buffer, Home
from pconvgen.templates.layout.store import tensor_shape
from pconvgen.templates.movement.pack import PackKernel
from pconvgen.tvm_compat.calls import Kernel, KernelCalls
from pconvgen.tvm_compat.passes import module_pass
from pconvgen.tvm_compat.relax import Expr, Module, Var, constant, constant_value, op, shape_of, variables_of
from pconvgen.tvm_compat.rewriting import (
    Emit,
    eliminate_dead_code,
    layer_names,
    main_bindings,
    rewrite_main,
    substitute,
)
from pconvgen.values.decision import Decision
from pconvgen.values.dtype import DType
from pconvgen.values.planes import PlaneLayout, plain_layout
from pconvgen.values.precision import FLOAT32, Precision
from pconvgen.values.target import Target
from pconvgen.watch import phase, step

DECISIONS = "pconvgen.decisions"
"""Module attribute: JSON list of the decisions, one for every convolution and linear layer in program order."""


@module_pass
class LowerLayers:
    """Relax pass that replaces layers with constant weights, and pooling, in "main" by generated kernels.

    Layers without a kernel stay for TVM's own legalisation. The decisions are left in the module's attribute DECISIONS.

    Parameters
    ----------
    target: what code is generated for.
    dense: ignore the zeros in the weights, to compare with.
    precision: in which formats kernels store tensors and compute.
    planner: what chooses encodings and schedules once layouts are known.
    exact_nan: leave out what spreads NaN and infinities to outputs whose windows do not hold them.
    """

    def __init__(
        self,
        target: Target,
        dense: bool = False,
        precision: Precision = FLOAT32,
        planner: Planner = plan_layer,
        *,
        exact_nan: bool = False,
    ) -> None:
        self.target, self.dense, self.precision, self.planner = target, dense, precision, planner
        self.exact_nan = exact_nan

    def transform_module(self, module: Module, _context: object) -> Module:
        """A new module whose kernels are TIR functions."""
        lowering = _Lowering(self._network(module), self.planner)
        with phase("kernels"):
            lowered = eliminate_dead_code(lowering.kernels.add_to(rewrite_main(module, lowering.rule, typed=False)))
        decisions = self._ordered(module, lowering.decisions)
        return lowered.with_attr(DECISIONS, json.dumps([decision.to_json() for decision in decisions]))

    def decide(self, module: Module) -> tuple[Decision, ...]:
        """What `transform_module` decides, without making kernels."""
        planning = NetworkPlans(self._network(module), self.planner)
        with phase("kernels"):
            for binding in main_bindings(module) or []:
                planning.decide(binding.var)
        return self._ordered(module, planning.decisions)

    def _network(self, module: Module) -> Network:
        with phase("structures"):
            layers = self._layers(module)
        with phase("layouts"):
            return Network(module, layers, self.target, self.precision)

    def _ordered(self, module: Module, decisions: Mapping[Var, Decision]) -> tuple[Decision, ...]:
        """Decisions of all layers in program order, of those without a kernel as well."""
        transposed, decided = transposed_layers(module), {}
        for var, decision in decisions.items():
            layer = transposed.get(var.name)
            decided[var] = decision if layer is None else layer.described(decision, dense=self.dense)
        decided.update(fallback_layers(module, decided, layer_names(module)))
        return tuple(decided[binding.var] for binding in main_bindings(module) or [] if binding.var in decided)

    def _layers(self, module: Module) -> list[Layer]:
        names, originals, transposed = layer_names(module), original_shapes(module), transposed_layers(module)
        layers = []
        for fused_op in (in_precision(fused_op, self.precision) for fused_op in find_fused_ops(module)):
            rewritten = transposed.get(fused_op.var.name)
            present = None if rewritten is None else rewritten.mask(fused_op.weight, fused_op.workload.groups)
            original = originals.get(fused_op.var.name)
            name = names.get(fused_op.var.name, fused_op.var.name)
            step(name)
            layer = layer_of(fused_op, name, dense=self.dense, original=original, present=present)
            layers.append(layer.exact(rewritten=present is not None) if self.exact_nan else layer)
        return layers


def decisions_of(module: Module) -> tuple[Decision, ...]:
    """The decisions that LowerLayers left in a module."""
    return tuple(Decision.from_json(row) for row in json.loads(module.attrs[DECISIONS]))


class _Lowering(NetworkPlans):
    """Builds the calls. It is what operations ask for tensors."""

    def __init__(self, network: Network, planner: Planner) -> None:
        super().__init__(network, planner)
        self.kernels = KernelCalls()
        self.buffers: dict[Buffer, Var] = {}
        self.activations = network.precision.activations
        self.packed: dict[tuple[Expr, PlaneLayout, str], Expr] = {}
        self.plain: dict[tuple[Expr, str], Expr] = {}
        self.emit: Emit = lambda *_: None

    def rule(self, var: Var, value: Expr, emit: Emit) -> Expr:
        """What takes the place of a binding; None where nothing does."""
        self.emit = emit
        network = self.network
        if var in network.absorbed:
            return None
        if var in network.products:
            return self._product(network.products[var])
        operation = network.operations.get(var)
        if operation is not None:
            made = self._operation(operation)
        elif network.tensors.is_view(var):
            made = None
            for source, key in network.tensors.copied.get(var, ()):
                self._copy(source, network.tensors[key])
        else:
            return self._fallback(value)
        if made is None and var in network.users.results:
            return self.nchw(var)
        return made

    def _operation(self, operation: Operation) -> Expr:
        if not isinstance(operation, Convolution):
            source = self.source(operation)
            assert source is not None
            return operation.emit(source, self)
        plan, source = self.plan_convolution(operation)
        operation.emit(plan, source, self)
        return None

    def _product(self, layer: Layer) -> Expr:
        fused_op, workload = layer.fused_op, layer.fused_op.workload
        (instance,) = self.plan_product(layer).instances
        shape = (workload.batch, workload.out_channels)
        args = [self._view(fused_op.data, (workload.batch, workload.in_channels)), *map(constant, instance.constants)]
        args += [] if fused_op.bias is None else [constant(fused_op.bias)]
        args += [] if fused_op.residual is None else [self._view(fused_op.residual, shape)]
        call = self.kernels.call(instance.kernel, args, shape)
        return call if shape == fused_op.out_shape else op.reshape(self.emit(call), fused_op.out_shape)

    def _view(self, data: Expr, shape: tuple[int, ...]) -> Expr:
        data = self.nchw(data)
        return data if shape_of(data) == shape else self.emit(op.reshape(data, shape))

    def _fallback(self, value: Expr) -> Expr:
        tensors = self.network.tensors
        return substitute(value, {var: self.nchw(var) for var in variables_of(value) if var in tensors})

    def number(self, expr: Expr, shape: tuple[int, ...]) -> Expr:
        """A small tensor of other operators in another shape."""
        value = constant_value(expr)
        return self._view(expr, shape) if value is None else constant(value.reshape(shape))

    def read(self, home: Home | None, data: Expr, packed: PlaneLayout | None, dtype: str) -> Expr:
        """A tensor as a kernel reads it: its buffer, or what is packed from NCHW."""
        if home is not None and packed in (None, self.layout(home)):
            return self.buffers[home.buffer]
        if packed is None or packed.plain:
            return self._plain(data, dtype)
        key = (data, packed, dtype)
        if key not in self.packed:
            self.packed[key] = self._packed(data, packed, "packed", dtype)
        return self.packed[key]

    def _packed(self, data: Expr, target: PlaneLayout, name: str, dtype: str) -> Expr:
        """A tensor in a layout and a format of its own; one call for each run of channels that lie together."""
        tensors = self.network.tensors
        if data in tensors:
            home = tensors[data]
            formats: tuple[str, str] = (self.activations, dtype)
            buffer, source, slots = self.buffers[home.buffer], self.layout(home), home.slots
        else:
            _, *size = shape_of(data) or ()
            buffer, source, slots = data, plain_layout(*size), np.arange(size[0])
            formats = (DType.FLOAT32, dtype)
        batch, made = (shape_of(data) or ())[0], None
        shape = tensor_shape(target, batch)
        for begin, end in _runs(slots):
            first = (int(slots[begin]), begin)
            kernel = PackKernel(batch, source, target, end - begin, first, self.network.lanes, formats)
            if made is None:
                call = self.kernels.call(kernel, [buffer], shape, dtype)
            else:
                call = self.kernels.call_inplace(kernel, [buffer, made], shape, dtype)
            made = self.emit(call, name)
        return made

    def write(self, home: Home, kernel: Kernel, args: list[Expr]) -> None:
        """Calls a kernel that writes a tensor to its home: the first one makes the buffer, others write in place."""
        layout, buffer = self.layout(home), home.buffer
        shape = tensor_shape(layout, buffer.batch)
        if buffer in self.buffers:
            call = self.kernels.call_inplace(kernel, [*args, self.buffers[buffer]], shape, self.activations)
        else:
            call = self.kernels.call(kernel, args, shape, self.activations)
        self.buffers[buffer] = self.emit(call, "buffer")

    def result(self, kernel: Kernel, args: list[Expr], shape: tuple[int, ...]) -> Expr:
        """Calls a kernel that makes a float32 tensor of its own."""
        return self.emit(self.kernels.call(kernel, args, shape))

    def nchw(self, data: Expr) -> Expr:
        """A tensor as other operators read it."""
        return self._plain(data, "float32")

    def _plain(self, data: Expr, dtype: str) -> Expr:
        """A tensor as NCHW in a format."""
        tensors = self.network.tensors
        if data not in tensors:
            return self._converted(data, "float32", dtype)
        home = tensors[data]
        layout = self.layout(home)
        if layout.plain and len(home.slots) == layout.channels and home.first == 0:
            return self._converted(self.buffers[home.buffer], self.activations, dtype)
        if (data, dtype) not in self.plain:
            target = plain_layout(len(home.slots), home.buffer.height, home.buffer.width)
            self.plain[data, dtype] = self._packed(data, target, "plain", dtype)
        return self.plain[data, dtype]

    def _converted(self, tensor: Expr, before: str, after: str) -> Expr:
        if before == after:
            return tensor
        if (tensor, after) not in self.plain:
            self.plain[tensor, after] = self.emit(op.astype(tensor, after))
        return self.plain[tensor, after]

    def _copy(self, source: Expr, home: Home) -> None:
        """Copies a tensor of another operator to its place."""
        n, c, h, w = shape_of(source) or ()
        places, formats = (0, home.first or 0), ("float32", self.activations)
        layout = plain_layout(c, h, w)
        self.write(home, PackKernel(n, layout, self.layout(home), c, places, self.network.lanes, formats), [source])


def _runs(slots: NDArray[np.int64]) -> list[tuple[int, int]]:
    """[begin, end) of the runs of places that follow one by one."""
    cuts = [0, *(np.flatnonzero(np.diff(slots) != 1) + 1).tolist(), len(slots)]
    return list(pairwise(cuts))
