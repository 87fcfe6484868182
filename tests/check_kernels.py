"""Checks random kernels in a process of their own, which a bad one may end.

python -m tests.check_kernels pixels avx512 0 40    # workloads 0 to 39
python -m tests.check_kernels pixels avx512 17      # one
python -m tests.check_kernels pixels avx512 0 40 weights=float16
"""

from __future__ import annotations

import signal
import sys

from pconvgen.schedules.cores import CORES

# LLVM's name of a processor for each ISA that this machine may have, and for cores whose code is to be that of their
# own; and the flags by which the kernel tells that this machine can stand for it.
_PROCESSORS: dict[str, tuple[str, frozenset[str]]] = {
    "neon": ("generic", frozenset({"asimd"})),
    "avx2": ("haswell", frozenset({"avx2", "fma", "bmi1", "bmi2"})),
    "avx512": ("skylake-avx512", frozenset({"avx512f", "avx512vl", "avx512bw", "avx512dq", "avx512cd"})),
    "avx512-zen4": ("znver4", frozenset({"avx512f", "avx512_bf16", "avx512_vbmi2", "avx512_vpopcntdq", "gfni"})),
}
CPUS = {
    name: _PROCESSORS.get(name, _PROCESSORS[core.isa.name])
    for name, core in CORES.items()
    if core.isa.name in _PROCESSORS
}
"""The processor that each core can be checked as."""
CHECKED = tuple(_PROCESSORS)
"""Cores that tests check: one for each instruction set, as code depends on nothing else, and processor of a kind."""


def command(template: str, isa: str, numbers: range, *formats: str) -> list[str]:
    """What checks these workloads."""
    which = [template, isa, str(numbers.start), str(len(numbers))]
    return [sys.executable, "-m", "tests.check_kernels", *which, *formats]


def main(template: str, isa: str, first: int, count: int = 1, **formats: str) -> int:
    """Exit code: 1 when a workload fails."""
    # Importing torch, which TVM does for its tensors' sake, takes longer than a dozen kernels.
    sys.modules["torch"] = None  # type: ignore[assignment]
    import tvm

    from pconvgen.values.precision import precision
    from tests.random_kernels import failures

    # TVM prints a symbolised stack, for half a minute, when a kernel crashes.
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT):
        signal.signal(number, signal.SIG_DFL)
    target = tvm.target.Target({"kind": "llvm", "mcpu": CPUS[isa][0]})
    failed = 0
    for which, problem in failures(template, isa, range(first, first + count), target, precision(**formats)):
        print(f"FAILED {template} {isa} {which}: {problem}", flush=True)
        failed += 1
    print(f"{count - failed} of {count} workloads are right")
    return int(failed > 0)


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[3:] if "=" not in text]
    sys.exit(main(sys.argv[1], sys.argv[2], *numbers, **dict(text.split("=") for text in sys.argv[3:] if "=" in text)))
