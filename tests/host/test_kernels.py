"""Every template, encoding and schedule against PyTorch, over random layers."""

from __future__ import annotations

import numpy as np
import pytest

from pconvgen.schedules import ISAS
from pconvgen.schedules.default import schedules
from pconvgen.targets.host import cpu_flags
from tests.layers import TOLERANCE, all_candidates, error, instance_of, random_layer, run_instances

tvm = pytest.importorskip("tvm")
pytestmark = pytest.mark.host

# Enough for each ISA of x86; the host's own flags say which of them it can run.
CPUS = {"avx2": ("haswell", {"avx2", "fma"}), "avx512": ("skylake-avx512", {"avx512f", "avx512vl"})}
BATCH = 40


def _flags() -> frozenset[str]:
    with open("/proc/cpuinfo") as file:
        return cpu_flags(file.read())


@pytest.mark.parametrize("isa", CPUS)
@pytest.mark.parametrize("seed", range(6))
def test_random_layers(isa: str, seed: int) -> None:
    cpu, needs = CPUS[isa]
    if not needs <= _flags():
        pytest.skip(f"this processor has no {isa}")
    rng = np.random.default_rng([seed, list(CPUS).index(isa)])
    layers, instances, told = [], [], []
    for _ in range(BATCH):
        layer = random_layer(rng)
        # Not the best encoding and schedule: any legal one must be right.
        found = all_candidates(layer)
        candidate = found[rng.integers(len(found))]
        legal = list(schedules(layer.workload, candidate, ISAS[isa], l2_kib=int(rng.choice([16, 64, 1024]))))
        max_group, _, schedule = legal[rng.integers(len(legal))]
        layers.append(layer)
        instances.append(instance_of(layer, candidate, max_group, schedule, ISAS[isa]))
        told.append(f"{layer.workload} {candidate} {schedule}")
    outputs = run_instances(layers, instances, tvm.target.Target({"kind": "llvm", "mcpu": cpu}))
    for layer, output, text in zip(layers, outputs, told, strict=True):
        assert error(layer, output) <= TOLERANCE, text
