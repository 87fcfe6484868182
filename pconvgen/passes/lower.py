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
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from pconvgen.passes.choose import Layer, LayerPlan, Planner, layer_of, plan_layer
from pconvgen.passes.foreign import foreign_layers
from pconvgen.passes.half import in_precision
from pconvgen.passes.layout import Chosen, choose_layouts
from pconvgen.passes.norms import find_norms
from pconvgen.passes.operations import Convolution, Elementwise, Normalisation, Operation, Pooling
from pconvgen.passes.pointwise import find_pointwise
from pconvgen.passes.pools import pool_of
from pconvgen.passes.shrink import original_shapes
from pconvgen.passes.sites import find_sites
from pconvgen.passes.tensors import Buffer, Home, Tensors
from pconvgen.passes.transposed import transposed_layers
from pconvgen.passes.users import Users
from pconvgen.schedules import isa_for
from pconvgen.targets.target import Target
from pconvgen.templates.pack import PackKernel
from pconvgen.templates.planes import Places, PlaneLayout, plain_layout
from pconvgen.templates.store import tensor_shape
from pconvgen.tvm_compat.calls import KernelCalls
from pconvgen.tvm_compat.passes import module_pass
from pconvgen.tvm_compat.relax import constant, constant_value, op, shape_of, variables_of
from pconvgen.tvm_compat.rewriting import (
    Emit,
    eliminate_dead_code,
    layer_names,
    main_bindings,
    rewrite_main,
    substitute,
)
from pconvgen.values.decision import Decision
from pconvgen.values.precision import FLOAT32, Precision
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

    def transform_module(self, module: Any, _context: Any) -> Any:
        """A new module whose kernels are TIR functions."""
        lowering = _Lowering(self._network(module), self.planner)
        with phase("kernels"):
            lowered = eliminate_dead_code(lowering.kernels.add_to(rewrite_main(module, lowering.rule, typed=False)))
        decisions = self._ordered(module, lowering.decisions)
        return lowered.with_attr(DECISIONS, json.dumps([decision.to_json() for decision in decisions]))

    def decide(self, module: Any) -> tuple[Decision, ...]:
        """What `transform_module` decides, without making kernels."""
        planning = _Planning(self._network(module), self.planner)
        with phase("kernels"):
            for binding in main_bindings(module) or []:
                planning.decide(binding.var)
        return self._ordered(module, planning.decisions)

    def _network(self, module: Any) -> _Network:
        with phase("structures"):
            layers = self._layers(module)
        with phase("layouts"):
            return _Network(module, layers, self.target, self.precision)

    def _ordered(self, module: Any, decisions: Mapping[Any, Decision]) -> tuple[Decision, ...]:
        """Decisions of all layers in program order, of those without a kernel as well."""
        transposed, decided = transposed_layers(module), {}
        for var, decision in decisions.items():
            layer = transposed.get(var.name)
            decided[var] = decision if layer is None else layer.described(decision, dense=self.dense)
        decided.update(foreign_layers(module, decided, layer_names(module)))
        return tuple(decided[binding.var] for binding in main_bindings(module) or [] if binding.var in decided)

    def _layers(self, module: Any) -> list[Layer]:
        names, originals, transposed = layer_names(module), original_shapes(module), transposed_layers(module)
        layers = []
        for site in (in_precision(site, self.precision) for site in find_sites(module)):
            rewritten = transposed.get(site.var.name)
            present = None if rewritten is None else rewritten.mask(site.weight, site.workload.groups)
            original = originals.get(site.var.name)
            name = names.get(site.var.name, site.var.name)
            step(name)
            layer = layer_of(site, name, dense=self.dense, original=original, present=present)
            layers.append(layer.exact(rewritten=present is not None) if self.exact_nan else layer)
        return layers


def decisions_of(module: Any) -> tuple[Decision, ...]:
    """The decisions that LowerLayers left in a module."""
    return tuple(Decision.from_json(row) for row in json.loads(module.attrs[DECISIONS]))


