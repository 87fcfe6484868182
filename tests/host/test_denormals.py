"""Within kernels no operation takes or gives a denormal number; outside, threads compute as they did before."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from tvm import tirx

import pconvgen
from pconvgen.affinity import usable_cores
from pconvgen.tvm_compat.building import compile_module
from pconvgen.tvm_compat.denormals import FlushDenormals
from pconvgen.tvm_compat.pipeline import CPU_PIPELINE
from pconvgen.tvm_compat.tir import T, prim_func
from tests.denormals import FLUSH, HOST, LOOPS, TO_ZERO, answer, build, flushed, in_mode, kernel, mode, operands

pytestmark = pytest.mark.host

two_cores = pytest.mark.skipif(usable_cores() < 2, reason="one core has no pool of threads")


@pytest.mark.parametrize("bits", [0, FLUSH, TO_ZERO])
@pytest.mark.parametrize("loops", LOOPS)
def test_the_caller_gets_its_mode_back(loops: str, bits: int) -> None:
    library = build(loops, HOST)
    with in_mode(bits):
        before, found, after = mode(), answer(library["kernel"]), mode()
    assert before == after
    assert (before & bits) == bits
    np.testing.assert_array_equal(found, flushed())
    assert (np.signbit(found) == np.signbit(operands())).all()


@two_cores
@pytest.mark.parametrize("loops", LOOPS)
def test_threads_of_the_pool_flush_and_get_their_mode_back(loops: str) -> None:
    program = f"""
import numpy as np, tvm
from tests.denormals import HOST, answer, build, kernel
library = build({loops!r}, HOST)
# As TVM compiles it, and divided over the same threads.
exact = tvm.compile(tvm.IRModule({{"kernel": kernel("parallel")}}), HOST)["kernel"]
for function in (exact, library["kernel"], exact):
    print(*np.unique(np.abs(answer(function)).view(np.uint32)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TVM_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    exact, found, after = (np.array(line.split(), np.uint32).view(np.float32) for line in done.stdout.splitlines())
    np.testing.assert_array_equal(found, [0, 1])
    for denormal in (exact, after):
        assert denormal.size == 3, "denormal numbers are there where nothing flushes them"


def test_failed_checks_of_arguments_leave_the_mode() -> None:
    """Libraries go without them; whoever builds kernels alone may not."""
    with tvm.target.Target(HOST):
        library = tirx.build(tvm.IRModule({"kernel": kernel("parallel")}), target=HOST, pipeline=CPU_PIPELINE)
    wrong = tvm.runtime.tensor(np.zeros((1, 1), "float32"))
    before = mode()
    with pytest.raises(ValueError, match="Mismatched"):
        library["kernel"](wrong, wrong)
    assert mode() == before
    np.testing.assert_array_equal(answer(library["kernel"]), flushed())
    assert mode() == before


def test_functions_that_kernels_call_have_the_callers_mode_also_if_they_fail() -> None:
    seen = []

    @tvm.register_global_func("tests.denormals.fails", override=True)
    def fails() -> None:
        seen.append(mode())
        raise ValueError("on purpose")

    with prim_func("kernel") as get:
        data = T.arg("data", T.buffer((8,), "float32"))
        with T.serial(0, 8) as i:
            T.buffer_store(data, data[i] * T.float32(2.0**20), [i])
        T.evaluate(T.call_packed("tests.denormals.fails"))
        T.buffer_store(data, T.float32(7), [0])
    library = compile_module(tvm.IRModule({"kernel": get().with_attr("global_symbol", "kernel")}), HOST)
    values = tvm.runtime.tensor(np.full(8, 2.0**-145, "float32"))
    before = mode()
    with pytest.raises(ValueError, match="on purpose"):
        library["kernel"](values)
    assert seen == [before] == [mode()]
    np.testing.assert_array_equal(values.numpy(), np.zeros(8))


def test_returns_from_the_middle_switch_back() -> None:
    """As where memory runs out: what is between switching and switching back twice returns only behind a switch."""
    memory = tirx.decl_buffer((8,), "float32", "memory")
    fail = tirx.Evaluate(T.tvm_throw_last_error())
    store = tirx.BufferStore(memory, T.float32(1), [0])
    body = tirx.SeqStmt([tirx.IfThenElse(memory[0] > T.float32(0), fail, None), store])
    scope = tirx.AttrStmt(0, "compute_scope", tvm.ir.StringImm("kernel_compute_"), body)
    function = tirx.PrimFunc([memory], scope).with_attr("target", HOST)
    text = FlushDenormals()(tvm.IRModule({"kernel": function}))["kernel"].script()
    lines = [line.strip() for line in text.splitlines()]
    throw = next(number for number, line in enumerate(lines) if "tvm_throw_last_error" in line)
    last = [line for line in lines if "llvm." in line][-1]
    assert lines[throw - 1] == last, text
    assert lines.count(last) == 2


class Net(nn.Module):
    """Functions that make denormal numbers on the way to their own result, behind a layer that many threads share."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(16, 16, 1)
        nn.init.constant_(self.layer.weight, 2.0**20)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.layer(x), torch.sigmoid(self.layer(x) - 88), torch.softmax(x - 100 * (x > 1), 1)


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=two_cores)])
def test_networks(threads: int) -> None:
    x = torch.full((1, 16, 64, 64), 2.0**-145)
    x[:, 0] = 2
    compiled = pconvgen.compile(Net().eval(), example=(x,))
    small = x.clone()
    small[:, 0] = 2.0**-149
    product, sigmoid, softmax = compiled.run(small.numpy(), threads=threads).values()
    assert (product == 0).all(), "products of denormal inputs"
    assert (sigmoid == 0).all(), "exp(-88) and smaller"
    np.testing.assert_allclose(softmax, 1 / 16, rtol=1e-6)
    assert (compiled.run(x.numpy(), threads=threads)[compiled.manifest.outputs[2][0]][:, 0] == 0).all()
