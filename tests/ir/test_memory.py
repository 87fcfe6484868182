"""The memory plan of "main": what lies in the arena, from when to when, and that kernels find it there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import tirx as T

from pconvgen.passes.memory import PlanMemory, lifetimes, memory_of
from pconvgen.targets.presets import get_target
from pconvgen.tvm_compat.allocations import is_kernel_call, straight_bindings
from pconvgen.tvm_compat.building import compile_module
from pconvgen.tvm_compat.llvm import llvm_target
from pconvgen.tvm_compat.lowering import call_kernels, legalise
from pconvgen.tvm_compat.relax import is_op
from tests.relax_modules import module_of

TARGET = llvm_target(get_target("host"))
SIZE = 24
X = np.arange(1, SIZE + 1, dtype="float32")
TENSOR = relax.TensorType((SIZE,), "float32")
NBYTES = 4 * SIZE


@T.prim_func(s_tir=True)
def double(a: T.Buffer((24,), "float32"), b: T.Buffer((24,), "float32")):
    T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, "op_pattern": 8})
    for i in range(24):
        with T.sblock("double"):
            j = T.axis.spatial(24, i)
            b[j] = a[j] * T.float32(2)


@T.prim_func(s_tir=True)
def write_half(a: T.Buffer((24,), "float32"), half: T.Buffer((1,), "int32"), b: T.Buffer((24,), "float32")):
    """Half of `b`, by its number, is that of `a` and one; the rest of `b` stays."""
    T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, "op_pattern": 8})
    for i in range(12):
        b[half[0] * 12 + i] = a[half[0] * 12 + i] + T.float32(1)


@T.prim_func(s_tir=True)
def both(a: T.Buffer((24,), "float32"), less: T.Buffer((24,), "float32"), more: T.Buffer((24,), "float32")):
    T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, "op_pattern": 8})
    for i in range(24):
        with T.sblock("both"):
            j = T.axis.spatial(24, i)
            less[j] = a[j] - T.float32(1)
            more[j] = a[j] + T.float32(1)


def module(body: Any) -> Any:
    """A module of one dataflow block in which `body(emit, x, double, write_half, both)` returns an expression."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", TENSOR)
    kernels = [builder.add_func(kernel, kernel.__name__) for kernel in (double, write_half, both)]
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(body(builder.emit, x, *kernels))
        builder.emit_func_output(result)
    return builder.finalize()


def lowered(source: Any) -> Any:
    return call_kernels(TARGET)(legalise(TARGET)(source))


def planned(source: Any) -> Any:
    return PlanMemory(get_target("host"))(lowered(source))


def run(source: Any, *inputs: np.ndarray, memory: bool) -> list[np.ndarray]:
    """The results of a module, with our plan or with TVM's."""
    executable = compile_module(planned(source) if memory else lowered(source), TARGET)
    machine = relax.VirtualMachine(executable, tvm.cpu())
    for _ in range(3):
        result = machine["main"](*(tvm.runtime.tensor(array) for array in inputs))
    return [result.numpy()] if hasattr(result, "numpy") else [part.numpy() for part in result]


def allocations(source: Any, kind: str) -> int:
    return sum(is_op(binding.value, kind) for binding in straight_bindings(source))


def spans(source: Any) -> list[tuple[int, int]]:
    """First and last kernel call, counted from 0, of each tensor in the arena."""
    module = lowered(source)
    steps = [i for i, binding in enumerate(straight_bindings(module)) if is_kernel_call(module, binding.value)]
    return [(steps.index(life.first), steps.index(life.last)) for life in lifetimes(module).values()]


