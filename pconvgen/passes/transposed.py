"""Transposed convolutions become ordinary ones, so that every structure, schedule and epilogue works for them.

Output o of a transposed convolution is the sum of input[i] * weight[k] over i * stride + k * dilation = o + padding.
The outputs whose o + padding has the remainder e by the stride are *phase* e: they see the same taps k, and between two
of them the input moves by one. So each phase is a convolution with stride 1, and all phases together are one
convolution with as many times the filters, whose outputs are then interleaved. This is the sub-pixel convolution of
Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel convolutional neural
network" (CVPR 2016), section 3, and "Is the deconvolution layer the same as a convolutional layer?" (arXiv 1609.07009).

One convolution, rather than one for each phase: its input is packed once, its filters are enough for whole groups even
where a layer has few (a segmentation head), and a stride of 8 needs no 64 kernels. Where the phases have different
numbers of taps, as 2 and 1 of a kernel of 3 with stride 2, the kernel that holds all of them has zeros. Filters of a
phase are neighbours, so these zeros are blocks, and the SIMD blocks among the encodings skip them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.passes.channel_values import is_unary
from pconvgen.sparsity import DENSE, candidates, smallest
from pconvgen.sparsity.structure import swap_channels
from pconvgen.templates.movement.interleave import InterleaveKernel
from pconvgen.tvm_compat.calls import KernelCalls
from pconvgen.tvm_compat.passes import module_pass
from pconvgen.tvm_compat.relax import (
    Binding,
    Expr,
    Module,
    Var,
    constant,
    constant_value,
    dtype_of,
    is_op,
    op,
    shape_of,
    variables_of,
    with_args,
)
from pconvgen.tvm_compat.rewriting import (
    Emit,
    eliminate_dead_code,
    main_bindings,
    main_results,
    rewrite_main,
    with_main_attr,
)
from pconvgen.values.decision import Decision
from pconvgen.values.dtype import DType
from pconvgen.values.target import Target

TRANSPOSED = "pconvgen.transposed"
"""Attribute of "main": JSON object, name of a convolution's variable -> the transposed convolution that it was."""


@dataclass(frozen=True)
class PhaseAxis:
    """One spatial axis of a transposed convolution as a convolution with stride 1.

    Attributes
    ----------
    phases: how many the outputs have.
    taps: for each position of the transposed kernel, its phase and its position in the convolution's kernel.
    kernel, dilation: positions of the convolution's kernel and their distance.
    padding: (before, after) of the convolution.
    size: outputs of a phase.
    shift: outputs of the phases, interleaved, that are cut off in front; those behind the output are cut off too.
    """

    phases: int
    taps: tuple[tuple[int, int], ...]
    kernel: int
    dilation: int
    padding: tuple[int, int]
    size: int
    shift: int