class _Network:
    """What generated kernels compute in a module, and where its tensors live.

    Attributes
    ----------
    products: layers that are products of matrices, by the variable of their result.
    operations: everything else, by the same.
    absorbed: variables that vanish in a layer.
    tensors: homes of the tensors.
    chosen: their layouts.
    lanes: of a vector where tensors are only moved.
    """

    def __init__(self, module: Any, layers: Sequence[Layer], target: Target, precision: Precision) -> None:
        self.target, self.precision = target, precision
        self.lanes = isa_for(target.isa, precision.arithmetic).widths[0].lanes
        self.users = Users(module)
        self.products = {layer.site.result: layer for layer in layers if layer.is_product}
        convolutions = {layer.site.result: layer for layer in layers if not layer.is_product}
        self.absorbed = {var for layer in layers for var in layer.site.absorbed}
        pools = {binding.var: pool for binding in self.users.bindings if (pool := pool_of(binding.value)) is not None}
        claimed = {layer.site.result for layer in layers} | self.absorbed | set(pools)
        norms = {norm.result: norm for norm in find_norms(self.users, claimed)}
        chains = {chain.result: chain for chain in find_pointwise(self.users, claimed)}
        self.absorbed |= {var for norm in norms.values() for var in norm.absorbed}
        self.absorbed |= {var for chain in chains.values() for var in chain.absorbed}
        made = {*convolutions, *norms, *chains, *(var for var, pool in pools.items() if not pool.whole)}
        self.tensors = Tensors(self.users, made)
        self.operations: dict[Any, Operation] = {}
        for binding in self.users.bindings:
            var = binding.var
            if var in convolutions:
                site = convolutions[var].site
                formats = site.workload.precision
                data = self._home(site.data) if formats.activations == formats.arithmetic else None
                reads = (data,) if site.residual is None else (data, self._home(site.residual, contiguous=True))
                self.operations[var] = Convolution(convolutions[var], target, reads, self.tensors[var])
            elif var in norms:
                reads = (self._home(norms[var].data, contiguous=True),)
                self.operations[var] = Normalisation(norms[var], target, reads, self.tensors[var], precision)
            elif var in chains:
                chain = chains[var]
                added = () if chain.other is None else (self._home(chain.other, contiguous=True),)
                reads = (self._home(chain.data, contiguous=True), *added)
                self.operations[var] = Elementwise(chain, target, reads, self.tensors[var], precision)
            elif var in pools:
                reads = (self._home(pools[var].data, contiguous=True),)
                writes = None if pools[var].whole else self.tensors[var]
                self.operations[var] = Pooling(pools[var], var, target, reads, writes, precision)
        self.chosen = self._layouts()

    def _home(self, data: Any, *, contiguous: bool = False) -> Home | None:
        home = self.tensors.get(data)
        return None if home is None or (contiguous and home.first is None) else home

    def _layouts(self) -> Chosen:
        foreign = {self.tensors[var].buffer for var in self._read_by_others()}
        return choose_layouts(list(self.operations.values()), foreign, self.lanes)

    def _read_by_others(self) -> list[Any]:
        """Tensors with a home that something else than a generated kernel reads, as NCHW."""
        found = [result for result in self.users.results if result in self.tensors]
        for binding in self.users.bindings:
            var = binding.var
            if var in self.absorbed or self.tensors.is_view(var):
                continue
            operation = self.operations.get(var)
            for read in variables_of(binding.value):
                if read in self.tensors and (operation is None or None in operation.reads):
                    found.append(read)
        return found


class _Planning:
    """Plans layers, in layouts that were chosen."""

    def __init__(self, network: _Network, planner: Planner) -> None:
        self.network = network
        self.planner = planner
        self.decisions: dict[Any, Decision] = {}
        self.order = {var: number for number, var in enumerate(network.operations)}

    def decide(self, var: Any) -> None:
        """Plans the layer whose result is a variable, if one is."""
        network = self.network
        if var in network.products:
            self._plan_product(network.products[var])
        elif isinstance(operation := network.operations.get(var), Convolution):
            self._plan_convolution(operation)

    def _plan_product(self, layer: Layer) -> LayerPlan:
        plan = self.plan(layer)
        self.decisions[layer.site.var] = plan.decision
        return plan

    def _plan_convolution(self, operation: Convolution) -> tuple[LayerPlan, PlaneLayout]:
        """The plan, and the layout that its kernel reads."""
        source = self.source(operation)
        assert source is not None
        plan = operation.plan(source, self)
        self.decisions[operation.layer.site.var] = plan.decision
        return plan, source

    def source(self, operation: Operation) -> PlaneLayout | None:
        """The layout that an operation reads its first input in."""
        packed = self.network.chosen.packed.get(self.order[operation.result])
        home = operation.reads[0]
        return packed if packed is not None or home is None else self.layout(home)

    def plan(self, layer: Layer, places: Places | None = None, **where: Any) -> LayerPlan:
        """The encoding and schedule of a layer; see `plan_layer`."""
        step(layer.name)
        return self.planner(layer, self.network.target, places, **where)

    def layout(self, home: Home) -> PlaneLayout:
        """The layout of the buffer that a tensor lives in."""
        return self.network.chosen.buffers[home.buffer]


