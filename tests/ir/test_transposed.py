"""Transposed convolutions become convolutions of their phases, whose results are interleaved."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import tvm
from numpy.typing import NDArray
from tvm import relax

from pconvgen.matching.fused_ops import find_fused_ops
from pconvgen.passes.lower import LowerLayers, decisions_of
from pconvgen.passes.transposed import RewriteTransposed, phase_axis, phase_weight
from pconvgen.planning.choose import Layer, LayerPlan, plan_layer
from pconvgen.sparsity import STRUCTURES, project
from pconvgen.sparsity.structure import swap_channels
from pconvgen.tvm_compat.building import compile_module
from pconvgen.tvm_compat.rewriting import main_bindings
from pconvgen.values.workload import RELU, Epilogue, X
from tests.activations import clip
from tests.references import transposed_convolution
from tests.relax_modules import BIAS, HOST, NN, calls, kernels, module_of, weight

RNG = np.random.default_rng(1)
BATCH = 20


def rewrite(body: Any, *shape: int) -> Any:
    return RewriteTransposed(HOST)(module_of(body, *shape))


def lower(body: Any, *shape: int, dense: bool = False) -> Any:
    return LowerLayers(HOST, dense)(rewrite(body, *shape))


def up(data: Any, filters: int = 4, kernel: int = 3, strides: int = 2, **options: Any) -> Any:
    return NN.conv2d_transpose(data, weight(3, filters, kernel, kernel), strides=strides, **options)


@pytest.mark.parametrize("seed", range(200))
def test_phases_of_random_axes(seed: int) -> None:
    """A convolution with phase_weight, interleaved and cut by phase_axis, in NumPy."""
    rng = np.random.default_rng(seed)
    kernel, stride, dilation = (int(rng.integers(1, most)) for most in (7, 6, 4))
    before, after, groups = int(rng.integers(0, 9)), int(rng.integers(0, 9)), int(rng.integers(1, 3))
    size = max(int(rng.integers(1, 9)), -(-(before + after - dilation * (kernel - 1)) // stride) + 1)
    data, taps = rng.standard_normal((1, 2 * groups, 1, size)), rng.standard_normal((2 * groups, 3, 1, kernel))
    expected = transposed_convolution(data, taps, (1, stride), (0, before, 0, after), (0, 0), (1, dilation), groups)

    row = phase_axis(1, 1, 1, 1, 0, 1)
    axis = phase_axis(size, kernel, stride, dilation, before, expected.shape[3])
    assert min(axis.padding) >= 0 <= axis.shift
    union = phase_weight(taps, groups, row, axis)
    assert np.count_nonzero(union) == taps.size, "every weight is in one phase"
    padded = np.pad(data, ((0, 0), (0, 0), (0, 0), axis.padding))[0, :, 0].reshape(groups, 2, -1)
    phases = np.zeros((groups, axis.phases * 3, axis.size))
    for position in range(axis.kernel):
        part = padded[..., position * axis.dilation :][..., : axis.size]
        phases += np.einsum("gfc,gcx->gfx", union[:, :, 0, position].reshape(groups, -1, 2), part)
    whole = phases.reshape(groups, axis.phases, 3, axis.size).transpose(0, 2, 3, 1).reshape(groups * 3, -1)
    np.testing.assert_allclose(whole[:, axis.shift :][:, : expected.shape[3]], expected[0, :, 0], atol=1e-12)


def random_layer(rng: np.random.Generator, data: NDArray[Any]) -> tuple[NDArray[np.float32], dict[str, Any]] | None:
    """A weight for 6 channels and attributes; None when there would be no outputs."""
    groups = int(rng.choice([1, 1, 2, 3, 6]))
    kernel, strides = rng.integers(1, 6, 2), rng.integers(1, 4, 2)
    dilation = rng.integers(1, 4, 2) if rng.random() < 0.3 else np.array([1, 1])
    padding, output_padding = rng.integers(0, 4, 4), rng.integers(0, strides)
    attributes = {"strides": strides, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    sizes = (np.array(data.shape[2:]) - 1) * strides + dilation * (kernel - 1) + 1 + output_padding
    if (sizes - padding[:2] - padding[2:] < 1).any():
        return None
    weight = rng.standard_normal((6, int(rng.integers(1, 9)), *kernel)).astype(np.float32)
    structure = STRUCTURES[rng.choice(["dense", "unstructured", "simd_block", "filter"])]
    pruned = project(structure.name, swap_channels(weight, groups), float(rng.choice([0.1, 0.3, 0.6])), groups=groups)
    plain = {name: [int(v) for v in values] for name, values in attributes.items()} | {"groups": groups}
    return swap_channels(pruned, groups), plain


@pytest.mark.host
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_random_layers(seed: int, dense: bool) -> None:
    """Modules of many layers of one input, with bias and activation, against NumPy."""
    rng = np.random.default_rng([seed, dense])
    height, width = (int(rng.integers(1, most)) for most in (8, 20))
    data = rng.standard_normal((int(rng.integers(1, 3)), 6, height, width)).astype(np.float32)
    expected: list[NDArray[Any]] = []

    def body(emit: Any, x: Any) -> Any:
        results = []
        while len(results) < BATCH:
            made = random_layer(rng, data)
            if made is None:
                continue
            taps, attributes = made
            value = emit(NN.conv2d_transpose(x, relax.const(taps), **attributes))
            strides, padding, behind, dilation, groups = attributes.values()
            result = transposed_convolution(data, taps, strides, padding, behind, dilation, groups)
            if rng.random() < 0.5:
                bias = rng.standard_normal((result.shape[1], 1, 1)).astype(np.float32)
                value, result = emit(relax.op.add(relax.const(bias), value)), result + bias
            if rng.random() < 0.5:
                value, result = emit(relax.op.clip(value, -0.5, 0.5)), np.clip(result, -0.5, 0.5)
            results.append(value)
            expected.append(result)
        return tuple(results)

    lowered = lower(body, *data.shape, dense=dense)
    assert not {"relax.nn.conv2d_transpose", "relax.nn.conv2d", "relax.add", "relax.clip"} & calls(lowered).keys()
    built = compile_module(relax.get_pipeline("zero")(lowered), tvm.target.Target({"kind": "llvm", "mcpu": "haswell"}))
    found = relax.VirtualMachine(built, tvm.cpu())["main"](tvm.runtime.tensor(data))
    for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4, atol=1e-4, err_msg=str(index))


def biased(emit: Any, x: Any) -> Any:
    return relax.op.add(emit(up(x)), BIAS)


def rectified(emit: Any, x: Any) -> Any:
    return NN.relu(emit(biased(emit, x)))


def clipped(emit: Any, x: Any) -> Any:
    return relax.op.clip(emit(relax.op.add(BIAS, emit(up(x)))), -0.5, 6)


@pytest.mark.parametrize(
    ("body", "epilogue"),
    [
        (lambda emit, x: up(x), Epilogue()),
        (biased, Epilogue(bias=True)),
        (rectified, Epilogue(bias=True, activation=RELU)),
        (clipped, Epilogue(bias=True, activation=clip(X, -0.5, 6.0))),
    ],
)
def test_epilogues_move_into_the_convolution(body: Any, epilogue: Epilogue) -> None:
    (fused_op,) = find_fused_ops(rewrite(body))
    assert fused_op.workload.epilogue == epilogue
    assert fused_op.weight.shape == (16, 3, 2, 2)
    assert calls(lower(body)) == Counter(pack=1, pixel=1, interleave=1)


def test_bias_of_groups_is_repeated_within_them() -> None:
    bias = np.arange(6, dtype=np.float32)

    def body(emit: Any, x: Any) -> Any:
        made = NN.conv2d_transpose(x, weight(4, 3, 2, 2), strides=2, groups=2)
        return relax.op.add(emit(made), relax.const(bias.reshape(1, 6, 1, 1)))

    (fused_op,) = find_fused_ops(rewrite(body, 1, 4, 5, 5))
    assert fused_op.bias is not None
    assert fused_op.bias.tolist() == [0, 1, 2] * 4 + [3, 4, 5] * 4


def residual(emit: Any, x: Any) -> Any:
    return relax.op.add(emit(biased(emit, x)), emit(up(x, strides=2)))


def returned(emit: Any, x: Any) -> Any:
    y = emit(up(x))
    return y, NN.relu(y)


def by_pixel(emit: Any, x: Any) -> Any:
    return relax.op.add(emit(up(x)), weight(1, 4, 17, 17))


@pytest.mark.parametrize(
    ("body", "left"), [(residual, "pointwise"), (returned, "relax.nn.relu"), (by_pixel, "relax.add")]
)
def test_what_does_not_commute_or_has_more_users_stays_behind(body: Any, left: str) -> None:
    assert calls(lower(body))[left] == 1
    assert all(fused_op.workload.epilogue.activation is None for fused_op in find_fused_ops(rewrite(body)))


def test_without_a_stride_nothing_is_interleaved() -> None:
    def body(emit: Any, x: Any) -> Any:
        return NN.relu(emit(up(emit(up(x, filters=3, strides=1, padding=1)), strides=1, padding=1)))

    assert calls(lower(body)) == Counter(pack=1, pixel=2)


def test_one_pixel_is_a_matrix_product() -> None:
    lowered = lower(lambda emit, x: up(x, kernel=4, strides=1), 2, 3, 1, 1)
    assert calls(lowered) == Counter({"channel": 1, "interleave": 1, "relax.reshape": 2})
    (decision,) = decisions_of(lowered)
    assert decision.macs == 2 * 3 * 4 * 16


def computed(emit: Any, x: Any) -> Any:
    return NN.conv2d_transpose(x, emit(relax.op.negative(emit(relax.op.reshape(x, (3, 1, 8, 8))))), strides=2)


def doubles(emit: Any, x: Any) -> Any:
    wide = emit(relax.op.astype(x, "float64"))
    return NN.conv2d_transpose(wide, relax.const(np.ones((3, 4, 2, 2)), "float64"), strides=2)


@pytest.mark.parametrize("body", [computed, doubles])
def test_what_cannot_be_rewritten_stays(body: Any) -> None:
    assert calls(lower(body))["relax.nn.conv2d_transpose"] == 1
    assert not kernels(lower(body))


def test_equal_layers_share_their_kernels() -> None:
    def body(emit: Any, x: Any) -> Any:
        return NN.relu(emit(up(x))), NN.relu(emit(up(x)))

    lowered = lower(body)
    assert calls(lowered) == Counter(pack=1, pixel=2, interleave=2)
    assert kernels(lowered) == 3


def of_weight(taps: NDArray[np.float32]) -> Any:
    return lambda emit, x: NN.conv2d_transpose(x, relax.const(taps), strides=2, padding=1)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_decision_is_about_the_layer_of_the_model(structure: str) -> None:
    filters = project(structure, RNG.standard_normal((16, 8, 4, 4)).astype(np.float32), 0.25)
    body = of_weight(swap_channels(filters, 1))
    (decision,) = decisions_of(lower(body, 2, 8, 6, 6))
    (binding, *_) = main_bindings(module_of(body, 2, 8, 6, 6)) or []
    assert (decision.name, decision.op) == (binding.var.name, "conv2d_transpose")
    assert decision.shape == (8, 16, 4, 4)
    assert decision.macs == 2 * 36 * filters.size
    assert decision.structure == structure
    assert decision.density == pytest.approx(np.count_nonzero(filters) / filters.size)
    assert decision.reason.startswith("as a convolution with 4 phases of filters, 2x2; ")
    (dense,) = decisions_of(lower(body, 2, 8, 6, 6, dense=True))
    assert (dense.structure, dense.density) == ("dense", decision.density)


@pytest.mark.parametrize("kernel", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("stride", [2, 3])
def test_zeros_of_the_rewriting_are_not_computed(kernel: int, stride: int) -> None:
    """Packed weights and indices are not much more than the layer's weights, pruned or not, asked for dense or not."""
    full = RNG.standard_normal((32, 16, kernel, kernel)).astype(np.float32)
    pruned = swap_channels(project("simd_block", swap_channels(full, 1), 0.25), 1)
    for taps, dense in ((full, False), (full, True), (pruned, False)):
        body = lambda emit, x, taps=taps: NN.conv2d_transpose(x, relax.const(taps), strides=stride)  # noqa: E731
        (decision,) = decisions_of(lower(body, 1, 32, 16, 16, dense=dense))
        # Single weights, which are as fast as blocks on some cores, have an index each.
        each = 2 if decision.choice.endswith("unstructured") else 1.45
        assert decision.nbytes < each * 4 * np.count_nonzero(taps) + 2048
    (all_zeros_too,) = decisions_of(
        lower(lambda emit, x: NN.conv2d_transpose(x, relax.const(pruned), strides=stride), 1, 32, 16, 16, dense=True)
    )
    assert all_zeros_too.nbytes >= 4 * full.size


@pytest.mark.parametrize("dense", [False, True])
def test_with_exact_nan_no_encoding_stores_zeros_of_the_rewriting(dense: bool) -> None:
    """Whichever is the fastest on a core: a zero that the model does not have would hand NaN on."""

    def fills(*, exact_nan: bool) -> set[float]:
        found: set[float] = set()

        def planner(layer: Layer, *args: Any, **where: Any) -> LayerPlan:
            assert layer.candidates
            found.update(held.stored / held.nonzeros for held in (*layer.candidates, *layer.splits))
            return plan_layer(layer, *args, **where)

        LowerLayers(HOST, dense, planner=planner, exact_nan=exact_nan)(rewrite(lambda emit, x: emit(up(x))))
        return found

    assert fills(exact_nan=True) == {1.0}
    assert max(fills(exact_nan=False)) > 1.0
