"""Machine code of activations: vector instructions, and no calls, neither of a library nor of functions of TVM's."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import tvm

from pconvgen.schedules.cores import CORES
from pconvgen.targets.presets import get_target
from pconvgen.tvm_compat.llvm import llvm_target
from pconvgen.values.workload import ConvWorkload, Epilogue
from tests.activations import ACTIVATIONS
from tests.cross.test_neon_code import CONV, POINTWISE, Case, assembly, basic_blocks, default_kernel, hot_block

pytestmark = pytest.mark.cross

LINEAR = ConvWorkload(3, 256, 1, 1, 128, (1, 1))
TARGETS = {
    "neon": llvm_target(get_target("cortex-a76")),
    "avx2": tvm.target.Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "haswell"}),
    "avx512": tvm.target.Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "skylake-avx512"}),
}
VECTOR_DIVISION = {"neon": r"^\tfdiv\tv\d+\.4s", "avx2": r"^\tvdivps\t.*%ymm\d+$", "avx512": r"^\tvdivps\t.*%zmm\d+$"}
SCALAR_DIVISION = r"^\t(fdiv\ts|vdivss)"
CALL = r"^\t(?:callq?|blr?|(?:jmpq?|b)\t(?!\.LBB))\b.*"
"""A call, or a jump out of the function."""
MULTIPLY_ADD = r"^\t(?:fmla|fmadd|vfmadd\w+)\t"

CASES = {"in place": (POINTWISE, "simd_block"), "rows": (CONV, "pattern"), "linear": (LINEAR, "dense")}


def code_of(workload: ConvWorkload, structure: str, activation: str, isa: str) -> str:
    """The function with all the arithmetic of the kernel, which threads share."""
    epilogue = Epilogue(bias=True, residual=True, activation=ACTIVATIONS[activation][0])
    _, instance = default_kernel(
        Case(replace(workload, epilogue=epilogue), structure), replace(CORES[isa], l2_kib=1024)
    )
    functions = assembly(instance, TARGETS[isa]).split(".cfi_startproc")
    (code,) = (code for code in functions if found(MULTIPLY_ADD, code))
    return code


def found(pattern: str, code: str) -> list[str]:
    return [match.group() for match in re.finditer(pattern, code, re.MULTILINE)]


@pytest.mark.parametrize("isa", TARGETS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("activation", ["sigmoid", "silu"])
def test_whole_vectors_and_no_calls(case: str, activation: str, isa: str) -> None:
    code = code_of(*CASES[case], activation, isa)
    # The scratch tile of the rows is allocated by calls, with any activation.
    assert (
        len(found(CALL, code)) == len(found(CALL, code_of(*CASES[case], "relu", isa))) <= (2 if case == "rows" else 0)
    )
    assert found(VECTOR_DIVISION[isa], code)
    assert not found(SCALAR_DIVISION, code)


CHOOSING = r"^\t(fcm\w+|bsl|bi[ft]|vcmp\w+|vblend\w+)\t"
"""Comparisons of floats in vectors, and choices by them."""


@pytest.mark.parametrize("isa", TARGETS)
@pytest.mark.parametrize("case", ["rows", "linear"])
@pytest.mark.parametrize("activation", ["relu", "clip", "leaky relu"])
def test_handing_nan_on_costs_activations_nothing(activation: str, case: str, isa: str) -> None:
    code = code_of(*CASES[case], activation, isa)
    assert found(r"^\t(fmax|fmaxnm|vmaxps)\t", code)
    assert not found(CHOOSING, code)


@pytest.mark.parametrize("case", CASES)
def test_the_loop_over_entries_keeps_its_registers(case: str) -> None:
    """A tile's vectors may go to memory for the activation, once, but not where they are accumulated."""
    loop = hot_block(
        basic_blocks(code_of(*CASES[case], "silu", "neon"), r"(b|b\.\w+|cbn?z|tbn?z|ret)\b"), "^fmla .*\\["
    )
    assert len(found("^fmla .*\\[", "\n".join(loop))) >= 8
    assert not found(r"\[sp\b", "\n".join(loop))


@pytest.mark.parametrize("isa", TARGETS)
@pytest.mark.parametrize("activation", ["sigmoid", "hard swish", "quotient"])
def test_single_outputs_need_no_calls(activation: str, isa: str) -> None:
    assert not found(CALL, code_of(LINEAR, "unstructured", activation, isa))


def test_calls_would_be_seen() -> None:
    for line in ("callq\texpf@PLT", "callq\t*(%rax)", "jmp\texpf@PLT", "bl\texpf", "b\texpf", "blr\tx8", "call\t.Lexp"):
        assert found(CALL, f"\t{line}"), line
    for line in ("jmp\t.LBB3_2", "b\t.LBB3_2", "b.ne\t.LBB3_2", "jne\t.LBB3_2", "bic\tv0.16b, v1.16b, v2.16b"):
        assert not found(CALL, f"\t{line}"), line