def phase_axis(size: int, kernel: int, stride: int, dilation: int, before: int, outputs: int) -> PhaseAxis:
    """An axis of `size` inputs and `outputs` outputs, of which `before` are cut off in front.

    Parameters
    ----------
    kernel, stride, dilation: of the transposed convolution.
    """
    if size == 1:
        # No two taps meet in an output, as if the stride were so large: a matrix product without padding.
        stride = (kernel - 1) * dilation + 1
    back, phase = np.divmod(np.arange(kernel) * dilation, stride)
    distance = int(np.gcd.reduce(back)) or 1
    reach = int(back[-1])
    # Padding is not negative: what that would cut off is computed, and cut off when phases are interleaved.
    first = min(before // stride, reach)
    last = max((outputs - 1 + before) // stride, size - 1)
    positions = (reach - back) // distance
    return PhaseAxis(
        phases=stride,
        taps=tuple((int(e), int(position)) for e, position in zip(phase, positions, strict=True)),
        kernel=reach // distance + 1,
        dilation=distance,
        padding=(reach - first, last - (size - 1)),
        size=last - first + 1,
        shift=before - first * stride,
    )


def phase_weight(weight: NDArray[Any], groups: int, rows: PhaseAxis, columns: PhaseAxis) -> NDArray[Any]:
    """The convolution's weight for a transposed convolution's [input channels, filters / groups, height, width].

    Returns [groups * phases * filters / groups, input channels / groups, height, width]; what no tap fills is zero.
    """
    per_group = weight.reshape(groups, -1, *weight.shape[1:])
    shape = (groups, rows.phases, columns.phases, weight.shape[1], per_group.shape[1], rows.kernel, columns.kernel)
    result = np.zeros(shape, weight.dtype)
    for r, (p, y) in enumerate(rows.taps):
        for c, (q, x) in enumerate(columns.taps):
            result[:, p, q, :, :, y, x] = per_group[:, :, :, r, c].swapaxes(1, 2)
    return result.reshape(-1, *shape[4:])


@dataclass(frozen=True)
class TransposedLayer:
    """What a decision says of a transposed convolution, and which weights of its convolution it has.

    Attributes
    ----------
    shape: its weight's, [input channels, filters / groups, height, width].
    macs: its multiply-accumulates; a weight meets every pixel of the input.
    structure: what its zeros form, a key of STRUCTURES.
    density: share of its weights that are not zero.
    present: [phases, kernel height, kernel width] of the convolution, 1 where a phase has a tap.
    """

    shape: tuple[int, ...]
    macs: int
    structure: str
    density: float
    present: tuple[tuple[tuple[int, ...], ...], ...]

    def mask(self, weight: NDArray[np.float32], groups: int) -> NDArray[np.bool_]:
        """Which elements of the convolution's weight are weights of the layer."""
        phases = np.array(self.present, np.bool_)
        grouped = weight.reshape(groups, len(phases), -1, *weight.shape[1:])
        return np.broadcast_to(phases[:, None, None], grouped.shape).reshape(weight.shape)

    def described(self, decision: Decision, *, dense: bool) -> Decision:
        """The decision for its convolution as one for the layer itself."""
        height, width = len(self.present[0]), len(self.present[0][0])
        filters = f"{len(self.present)} phases of filters, {height}x{width}"
        return replace(
            decision,
            op="conv2d_transpose",
            shape=self.shape,
            macs=self.macs,
            structure=DENSE if dense or decision.structure == DENSE else self.structure,
            density=self.density,
            reason=f"as a convolution with {filters}; {decision.reason}",
        )


def transposed_layers(module: Module) -> dict[str, TransposedLayer]:
    """The transposed convolutions that became convolutions, by the names of these; see TRANSPOSED."""
    attrs = module["main"].attrs
    rows = json.loads(attrs[TRANSPOSED]) if attrs and TRANSPOSED in attrs else {}
    return {name: TransposedLayer(**{**row, "shape": tuple(row["shape"])}) for name, row in rows.items()}


@module_pass
class RewriteTransposed:
    """Relax pass that replaces transposed convolutions by constants with convolutions of their phases.

    before: a = conv2d_transpose(x, weight[64, 32, 3, 3], strides=2); b = relu(add(a, bias[32]))
    after:  a = conv2d(x, weight[128, 64, 2, 2]); b = call_tir(interleave, (relu(add(a, bias[128])),))

    A bias and elementwise operators move in front of the interleaving, where a kernel's epilogue takes them. The
    convolution's variable has the name of the transposed one's.

    Parameters
    ----------
    target: what the interleaving is generated for.
    """

    def __init__(self, target: Target) -> None:
        self.lanes = target.core.lanes(DType.FLOAT32)

    def transform_module(self, module: Module, _context: object) -> Module:
        """A new module, or the same one; computed weights, other layouts and types stay."""
        found = {(layer.chain or (layer,))[-1].var: layer for layer in _find(module)}
        if not found:
            return module
        kernels = KernelCalls()

        def rule(var: Var, value: Expr, emit: Emit) -> Expr:
            layer = found.get(var)
            return value if layer is None else layer.rewritten(self.lanes, kernels, emit)

        rewritten = eliminate_dead_code(kernels.add_to(rewrite_main(module, rule)))
        facts = {layer.var.name: asdict(layer.facts()) for layer in found.values()}
        return with_main_attr(rewritten, TRANSPOSED, json.dumps(facts))


@dataclass(frozen=True, eq=False)
class _Transposed:
    """A transposed convolution with the elementwise operations behind it, which commute with the interleaving.

    Attributes
    ----------
    var: the variable of the transposed convolution; its name is the layer's.
    value: the call.
    chain: bindings of a bias or an elementwise operator of one tensor, each the only user of the one before.
    """

    var: Var
    value: Expr
    chain: tuple[Binding, ...]

    @cached_property
    def weight(self) -> NDArray[np.float32]:
        """[input channels, filters / groups, height, width]."""
        weight: Any = constant_value(self.value.args[1])
        return weight  # type: ignore[no-any-return]

    @property
    def groups(self) -> int:
        return int(self.value.attrs.groups)

    @cached_property
    def axes(self) -> tuple[PhaseAxis, PhaseAxis]:
        attrs, sizes, outputs = self.value.attrs, shape_of(self.value.args[0]) or (), shape_of(self.var) or ()
        rows, columns = (
            phase_axis(
                sizes[2 + i],
                self.weight.shape[2 + i],
                int(attrs.strides[i]),
                int(attrs.dilation[i]),
                int(attrs.padding[i]),
                outputs[2 + i],
            )
            for i in range(2)
        )
        return rows, columns

    def rewritten(self, lanes: int, kernels: KernelCalls, emit: Emit) -> Expr:
        """The expression in place of the last operation of the chain; what it needs is emitted."""
        rows, columns = self.axes
        padding = (rows.padding[0], columns.padding[0], rows.padding[1], columns.padding[1])
        weight = phase_weight(self.weight, self.groups, rows, columns)
        attributes = {"padding": padding, "dilation": (rows.dilation, columns.dilation), "groups": self.groups}
        result, name = op.nn.conv2d(self.value.args[0], constant(weight), **attributes), self.var.name
        data = self.var
        for binding in self.chain:
            result = emit(result, name)
            args = [result if arg.same_as(data) else self._per_phase(arg) for arg in binding.value.args]
            result, name, data = with_args(binding.value, args), binding.var.name, binding.var
        kernel = self._interleaving(lanes)
        return result if kernel is None else kernels.call(kernel, [emit(result, name)], shape_of(self.var) or ())

    def _interleaving(self, lanes: int) -> InterleaveKernel | None:
        """What puts the convolution's outputs into place; None when they are."""
        rows, columns = self.axes
        n, filters, height, width = shape_of(self.var) or ()
        stride, source = (rows.phases, columns.phases), (rows.size, columns.size)
        shift, output = (rows.shift, columns.shift), (height, width)
        if stride == (1, 1) and shift == (0, 0) and source == output:
            return None
        return InterleaveKernel(n, self.groups, filters // self.groups, stride, source, shift, output, lanes)

    def _per_phase(self, operand: Expr) -> Expr:
        """An operand beside the data: one number for each channel becomes one for each filter of the convolution."""
        numbers = constant_value(operand)
        if numbers is None:
            return operand
        channels = np.broadcast_to(numbers.reshape(-1), (shape_of(self.var) or ())[1:2])
        phases = self.axes[0].phases * self.axes[1].phases
        return constant(np.repeat(channels.reshape(self.groups, 1, -1), phases, axis=1).reshape(1, -1, 1, 1))

    def facts(self) -> TransposedLayer:
        n, _, height, width = shape_of(self.value.args[0]) or ()
        present = phase_weight(np.ones((1, 1, *self.weight.shape[2:]), np.int64), 1, *self.axes)
        return TransposedLayer(
            shape=self.weight.shape,
            macs=n * height * width * self.weight.size,
            structure=smallest(candidates(swap_channels(self.weight, self.groups), self.groups)).structure,
            density=np.count_nonzero(self.weight) / self.weight.size,
            present=present[:, 0].tolist(),
        )


def _find(module: Module) -> list[_Transposed]:
    """The transposed convolutions of "main" that can be rewritten."""
    bindings = main_bindings(module) or []
    users: dict[Var, list[Binding]] = {}
    for binding in bindings:
        for var in variables_of(binding.value):
            users.setdefault(var, []).append(binding)
    results = set(main_results(module))

    def chain(var: Var, channels: int) -> Iterator[Binding]:
        while var not in results and len(users.get(var, [])) == 1:
            binding = users[var][0]
            if not (is_unary(binding.value) or _is_bias(binding.value, channels)):
                return
            yield binding
            var = binding.var

    return [
        _Transposed(binding.var, binding.value, tuple(chain(binding.var, shape_of(binding.var)[1])))  # type: ignore[index]
        for binding in bindings
        if _has_phases(binding)
    ]


def _has_phases(binding: Binding) -> bool:
    value = binding.value
    if not is_op(value, "relax.nn.conv2d_transpose") or shape_of(value.args[0]) is None:
        return False
    attrs, weight = value.attrs, constant_value(value.args[1])
    layouts = (attrs.data_layout, attrs.kernel_layout, attrs.out_layout)
    return weight is not None and dtype_of(binding.var) == DType.FLOAT32 and layouts == ("NCHW", "IOHW", "NCHW")


def _is_bias(value: Expr, channels: int) -> bool:
    """Whether `value` adds a constant that is one number for each channel, or for all."""
    if not is_op(value, "relax.add"):
        return False
    numbers = [number for number in map(constant_value, value.args) if number is not None]
    return len(numbers) == 1 and (numbers[0].size == 1 or numbers[0].shape[-3:] == (channels, 1, 1))
