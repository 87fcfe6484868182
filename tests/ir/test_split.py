"""Which layers are split, padded or dense by predicted cost, and what `explain` says about it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tvm import relax

from pconvgen.matching.fused_ops import find_fused_ops
from pconvgen.passes.lower import LowerLayers, decisions_of
from pconvgen.planning.choose import layer_of
from pconvgen.schedules.cores import CORES
from pconvgen.sparsity import project
from pconvgen.sparsity.split import splits
from pconvgen.targets.presets import get_target
from pconvgen.tvm_compat.relax import constant_value, is_op
from pconvgen.tvm_compat.rewriting import main_bindings
from pconvgen.values.decision import Decision
from tests.mixtures import mixture
from tests.relax_modules import NN, calls, module_of

SHAPE = (64, 64, 3, 3)
SPLIT = "pixels: simd_block(4) + unstructured"
TARGETS = {
    "neon": get_target("cortex-a76"),
    "avx2": replace(get_target("host"), core=replace(CORES["avx2"], l2_kib=1024)),
    "avx512": replace(get_target("host"), core=replace(CORES["avx512-zen4"], l2_kib=1024)),
}


def lowered(weight: NDArray[np.float32], target: str = "avx512", size: int = 28, **options: Any) -> Any:
    """A module with one layer and a ReLU behind it."""
    channels = weight.shape[1] * options.get("groups", 1)

    def body(emit: Any, x: Any) -> Any:
        return NN.relu(emit(NN.conv2d(x, relax.const(weight), padding=weight.shape[2] // 2, **options)))

    return LowerLayers(TARGETS[target])(module_of(body, 1, channels, size, size))


def decided(weight: NDArray[np.float32], target: str = "avx512", size: int = 28, **options: Any) -> Decision:
    (decision,) = decisions_of(lowered(weight, target, size, **options))
    return decision


@cache
def mixed(seed: int = 0) -> NDArray[np.float32]:
    return mixture(SHAPE, 0.07, 0.05, seed=seed)


def pruned(structure: str, density: float, shape: tuple[int, ...] = SHAPE, **params: Any) -> NDArray[np.float32]:
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return project(structure, weight, density, **params)


def test_mixtures_are_split_and_say_why() -> None:
    decision = decided(mixed())
    assert decision.choice == SPLIT
    found = re.fullmatch(
        r"split (\d+) % / (\d+) %: (1\.\d\d)x fewer cycles than the best single encoding \(pixels: .*\)",
        decision.reason,
    )
    assert found is not None, decision.reason
    assert int(found[1]) + int(found[2]) == 100
    assert 50 < int(found[1]) < 65
    assert float(found[3]) >= 1.05


@pytest.mark.parametrize("target", ["avx2", "avx512"])
def test_a_split_is_predicted_to_be_faster_than_what_it_replaces(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = mixture((256, 256, 3, 3), 0.09, 0.045, n=8)
    split = decided(weight, target, size=14)
    monkeypatch.setattr("pconvgen.planning.choose.SPLIT_GAIN", np.inf)
    single = decided(weight, target, size=14)
    assert " + " in split.choice
    assert " + " not in single.choice
    assert split.predicted_cycles * 1.05 <= single.predicted_cycles  # type: ignore[operator]


@pytest.mark.parametrize("target", TARGETS)
def test_weights_of_one_structure_are_never_split(target: str) -> None:
    for density in (0.03, 0.1, 0.25, 0.5, 0.9):
        weights = [
            pruned("unstructured", density),
            pruned("simd_block", density, n=4),
            pruned("simd_block", density, n=8),
            pruned("pattern", min(density, 4 / 9)),
            pruned("filter", density),
        ]
        for number, weight in enumerate(weights):
            decision = decided(weight, target)
            assert " + " not in decision.choice, (number, density, decision)


def test_decisions_survive_json_and_count_both_parts() -> None:
    module = lowered(mixed())
    (decision,) = decisions_of(module)
    assert Decision.from_json(json.loads(json.dumps(decision.to_json()))) == decision
    assert decision.schedule is not None
    assert decision.schedule.keys() == {"blocks", "rest", "source", "target"}
    assert decision.structure == "unstructured"
    kernels = [
        [constant_value(arg) for arg in binding.value.args[1]]
        for binding in main_bindings(module)
        if is_op(binding.value, "relax.call_tir") and binding.value.args[0].name_hint.startswith("pixel")
    ]
    assert len(kernels) == 2
    assert sum(value.nbytes for args in kernels for value in args if value is not None) == decision.nbytes
    weights = 4 * np.count_nonzero(mixed())
    assert weights < decision.nbytes < 2 * weights


def test_both_kernels_read_the_same_packed_input() -> None:
    assert calls(lowered(mixed())) == {"pack": 1, "pixel": 2}


def test_products_of_matrices_are_not_split() -> None:
    weight = mixture((256, 256, 1, 1), 0.1, 0.05)
    assert decided(weight, size=1).choice in ("channels: unstructured", "channels: simd_block(2)")


def test_dense_ignores_splits() -> None:
    layers = LowerLayers(TARGETS["avx512"], dense=True)
    module = module_of(lambda emit, x: NN.conv2d(x, relax.const(mixed()), padding=1), 1, 64, 28, 28)
    (decision,) = decisions_of(layers(module))
    assert (decision.structure, " + " in decision.choice) == ("dense", False)


def test_blocks_with_a_few_zeros_are_padded() -> None:
    """Nine of ten weights of each block are there: storing the zeros is cheaper than anything else."""
    rng = np.random.default_rng(0)
    blocks = pruned("simd_block", 0.15, n=4)
    decision = decided(np.where(rng.random(SHAPE) < 0.95, blocks, np.float32(0)))
    assert decision.choice.startswith("pixels: simd_block(")
    assert re.search(r"^\d\.\dx fewer cycles than dense, fill 0\.9\d; next .* at 1\.\d\dx$", decision.reason)


@pytest.mark.parametrize(("strides", "choice"), [((1, 1), "winograd: F(4,3)"), ((2, 2), "pixels: dense")])
def test_zeros_that_do_not_pay_are_computed(strides: tuple[int, int], choice: str) -> None:
    decision = decided(pruned("unstructured", 0.9), "avx512", strides=strides)
    assert (decision.choice, decision.structure) == (choice, "dense")
    assert re.search(r".* would take \d\.\d\dx the cycles \(fill \d\.\d\d\)$", decision.reason)


def test_splits_keep_the_promise_of_size() -> None:
    """Zeros that would be stored are a tenth of the layer's non-zeros at most, but for incomplete blocks."""
    rng = np.random.default_rng(0)
    weight = mixture((256, 256, 3, 3), 0.1, 0.02, n=8)
    weight = np.where(rng.random(weight.shape) < 0.7, weight, np.float32(0)).astype(np.float32)
    module = module_of(lambda emit, x: NN.conv2d(x, relax.const(weight), padding=1), 1, 256, 14, 14)
    (fused_op,) = find_fused_ops(module)
    most = 0.1 * 4 * np.count_nonzero(weight) + 8192
    found, allowed = splits(weight), layer_of(fused_op, "layer").splits
    assert allowed == tuple(split for split in found if 4 * (split.stored - split.nonzeros) <= most)
    assert 0 < len(allowed) < len(found)
