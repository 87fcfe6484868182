"""Layers become calls of generated kernels with their epilogues, and a decision is left for each."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from tvm import relax

from pconvgen.compiler import compile as compile_model
from pconvgen.errors import PconvgenError
from pconvgen.frontend import load_model
from pconvgen.manifest import MARK, read_manifest
from pconvgen.matching.fused_ops import find_fused_ops
from pconvgen.passes.lower import DECISIONS, LowerLayers, decisions_of
from pconvgen.pipeline import phases, run
from pconvgen.tvm_compat.rewriting import main_bindings
from pconvgen.values.decision import Decision
from pconvgen.values.workload import RELU, Activation, Epilogue, X
from tests.relax_modules import BIAS, HOST, NN, RNG, calls, conv, kernels, lower, module_of, weight


def test_layers_share_the_packed_input() -> None:
    def body(emit: Any, x: Any) -> Any:
        return conv(x), conv(x)

    lowered = lower(body)
    assert calls(lowered) == Counter(pack=1, pixel=2)
    assert kernels(lowered) == 2, "equal layers share one function"


def test_layers_that_differ_in_their_filters_share_the_packed_input() -> None:
    def body(emit: Any, x: Any) -> Any:
        return NN.relu(emit(conv(x, filters=16))), conv(x, filters=24)

    assert calls(lower(body)) == Counter(pack=1, pixel=2)


def test_pointwise_convolutions_need_no_pack() -> None:
    assert calls(lower(lambda emit, x: conv(x, kernel=1, padding=0))) == Counter(pixel=1)


@pytest.mark.parametrize("shape", [(6,), (5, 6), (2, 5, 6), (2, 3, 5, 6)])
def test_linear_layers_of_any_rank(shape: tuple[int, ...]) -> None:
    def body(emit: Any, x: Any) -> Any:
        y = emit(relax.op.add(emit(relax.op.matmul(x, weight(6, 4))), weight(4)))
        return NN.relu(emit(relax.op.add(y, emit(relax.op.nn.silu(emit(relax.op.matmul(x, weight(6, 4))))))))

    second, first = sorted(
        find_fused_ops(module_of(body, *shape)), key=lambda fused_op: fused_op.workload.epilogue.bias
    )
    rows = int(np.prod(shape[:-1], dtype=int))
    assert (first.op, first.workload.batch, first.weight.shape) == ("linear", rows, (4, 6, 1, 1))
    assert first.workload.epilogue == Epilogue(bias=True, residual=True, activation=RELU)
    assert second.workload.epilogue == Epilogue(activation=Activation("silu", (X,)))
    lowered = lower(body, *shape)
    assert calls(lowered)["channel"] == 2
    assert "relax.matmul" not in calls(lowered)


def test_one_pixel_is_a_matrix_product() -> None:
    def body(emit: Any, x: Any) -> Any:
        return relax.op.tanh(emit(rectified_pixel(emit, x)))

    def rectified_pixel(emit: Any, x: Any) -> Any:
        return NN.relu(emit(relax.op.add(emit(conv(x, kernel=1, padding=0)), BIAS)))

    lowered = lower(body, 2, 8, 1, 1)
    assert calls(lowered) == Counter({"channel": 1, "relax.reshape": 2, "relax.tanh": 1})
    (decision,) = decisions_of(lowered)
    assert decision.choice.startswith("channels: ")
    assert decision.shape == (4, 8, 1, 1)


@pytest.mark.parametrize("groups", [2, 4])
def test_grouped_and_depthwise_convolutions(groups: int) -> None:
    def body(emit: Any, x: Any) -> Any:
        return conv(x, filters=8, groups=groups)

    lowered = lower(body, 1, 4, 8, 8)
    assert calls(lowered) == Counter(pack=1, pixel=1)
    (decision,) = decisions_of(lowered)
    assert decision.shape == (8, 4 // groups, 3, 3)
    assert decision.macs == 8 * 4 // groups * 9 * 64


def transposed(emit: Any, x: Any) -> Any:
    return NN.conv2d_transpose(x, weight(3, 4, 2, 2), strides=2)


def weight_computed(emit: Any, x: Any) -> Any:
    return NN.conv2d(x, emit(relax.op.reshape(x, (1, 3, 8, 8))))


def one_dimension(emit: Any, x: Any) -> Any:
    return NN.conv1d(emit(relax.op.reshape(x, (1, 3, 64))), weight(4, 3, 3))


def channels_last(emit: Any, x: Any) -> Any:
    return NN.conv2d(x, weight(4, 8, 3, 3), data_layout="NHWC", kernel_layout="OIHW")


def many_products(emit: Any, x: Any) -> Any:
    return relax.op.matmul(x, weight(1, 3, 8, 4))


@pytest.mark.parametrize(
    ("body", "op", "reason", "macs"),
    [
        (transposed, "conv2d_transpose", "no template for this conv2d_transpose", 64 * 3 * 4 * 4),
        (weight_computed, "conv2d", "the weight is computed at run time", 3 * 64),
        (one_dimension, "conv1d", "no template for this conv1d", 62 * 4 * 3 * 3),
        (many_products, "linear", "no template for this linear", None),
        (channels_last, "conv2d", "no template for this conv2d", None),
    ],
)
def test_what_has_no_template_stays_with_a_reason(body: Any, op: str, reason: str, macs: int | None) -> None:
    lowered = lower(body)
    (decision,) = decisions_of(lowered)
    assert (decision.op, decision.choice, decision.reason) == (op, "tvm", reason)
    assert decision.schedule is decision.predicted_ms is decision.predicted_cycles is None
    assert macs is None or decision.macs == macs
    assert kernels(lowered) == 0


def test_products_of_two_activations_are_no_layers() -> None:
    assert decisions_of(lower(lambda emit, x: relax.op.matmul(x, x))) == ()


def test_dynamic_shapes_stay_with_a_reason() -> None:
    batch = tvm.tirx.Var("n", "int64")
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((batch, 3, 8, 8), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit(NN.relu(builder.emit(NN.conv2d(x, weight(4, 3, 3, 3)))))
            z = builder.emit(relax.op.matmul(y, weight(6, 2)))
            result = builder.emit_output(z)
        builder.emit_func_output(result)
    lowered = run(builder.finalize(), HOST)
    assert [(decision.op, decision.choice) for decision in decisions_of(lowered)] == [
        ("conv2d", "tvm"),
        ("linear", "tvm"),
    ]


def test_a_module_without_a_dataflow_block_stays() -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 3, 8, 8), "float32"))
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(conv(x)))
    module = builder.finalize()
    lowered = LowerLayers(HOST)(module)
    tvm.ir.assert_structural_equal(lowered["main"], module["main"])
    assert decisions_of(lowered) == ()


class Mixed(nn.Module):
    """Layers of all kinds, named and used in an order of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.up = nn.ConvTranspose2d(4, 4, 2, 2)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.ReLU(), nn.Conv2d(4, 6, 1))
        self.stem = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = self.body(x + self.up(nn.functional.max_pool2d(x, 2)))
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def mixed() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = Mixed().eval()
    model.stem.weight.data[:, :, 0] = 0
    return model, torch.randn(1, 3, 8, 8)