class _Lowering(_Planning):
    """Builds the calls. It is what operations ask for tensors."""

    def __init__(self, network: _Network, planner: Planner) -> None:
        super().__init__(network, planner)
        self.kernels = KernelCalls()
        self.buffers: dict[Buffer, Any] = {}
        self.activations = network.precision.activations
        self.packed: dict[tuple[Any, PlaneLayout, str], Any] = {}
        self.plain: dict[tuple[Any, str], Any] = {}
        self.emit: Emit = lambda *_: None

    def rule(self, var: Any, value: Any, emit: Emit) -> Any:
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
            return self._foreign(value)
        if made is None and var in network.users.results:
            return self.nchw(var)
        return made

    def _operation(self, operation: Operation) -> Any:
        if not isinstance(operation, Convolution):
            return operation.emit(self.source(operation), self)
        plan, source = self._plan_convolution(operation)
        operation.emit(plan, source, self)
        return None

    def _product(self, layer: Layer) -> Any:
        site, workload = layer.site, layer.site.workload
        (instance,) = self._plan_product(layer).instances
        shape = (workload.batch, workload.out_channels)
        args = [self._view(site.data, (workload.batch, workload.in_channels)), *map(constant, instance.constants)]
        args += [] if site.bias is None else [constant(site.bias)]
        args += [] if site.residual is None else [self._view(site.residual, shape)]
        call = self.kernels.call(instance.kernel, args, shape)
        return call if shape == site.out_shape else op.reshape(self.emit(call), site.out_shape)

    def _view(self, data: Any, shape: tuple[int, ...]) -> Any:
        data = self.nchw(data)
        return data if shape_of(data) == shape else self.emit(op.reshape(data, shape))

    def _foreign(self, value: Any) -> Any:
        tensors = self.network.tensors
        return substitute(value, {var: self.nchw(var) for var in variables_of(value) if var in tensors})

    def number(self, expr: Any, shape: tuple[int, ...]) -> Any:
        """A small tensor of other operators in another shape."""
        value = constant_value(expr)
        return self._view(expr, shape) if value is None else constant(value.reshape(shape))

    def read(self, home: Home | None, data: Any, packed: PlaneLayout | None, dtype: str) -> Any:
        """A tensor as a kernel reads it: its buffer, or what is packed from NCHW."""
        if home is not None and packed in (None, self.layout(home)):
            return self.buffers[home.buffer]
        if packed is None or packed.plain:
            return self._plain(data, dtype)
        key = (data, packed, dtype)
        if key not in self.packed:
            self.packed[key] = self._packed(data, packed, "packed", dtype)
        return self.packed[key]

    def _packed(self, data: Any, target: PlaneLayout, name: str, dtype: str) -> Any:
        """A tensor in a layout and a format of its own; one call for each run of channels that lie together."""
        tensors = self.network.tensors
        if data in tensors:
            home, formats = tensors[data], (self.activations, dtype)
            buffer, source, slots = self.buffers[home.buffer], self.layout(home), home.slots
        else:
            _, *size = shape_of(data) or ()
            buffer, source, slots, formats = data, plain_layout(*size), np.arange(size[0]), ("float32", dtype)
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

    def write(self, home: Home, kernel: Any, args: list[Any]) -> None:
        """Calls a kernel that writes a tensor to its home: the first one makes the buffer, others write in place."""
        layout, buffer = self.layout(home), home.buffer
        shape = tensor_shape(layout, buffer.batch)
        if buffer in self.buffers:
            call = self.kernels.call_inplace(kernel, [*args, self.buffers[buffer]], shape, self.activations)
        else:
            call = self.kernels.call(kernel, args, shape, self.activations)
        self.buffers[buffer] = self.emit(call, "buffer")

    def result(self, kernel: Any, args: list[Any], shape: tuple[int, ...]) -> Any:
        """Calls a kernel that makes a float32 tensor of its own."""
        return self.emit(self.kernels.call(kernel, args, shape))

    def nchw(self, data: Any) -> Any:
        """A tensor as other operators read it."""
        return self._plain(data, "float32")

    def _plain(self, data: Any, dtype: str) -> Any:
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

    def _converted(self, tensor: Any, before: str, after: str) -> Any:
        if before == after:
            return tensor
        if (tensor, after) not in self.plain:
            self.plain[tensor, after] = self.emit(op.astype(tensor, after))
        return self.plain[tensor, after]

    def _copy(self, source: Any, home: Home) -> None:
        """Copies a tensor of another operator to its place."""
        n, c, h, w = shape_of(source) or ()
        places, formats = (0, home.first or 0), ("float32", self.activations)
        layout = plain_layout(c, h, w)
        self.write(home, PackKernel(n, layout, self.layout(home), c, places, self.network.lanes, formats), [source])


def _runs(slots: Any) -> list[tuple[int, int]]:
    """[begin, end) of the runs of places that follow one by one."""
    cuts = [0, *(np.flatnonzero(np.diff(slots) != 1) + 1).tolist(), len(slots)]
    return list(pairwise(cuts))
