"""Half precision: which tensors are float16, and where they are converted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tvm import relax

from pconvgen.errors import PconvgenError
from pconvgen.pipeline import phases, run
from pconvgen.targets.presets import get_target
from pconvgen.tvm_compat.relax import constant, dtype_of, is_op
from pconvgen.tvm_compat.rewriting import main_bindings, main_results
from pconvgen.values.precision import FLOAT32, Precision, precision
from tests.relax_modules import BIAS, NN, calls, conv, module_of

HALF, STORED = precision("float16"), precision("float16", accumulate="float32")


def lowered(body: Any, formats: Precision = HALF, shape: tuple[int, ...] = ()) -> Any:
    """The module before TVM's own legalisation."""
    module = module_of(body, *shape)
    for name, phase in phases(get_target("cortex-a76"), precision=formats):
        if name == "legalise":
            return module
        module = phase(module)
    raise AssertionError("no phase of that name")


def kernels(module: Any) -> list[tuple[str, str]]:
    """(name of the kernel without its number, format of the result), in program order."""
    return [
        (binding.value.args[0].name_hint.rstrip("0123456789_"), dtype_of(binding.var))
        for binding in main_bindings(module)
        if is_op(binding.value, "relax.call_tir", "relax.call_tir_inplace")
    ]


def network(emit: Any, x: Any) -> Any:
    y = emit(NN.relu(emit(relax.op.add(emit(conv(x)), BIAS))))
    y = emit(NN.max_pool2d(y, (2, 2), (2, 2)))
    z = emit(relax.op.add(emit(conv(emit(conv(y)))), y))
    z = emit(relax.op.concat([z, y], axis=1))
    first, second = (emit(relax.op.split(z, 2, axis=1)[i]) for i in range(2))
    return emit(NN.relu(emit(relax.op.add(first, second))))


def test_between_kernels_tensors_are_half() -> None:
    module = lowered(network)
    *inside, last = kernels(module)
    assert [name for name, _ in inside[:2]] == ["pack", "pixel"]
    assert {dtype for _, dtype in inside} == {"float16"}
    # The output is float32: unpacked, or converted where its layout is NCHW.
    converted = calls(module)["relax.astype"]
    assert (last, converted) in ((("pack", "float32"), 0), (("pointwise", "float16"), 1))
    assert [dtype_of(result) for result in main_results(module)] == ["float32"]


def test_data_is_packed_in_the_format_of_the_sums() -> None:
    made = kernels(lowered(network, STORED))
    assert {dtype for name, dtype in made if name != "pack"} == {"float16"}
    assert {dtype for name, dtype in made if name == "pack"} == {"float32"}
    assert sum(name == "pack" for name, _ in made) >= sum(name == "pixel" for name, _ in made)


def test_other_operators_are_in_float32() -> None:
    def body(emit: Any, x: Any) -> Any:
        return emit(NN.softmax(emit(conv(x)), axis=1))

    module = lowered(body)
    assert [dtype_of(result) for result in main_results(module)] == ["float32"]
    assert kernels(module)[-1] == ("softmax", "float32")


def test_what_is_not_half_is_not_rounded() -> None:
    """A sum with an input of the model keeps its 24 bits."""

    def body(emit: Any, x: Any) -> Any:
        pooled = emit(NN.max_pool2d(x, (3, 3), padding=(1, 1)))
        return emit(relax.op.subtract(x, pooled))

    (difference,) = (b for b in main_bindings(lowered(body)) if is_op(b.value, "relax.subtract"))
    assert {dtype_of(arg) for arg in difference.value.args} == {"float32"}


def test_means_of_planes_and_what_reads_them_are_in_float32() -> None:
    def body(emit: Any, x: Any) -> Any:
        y = emit(conv(x))
        gate = emit(
            NN.conv2d(emit(relax.op.mean(y, [2, 3], keepdims=True)), constant(np.ones((4, 4, 1, 1), "float32")))
        )
        return emit(conv(emit(relax.op.multiply(y, gate))))

    made = dict(kernels(lowered(body)))
    assert (made["globalpool"], made["channel"]) == ("float32", "float32")
    assert (made["pixel"], made["pointwise"]) == ("float16", "float16")


def test_float16_weights_leave_tensors_alone() -> None:
    module = lowered(network, precision(weights="float16"))
    assert {dtype for _, dtype in kernels(module)} == {"float32"}
    assert calls(module)["relax.astype"] == 0


@pytest.mark.parametrize(("channels", "sums"), [(227, "float16"), (228, "float32")])
def test_long_sums_are_in_float32(channels: int, sums: str) -> None:
    def body(emit: Any, x: Any) -> Any:
        return emit(NN.conv2d(x, constant(np.ones((4, channels, 3, 3), np.float32)), padding=1))

    made = kernels(lowered(body, HALF, (1, channels, 8, 8)))
    assert made[:2] == [("pack", sums), ("pixel", "float16")]


def compiled(body: Any, formats: Precision) -> Any:
    return run(module_of(body), get_target("cortex-a76"), precision=formats)


@pytest.mark.parametrize("large", [65520.0, -1e6, np.inf, np.nan])
@pytest.mark.parametrize("formats", [HALF, STORED, precision(weights="float16")], ids=str)
def test_weights_that_do_not_fit(formats: Precision, large: float) -> None:
    def body(emit: Any, x: Any, largest: float = large) -> Any:
        values = np.ones((4, 3, 3, 3), np.float32)
        values[1, 2, 0, 0] = largest
        return emit(NN.conv2d(x, constant(values)))

    assert compiled(lambda emit, x: body(emit, x, 65504.0), formats)
    with pytest.raises(PconvgenError, match=r"layer lv\w*: a weight is too large for float16 .*at most 65504"):
        compiled(body, formats)


def test_biases_have_the_format_of_the_sums() -> None:
    def body(emit: Any, x: Any) -> Any:
        return emit(relax.op.add(emit(conv(x)), constant(np.full((1, 4, 1, 1), 1e5, np.float32))))

    assert compiled(body, STORED)
    with pytest.raises(PconvgenError, match="a bias is too large for float16"):
        compiled(body, HALF)


def test_formats() -> None:
    assert precision() == FLOAT32 == Precision()
    assert precision(weights="float16") == replace(FLOAT32, weights="float16")
    assert precision("float16") == Precision("float16", "float16", "float16")
    for wrong in (
        {"dtype": "bfloat16"},
        {"accumulate": "half"},
        {"weights": "int8"},
        {"accumulate": "float16"},
        {"dtype": "float16", "weights": "float32"},
    ):
        with pytest.raises(PconvgenError):
            precision(**wrong)