def test_every_layer_is_decided_once_in_program_order(mixed: Any) -> None:
    model, x = mixed
    imported = load_model(model, example=(x,))
    decisions = decisions_of(run(imported.module, HOST))
    assert [decision.name for decision in decisions] == ["stem", "up", "body.0", "body.2", "head"]
    assert [decision.op for decision in decisions] == ["conv2d", "conv2d_transpose", "conv2d", "conv2d", "linear"]
    assert not [decision.name for decision in decisions if decision.choice == "tvm"]
    assert decisions[0].density == pytest.approx(2 / 3)
    for decision in decisions:
        assert decision.reason
        assert Decision.from_json(json.loads(json.dumps(decision.to_json()))) == decision


def test_dense_ignores_zeros(mixed: Any) -> None:
    model, x = mixed
    imported = load_model(model, example=(x,))
    decisions = decisions_of(run(imported.module, HOST, dense=True))
    assert {decision.structure for decision in decisions} == {"dense"}
    assert all(decision.reason.endswith("dense was asked for") for decision in decisions)
    names = [name for name, _ in phases(HOST, dense=True)]
    before, behind = ["transposed", "special numbers"], ["legalise", "schedule", "calls", "memory"]
    assert names == [*before, "lower", "resizes", "norms", "rows", *behind]


@pytest.mark.host
def test_the_compiled_model_and_its_manifest(mixed: Any, tmp_path: Path) -> None:
    model, x = mixed
    compiled = compile_model(load_model(model, example=(x,)))
    with torch.no_grad():
        expected = model(x).numpy()
    (result,) = compiled.run(x.numpy()).values()
    assert np.abs(result - expected).max() <= 1e-5 * np.abs(expected).max()
    library = compiled.export(tmp_path / "model.so")
    assert read_manifest(library) == compiled.manifest
    assert compiled.explain()["layers"][0]["name"] == "stem"

    data = library.read_bytes()
    start = data.index(MARK) + len(MARK)
    broken = tmp_path / "broken.so"
    for damage in (data[:start] + b"x" * 12 + data[start + 12 :], data[: start + 40], data[:start]):
        broken.write_bytes(damage)
        with pytest.raises(PconvgenError, match="the manifest is damaged"):
            read_manifest(broken)


@pytest.mark.host
def test_the_pass_works_in_a_pipeline_of_tvm() -> None:
    """A module that our front ends did not make: no layer names, results that are not the last binding."""

    def body(emit: Any, x: Any) -> Any:
        y = emit(NN.relu(emit(relax.op.add(emit(conv(x)), BIAS))))
        pooled = emit(relax.op.reshape(emit(relax.op.mean(y, [2, 3])), (1, 4)))
        return y, relax.op.matmul(pooled, weight(4, 2))

    module = module_of(body)
    pipeline = tvm.transform.Sequential([LowerLayers(HOST), relax.get_pipeline("zero")])
    lowered = pipeline(module)
    assert DECISIONS in lowered.attrs
    assert [decision.op for decision in decisions_of(lowered)] == ["conv2d", "linear"]
    names = {binding.var.name for binding in main_bindings(module)}
    assert all(decision.name in names for decision in decisions_of(lowered))
    x = tvm.runtime.tensor(RNG.standard_normal((1, 3, 8, 8)).astype(np.float32))
    ours, theirs = (
        relax.VirtualMachine(tvm.compile(m, target="llvm"), tvm.cpu())["main"](x)
        for m in (lowered, relax.get_pipeline("zero")(module))
    )
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our.numpy(), their.numpy(), rtol=1e-4, atol=1e-5)
