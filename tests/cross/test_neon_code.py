"""Machine code of default kernels, looked at without running it: registers hold what the schedule says they hold.

A kernel that spills or that LLVM did not vectorise still computes the right numbers, so no other test would notice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import tvm

from pconvgen.planning.search import rank
from pconvgen.schedules.cores import CORES
from pconvgen.sparsity import STRUCTURES, encode, project
from pconvgen.targets.presets import get_target
from pconvgen.templates.choice import Choice
from pconvgen.templates.family import DIRECT, instantiate
from pconvgen.templates.instance import Instance
from pconvgen.templates.pixels.kernel import PixelKernel, block_tiles
from pconvgen.templates.pixels.products import ENTRIES
from pconvgen.tvm_compat.building import compile_module
from pconvgen.tvm_compat.llvm import llvm_target
from pconvgen.values.core import Core
from pconvgen.values.precision import FLOAT32, Precision, precision
from pconvgen.values.workload import ConvWorkload

pytestmark = pytest.mark.cross

PADDED = (1, 1, 1, 1)
CONV = ConvWorkload(1, 128, 28, 28, 128, (3, 3), padding=PADDED)
POINTWISE = ConvWorkload(1, 128, 28, 28, 128, (1, 1))
DEPTHWISE = ConvWorkload(1, 128, 28, 28, 128, (3, 3), padding=PADDED, groups=128)
DEPTHWISE7 = ConvWorkload(1, 128, 28, 28, 128, (7, 7), padding=(3, 3, 3, 3), groups=128)
DOWNSAMPLING = ConvWorkload(1, 128, 56, 56, 128, (3, 3), (2, 2), PADDED, groups=128)

CODE_PER_FMA = {
    "simd_block(4)": 1.27,
    "simd_block(8)": 1.27,
    "simd_block(4), whole kernels": 1.23,
    "block_punched": 1.25,
    "pattern": 1.62,
    "unstructured": 1.8,
    "dense": 1.23,
    "1x1 simd_block(4)": 1.27,
    "depthwise": 1.45,
    "depthwise, stride 2": 1.64,
    "depthwise 7x7": 1.6,
}
"""Instructions of the hot block for each of its FMAs, at most. Loads that do not pair cost 0.1 to 0.5."""


@dataclass(frozen=True)
class Case:
    """A layer, the structure of its weight, the density and parameters of that structure."""

    workload: ConvWorkload
    structure: str
    density: float = 0.25
    params: tuple[tuple[str, Any], ...] = ()


CASES = {
    "simd_block(4)": Case(CONV, "simd_block", params=(("n", 4),)),
    "simd_block(8)": Case(CONV, "simd_block", params=(("n", 8),)),
    "simd_block(4), whole kernels": Case(CONV, "simd_block", params=(("n", 4), ("whole_kernel", True))),
    "block_punched": Case(CONV, "block_punched", params=(("filters", 8), ("channels", 4))),
    "pattern": Case(CONV, "pattern"),
    "unstructured": Case(CONV, "unstructured"),
    "dense": Case(CONV, "dense"),
    "1x1 simd_block(4)": Case(POINTWISE, "simd_block", params=(("n", 4),)),
    "depthwise": Case(DEPTHWISE, "dense"),
    "depthwise, stride 2": Case(DOWNSAMPLING, "dense"),
    "depthwise 7x7": Case(DEPTHWISE7, "dense"),
}


def default_kernel(case: Case, core: Core, formats: Precision = FLOAT32) -> tuple[Choice, Instance]:
    """The kernel that a compilation takes once it has decided for the structure."""
    w, params = replace(case.workload, precision=formats), dict(case.params)
    weight = np.random.default_rng(0).standard_normal(w.weight_shape).astype(np.float32)
    pruned = project(case.structure, weight, case.density, groups=w.groups, **params)
    found = STRUCTURES[case.structure].detect(pruned, w.groups)
    found = tuple(c for c in found if params.items() <= dict(c.params).items())
    choice = rank(w, found, core, families=DIRECT)[0]
    encoding = encode(pruned, choice.candidate, w.groups, choice.max_group)
    return choice, instantiate(w, encoding, choice.schedule, core.isa, choice.places)


def largest_tile(instance: Instance) -> int:
    """Vectors of the largest tile."""
    kernel = instance.kernel
    assert isinstance(kernel, PixelKernel)
    return max(len(run.vectors) for run in block_tiles(kernel.workload, kernel.schedule, kernel.isa, kernel.source))


def assembly(instance: Instance, target: Any) -> str:
    module = tvm.IRModule({"kernel": instance.kernel.build().with_attr("global_symbol", "kernel")})
    return str(compile_module(module, target).mod.inspect_source("asm"))


def basic_blocks(text: str, branch: str) -> list[list[str]]:
    """Instructions between labels and branches; `branch` is the pattern of a branch, comments are left out."""
    blocks: list[list[str]] = [[]]
    for raw in text.splitlines():
        line = re.sub(r"\s+", " ", re.split(r"//|\t# ", raw)[0].strip())
        if re.match(r"[\w.$]+:", line):
            blocks.append([])
        elif line and not line.startswith((".", "#")):
            blocks[-1].append(line)
            if re.match(branch, line):
                blocks.append([])
    return blocks


def grep(lines: Iterable[str], pattern: str) -> list[str]:
    return [line for line in lines if re.search(pattern, line)]


def hot_block(blocks: list[list[str]], fma: str) -> list[str]:
    """The block with most multiply-accumulates: the loop over entries of the largest tile."""
    return max(blocks, key=lambda block: len(grep(block, fma)))


def loaded_vectors(block: list[str]) -> int:
    """q registers that AArch64 code loads, broadcasts included; a pair counts twice."""
    return len(grep(block, r"^ld(r|ur|1r?) \{? ?[qv]")) + 2 * len(grep(block, r"^ldp q"))


SPILL = r"^(ld|st)\w* .*[qv]\d.*\[sp\b"


@pytest.mark.parametrize("name", CASES)
def test_neon_kernel_keeps_its_tile_in_registers(name: str) -> None:
    case, target = CASES[name], get_target("cortex-a76")
    choice, instance = default_kernel(case, target.core)
    blocks = basic_blocks(assembly(instance, llvm_target(target)), r"(b|b\.\w+|br|cbn?z|tbn?z|ret)\b")
    hot = hot_block(blocks, "^fmla ")
    fmas = grep(hot, "^fmla ")
    said = f"{choice.candidate} {choice.schedule}"

    group, taps = instance.kernel.group, len(instance.kernel.bodies[0])
    vectors = largest_tile(instance)
    entries = ENTRIES if taps == 1 else 1
    assert len(fmas) == entries * group * taps * vectors, f"{said}: FMAs of one round and the largest tile"

    everything = [line for block in blocks for line in block]
    busy = [line for block in blocks if len(grep(block, "^fmla ")) > 4 for line in block]
    offending = {
        "scalar arithmetic": grep(everything, r"^(fmadd|fmul|fadd) s\d"),
        "FMAs of other than four lanes": grep(everything, r"^fmla (?!v\d+\.4s, )"),
        "FMAs not by element": grep(fmas, r", v\d+\.4s$") if group >= 4 else [],
        "spills": grep(busy, SPILL),
        "stores among the FMAs": grep(hot, "^st"),
    }
    assert not any(offending.values()), f"{said}: { {what: lines for what, lines in offending.items() if lines} }"

    weights = entries * taps * group
    planned = entries * taps * vectors + weights // 4 + weights % 4
    loads = loaded_vectors(hot)
    assert 0 < loads <= planned, f"{said}: {loads} vectors loaded, {planned} planned:\n" + "\n".join(hot)
    share = len(hot) / len(fmas)
    assert share <= CODE_PER_FMA[name], f"{said}: {share:.2f} instructions for an FMA:\n" + "\n".join(hot)


HALF_CODE_PER_FMA = CODE_PER_FMA | {"simd_block(4), whole kernels": 1.25, "pattern": 1.75, "depthwise 7x7": 2.1}
STRIDED = "depthwise, stride 2"
"""Shuffles of strided loads take registers that the schedule does not count."""


@pytest.mark.parametrize("name", [name for name in CASES if name != STRIDED])
def test_half_precision_kernel_keeps_its_tile_in_registers(name: str) -> None:
    case, target = CASES[name], get_target("cortex-a76")
    choice, instance = default_kernel(case, target.core, precision("float16"))
    blocks = basic_blocks(assembly(instance, llvm_target(target)), r"(b|b\.\w+|br|cbn?z|tbn?z|ret)\b")
    hot = hot_block(blocks, "^fmla ")
    fmas = grep(hot, "^fmla ")
    said = f"{choice.candidate} {choice.schedule}:\n" + "\n".join(hot)

    group, taps = instance.kernel.group, len(instance.kernel.bodies[0])
    vectors = largest_tile(instance)
    assert len(fmas) == (ENTRIES if taps == 1 else 1) * group * taps * vectors, said
    assert len(grep(fmas, r"^fmla v\d+\.8h, v\d+\.8h, v\d+\.h\[")) >= 0.85 * len(fmas), f"by element; {said}"
    everything = [line for block in blocks for line in block]
    assert not grep(everything, r"^(fmadd|fmul|fadd) h\d"), "scalar arithmetic"
    assert not grep(hot, r"^fcvt"), f"conversions; {said}"
    assert not grep(hot, SPILL), f"spills; {said}"
    assert len(hot) / len(fmas) <= HALF_CODE_PER_FMA[name], said


@pytest.mark.parametrize("name", ["simd_block(8)", "block_punched", "unstructured", "depthwise"])
def test_weights_are_widened_once_a_vector(name: str) -> None:
    case, target = CASES[name], get_target("cortex-a76")
    _, instance = default_kernel(case, target.core, precision("float16", accumulate="float32"))
    blocks = basic_blocks(assembly(instance, llvm_target(target)), r"(b|b\.\w+|br|cbn?z|tbn?z|ret)\b")
    hot = hot_block(blocks, "^fmla ")
    weights = (ENTRIES if len(instance.kernel.bodies[0]) == 1 else 1) * len(instance.kernel.bodies[0])
    weights *= instance.kernel.group
    assert 0 < len(grep(hot, "^fcvt")) <= -(-weights // 4) + 3
    assert not grep(hot, SPILL)


@pytest.mark.parametrize("name", ["simd_block(8)", "block_punched", "pattern", "dense", "depthwise"])
def test_avx512_kernel_keeps_its_tile_in_registers(name: str) -> None:
    case = CASES[name]
    choice, instance = default_kernel(case, replace(CORES["avx512"], l2_kib=1024))
    target = tvm.target.Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "skylake-avx512"})
    blocks = basic_blocks(assembly(instance, target), r"(j\w+|retq?)\b")
    hot = hot_block(blocks, r"^vfmadd\w+ps ")
    said = f"{choice.candidate} {choice.schedule}"

    group, taps = instance.kernel.group, len(instance.kernel.bodies[0])
    vectors = largest_tile(instance)
    fmas = grep(hot, r"^vfmadd\w+ps .*%[yz]mm\d+$")
    assert len(fmas) == group * taps * vectors, said
    spills = grep(hot, r"\(%rsp\).*%[xyz]mm|%[xyz]mm.*\(%rsp\)")
    # Of nine weights some become memory operands, which is faster than smaller tiles (measured).
    assert len(spills) <= (len(fmas) // 3 if group == 1 else 0), f"{said}: spills\n" + "\n".join(spills)
    stores = grep(hot, r"^vmov\w+ %[xyz]mm\d+, .*\(")
    assert set(stores) <= set(spills), f"{said}: stores among the FMAs\n" + "\n".join(stores)


@pytest.mark.parametrize("name", CASES)
def test_armv7a_kernel_keeps_its_tile_in_registers(name: str) -> None:
    case, target = CASES[name], get_target("cortex-a7")
    choice, instance = default_kernel(case, target.core)
    text = re.sub("@.*", "", assembly(instance, llvm_target(target)))
    blocks = basic_blocks(text, r"(b|b\w\w|bx|pop)\b")
    hot = hot_block(blocks, r"^vfma\.f32 q")
    fmas = grep(hot, r"^vfma\.f32 q")
    said = f"{choice.candidate} {choice.schedule}"

    group, taps = instance.kernel.group, len(instance.kernel.bodies[0])
    vectors = largest_tile(instance)
    assert len(fmas) == group * taps * vectors, f"{said}: FMAs of one entry and the largest tile"
    everything = [line for block in blocks for line in block]
    offending = {
        "scalar arithmetic": grep(everything, r"^v(fma|mla|mul|add)\.f32 s\d"),
        "separate multiplication and addition": grep(hot, r"^v(mul|add|mla)\.f32"),
        "calls among the FMAs": grep(hot, r"^blx?\b"),
        "64-bit division": grep(everything, r"^bl \w*(div|mod)\w*$"),
    }
    assert not any(offending.values()), f"{said}: { {what: lines for what, lines in offending.items() if lines} }"
    stores = grep(hot, "^vst")
    # Addresses of several planes and nine taps are more than there are registers for; fewer accumulators cost more.
    planes = case.workload.stride != (1, 1) or instance.kernel.source.own_columns
    allowed = len(fmas) // 16 if planes else 0
    assert len(stores) <= allowed, f"{said}: spills or stores\n" + "\n".join(stores)
    assert len(grep(hot, "^vld")) <= taps * (vectors + group) + 2 * allowed, said
    copies = grep(hot, r"^v(orr|mov) ")
    assert len(copies) <= len(fmas) // 16, f"{said}: copies of registers\n" + "\n".join(copies)