def test_a_chain_needs_two_tensors() -> None:
    def body(emit: Any, x: Any, double: Any, *_: Any) -> Any:
        for _ in range(5):
            x = emit(relax.call_tir(double, [x], TENSOR))
        return x

    source = module(body)
    assert spans(source) == [(0, 1), (1, 2), (2, 3), (3, 4)], "the result is the caller's"
    memory = memory_of(planned(source))
    assert memory is not None
    assert (memory.nbytes, memory.live_nbytes) == (2 * 128, 2 * NBYTES)
    assert allocations(planned(source), "relax.memory.alloc_storage") == 1
    np.testing.assert_array_equal(run(source, X, memory=True)[0], X * 32)


def test_views_and_tuples_keep_their_tensors() -> None:
    def body(emit: Any, x: Any, double: Any, _: Any, both: Any) -> Any:
        pair = emit(relax.call_tir(both, [x], [TENSOR, TENSOR]))
        left, right = (emit(relax.TupleGetItem(pair, index)) for index in range(2))
        view = emit(relax.op.reshape(left, (4, 6)))
        for _ in range(3):
            x = emit(relax.call_tir(double, [x], TENSOR))
        return relax.Tuple([emit(relax.op.nn.softmax(view)), emit(relax.call_tir(double, [right], TENSOR)), x])

    source = module(body)
    assert allocations(lowered(source), "relax.reshape") == 1
    assert spans(source)[:2] == [(0, 5), (0, 5)], "a tuple keeps its tensors together"
    executable = compile_module(planned(source), TARGET)
    assert "vm.builtin.reshape" in executable.stats(), "a view stays a view"
    for mine, theirs in zip(run(source, X, memory=True), run(source, X, memory=False), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_kernels_that_write_parts_of_one_tensor() -> None:
    def inplace(emit: Any, kernel: Any, data: Any, half: int, out: Any) -> Any:
        number = relax.const(np.array([half], "int32"))
        return emit(relax.op.call_tir_inplace(kernel, [data, number, out], [2], TENSOR))

    def body(emit: Any, x: Any, double: Any, write_half: Any, _: Any) -> Any:
        buffer = emit(relax.call_tir(double, [x], TENSOR))
        buffer = inplace(emit, write_half, x, 0, buffer)
        between = x
        for _ in range(4):
            between = emit(relax.call_tir(double, [between], TENSOR))
        buffer = inplace(emit, write_half, between, 1, buffer)
        return emit(relax.call_tir(double, [buffer], TENSOR))

    source = module(body)
    assert spans(source)[0] == (0, 7), "one tensor under three names"
    assert len(spans(source)) == 5
    expected = np.concatenate([X[:12] + 1, X[12:] * 16 + 1]) * 2
    np.testing.assert_array_equal(run(source, X, memory=True)[0], expected)


def test_results_are_not_in_the_arena() -> None:
    def body(emit: Any, x: Any, double: Any, *_: Any) -> Any:
        first = emit(relax.call_tir(double, [x], TENSOR))
        second = emit(relax.call_tir(double, [first], TENSOR))
        return relax.Tuple([emit(relax.op.reshape(first, (4, 6))), second])

    source = module(body)
    assert not lifetimes(lowered(source))
    assert memory_of(planned(source)) is None
    first, second = run(source, X, memory=True)
    np.testing.assert_array_equal(first, (X * 2).reshape(4, 6))
    np.testing.assert_array_equal(second, X * 4)


def test_results_outlive_the_next_run() -> None:
    source = module(
        lambda emit, x, double, *_: relax.call_tir(double, [emit(relax.call_tir(double, [x], TENSOR))], TENSOR)
    )
    machine = relax.VirtualMachine(compile_module(planned(source), TARGET), tvm.cpu())
    first = machine["main"](tvm.runtime.tensor(X))
    second = machine["main"](tvm.runtime.tensor(X + 1))
    np.testing.assert_array_equal(first.numpy(), X * 4)
    np.testing.assert_array_equal(second.numpy(), X * 4 + 4)


def test_what_others_than_kernels_read_stays_with_tvm() -> None:
    def body(emit: Any, x: Any, double: Any, *_: Any) -> Any:
        mine = emit(relax.call_tir(double, [x], TENSOR))
        passed = emit(relax.call_dps_packed("test.memory.copy", [mine], TENSOR))
        return emit(relax.call_tir(double, [passed], TENSOR))

    @tvm.register_global_func("test.memory.copy", override=True)
    def _copy(source: Any, target: Any) -> None:
        target.copyfrom(source)

    source = module(body)
    assert not lifetimes(lowered(source))
    np.testing.assert_array_equal(run(source, X, memory=True)[0], X * 4)


def test_dynamic_shapes_stay_with_tvm() -> None:
    n = tvm.tirx.Var("n", "int64")
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((n, 4), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit(relax.op.nn.softmax(relax.op.add(x, x)))
            result = builder.emit_output(relax.op.nn.softmax(y))
        builder.emit_func_output(result)
    source = builder.finalize()
    assert not lifetimes(lowered(source))
    assert planned(source).same_as(source) or memory_of(planned(source)) is None
    data = np.random.default_rng(0).standard_normal((3, 4)).astype("float32")
    (mine,), (theirs,) = (run(source, data, memory=memory) for memory in (True, False))
    np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("seed", range(3))
def test_random_graphs_compute_what_tvm_computes(seed: int) -> None:
    """Shortcuts of random lengths, concats and layers of our own: any tensor that is overwritten too early shows."""
    rng = np.random.default_rng(seed)

    def body(emit: Any, x: Any) -> Any:
        values = [x]
        for _ in range(14):
            one, other = (values[i] for i in rng.integers(max(0, len(values) - 6), len(values), 2))
            kind = rng.integers(4)
            if kind == 0:
                made = relax.op.nn.softmax(one, axis=1)
            elif kind == 1:
                made = relax.op.add(
                    relax.op.nn.relu(one), relax.op.reshape(relax.op.reshape(other, (5, 60)), (1, 3, 10, 10))
                )
            elif kind == 2:
                made = relax.op.split(relax.op.concat([one, other], axis=1), 2, axis=1)
                made = emit(relax.TupleGetItem(emit(made), int(rng.integers(2))))
            else:
                made = relax.op.nn.max_pool2d(one, (3, 3), padding=(1, 1))
            values.append(emit(made))
        return tuple(values[-3:])

    source = module_of(body, 1, 3, 10, 10)
    memory = memory_of(planned(source))
    assert memory is not None
    assert memory.nbytes <= 1.2 * memory.live_nbytes
    data = rng.standard_normal((1, 3, 10, 10)).astype("float32")
    for mine, theirs in zip(run(source, data, memory=True), run(source, data, memory=False), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("target", "rows", "asks"), [("host", 1024, True), ("host", 64, False), ("cortex-a7", 1024, False)]
)
def test_a_large_arena_asks_for_huge_pages(target: str, rows: int, asks: bool) -> None:
    shape = (rows, 1024)
    kind = relax.TensorType(shape, "float32")
    builder = relax.BlockBuilder()
    x = relax.Var("x", kind)
    with builder.function("main", [x]):
        with builder.dataflow():
            y = x
            for _ in range(3):
                y = builder.emit(relax.op.nn.softmax(builder.emit(relax.op.negative(y))))
            result = builder.emit_output(y)
        builder.emit_func_output(result)
    module = PlanMemory(get_target(target))(lowered(builder.finalize()))
    assert ("advise" in [variable.name_hint for variable in module.get_global_vars()]) == asks
    if target == "host":
        machine = relax.VirtualMachine(compile_module(module, TARGET), tvm.cpu())
        data = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        expected = data
        for _ in range(3):
            powers = np.exp(-expected)
            expected = powers / powers.sum(1, keepdims=True)
        for _ in range(2):
            np.testing.assert_allclose(machine["main"](tvm.runtime.tensor(data)).numpy(), expected, rtol=1e-4)
