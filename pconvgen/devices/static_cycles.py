"""Cycles that LLVM's static model of a core estimates for counted code: llvm-mca over the blocks that ran.

These are estimates: every load hits the first cache, every branch is predicted, a block follows itself. They rank
kernels by how their instructions fit a core's pipelines, which a count alone does not say.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections import Counter

from pconvgen.devices.counts import Block, Span
from pconvgen.devices.process import run_child
from pconvgen.errors import PconvgenError

MODELS = {
    "cortex-a53": "cortex-a53",
    "cortex-a55": "cortex-a55",
    "cortex-a72": "cortex-a57",
    "cortex-a76": "neoverse-n1",
    "cortex-a78": "neoverse-n1",
    "cortex-x1": "neoverse-v1",
    "neoverse-n1": "neoverse-n1",
}
"""Core and the scheduling model it is estimated with, where LLVM has none of its own: N1 and V1 are the A76 and the X1
for servers, and the A78 has the A76's vector pipelines."""
SMALLEST = "cortex-a55"
"""The model of whatever runs on every phone."""

VERSIONS = range(40, 15, -1)
"""LLVM's releases with a model of the Neoverse N1, the newest first."""
COVERED = 0.995
"""Share of the executed instructions that are estimated; the rest is scaled up."""
ITERATIONS = 64
SEPARATOR = 0xD43FFFE0
"""brk #0xffff, which nothing executes: stands between the blocks when they are disassembled."""
BRANCH = 5
"""Bits 26 to 28 of branches and calls."""


def model_of(cpu: str) -> str:
    """The scheduling model for a processor, by LLVM's name of it."""
    return MODELS.get(cpu, SMALLEST)


def find_tools() -> tuple[str, str]:
    """Paths of llvm-mc and llvm-mca of one release.

    Raises
    ------
    PconvgenError: there is none that is new enough.
    """
    for version in VERSIONS:
        tools = tuple(shutil.which(f"{name}-{version}") for name in ("llvm-mc", "llvm-mca"))
        if tools[0] and tools[1]:
            return tools[0], tools[1]
    raise PconvgenError(
        "no llvm-mca with a model of these cores",
        expected=f"llvm-mca-{VERSIONS[-1]} or newer",
        remedy="apt-get install llvm-19",
    )


def estimate(span: Span, model: str) -> float:
    """Cycles of a span on the core with that scheduling model.

    Raises
    ------
    PconvgenError: the tools are missing or fail.
    """
    mc, mca = find_tools()
    hot, covered = _hot(span)
    codes = list(hot)
    texts = _disassemble(codes, mc)
    regions = "".join(
        f"# LLVM-MCA-BEGIN {index}\n{text}\n# LLVM-MCA-END\n" for index, text in enumerate(texts) if text.strip()
    )
    options = ["-mtriple=aarch64", f"-mcpu={model}", "-mattr=+all", f"-iterations={ITERATIONS}"]
    options += ["-instruction-info=0", "-resource-pressure=0", "-skip-unsupported-instructions=any"]
    done = subprocess.run([mca, *options], input=regions, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise PconvgenError("llvm-mca failed", found=done.stderr.strip()[-800:])
    cycles = 0.0
    for report in re.split(r"\n(?=\[\d+\] Code Region)", done.stdout):
        region, total = re.search(r"Code Region - (\d+)", report), re.search(r"Total Cycles:\s+(\d+)", report)
        if region and total:
            cycles += hot[codes[int(region[1])]] * int(total[1]) / ITERATIONS
    return cycles / covered


@functools.cache
def version() -> str | None:
    """Such as LLVM version 19.1.7; None where there is no llvm-mca that is new enough."""
    try:
        printed = run_child([find_tools()[1], "--version"], "llvm-mca", timeout_s=30)
    except PconvgenError:
        return None
    found = re.search(r"LLVM version \S+", printed)
    return found[0] if found else None


def _hot(span: Span) -> tuple[dict[tuple[int, ...], int], float]:
    """Runs of the code that makes up most of a span, and the share that it makes up."""
    runs: Counter[tuple[int, ...]] = Counter()
    for block in _glued(span.blocks):
        runs[block.code] += block.runs
    total = sum(len(code) * count for code, count in runs.items())
    chosen, executed = {}, 0
    for code, count in sorted(runs.items(), key=lambda item: -len(item[0]) * item[1]):
        chosen[code] = count
        executed += len(code) * count
        if executed >= COVERED * total:
            break
    return chosen, executed / total


def _glued(blocks: tuple[Block, ...]) -> list[Block]:
    """The blocks, with those joined that the emulator cut only because they are long."""
    merged: Counter[tuple[int, tuple[int, ...]]] = Counter()
    for block in blocks:
        merged[block.address, block.code] += block.runs
    glued: list[Block] = []
    for (address, code), runs in sorted(merged.items()):
        last = glued[-1] if glued else None
        follows = last is not None and last.address + 4 * len(last.code) == address and last.runs == runs
        if last is not None and follows and last.code[-1] >> 26 & 7 != BRANCH:
            glued[-1] = Block(runs, last.address, last.code + code)
        else:
            glued.append(Block(runs, address, code))
    return glued


def _disassemble(codes: list[tuple[int, ...]], mc: str) -> list[str]:
    """The assembly of each block."""
    words = [word for code in codes for word in (*code, SEPARATOR)]
    data = " ".join(f"0x{byte:02x}" for word in words for byte in word.to_bytes(4, "little"))
    command = [mc, "--disassemble", "-triple=aarch64", "-mattr=+all"]
    done = subprocess.run(command, input=data, capture_output=True, text=True, timeout=600, check=False)
    texts = re.split(r"\s*brk\s+#0xffff\s*\n", done.stdout)[:-1]
    if len(texts) != len(codes):
        raise PconvgenError("llvm-mc failed", found=done.stderr.strip()[-800:])
    return [text.replace(".text", "") for text in texts]
