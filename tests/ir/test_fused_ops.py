"""Which operations behind a layer its kernel takes over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tvm import relax

from pconvgen.matching.fused_ops import FusedOp, find_fused_ops
from pconvgen.values.workload import RELU, Epilogue, X
from tests.activations import clip
from tests.relax_modules import BIAS, NN, calls, conv, lower, module_of, weight


def only_site(body: Callable[..., Any], *shape: int) -> FusedOp:
    (fused_op,) = find_fused_ops(module_of(body, *shape))
    return fused_op


def plain(emit: Any, x: Any) -> Any:
    return conv(x)


def biased(emit: Any, x: Any) -> Any:
    return relax.op.add(emit(conv(x)), BIAS)


def biased_from_the_left(emit: Any, x: Any) -> Any:
    return relax.op.add(BIAS, emit(conv(x)))


def rectified(emit: Any, x: Any) -> Any:
    return NN.relu(emit(biased(emit, x)))


def clipped(emit: Any, x: Any) -> Any:
    return relax.op.clip(emit(biased(emit, x)), -0.5, 6)


def clipped_below(emit: Any, x: Any) -> Any:
    return relax.op.clip(emit(conv(x)), 0, float("inf"))


def clipped_nowhere(emit: Any, x: Any) -> Any:
    return relax.op.clip(emit(conv(x)), float("-inf"), float("inf"))


def residual(emit: Any, x: Any) -> Any:
    return NN.relu(emit(relax.op.add(emit(biased_like(emit, x)), x)))


def biased_like(emit: Any, x: Any) -> Any:
    return relax.op.add(emit(conv(x, filters=3)), weight(1, 3, 1, 1))


@pytest.mark.parametrize(
    ("body", "epilogue"),
    [
        (plain, Epilogue()),
        (biased, Epilogue(bias=True)),
        (biased_from_the_left, Epilogue(bias=True)),
        (rectified, Epilogue(bias=True, activation=RELU)),
        (clipped, Epilogue(bias=True, activation=clip(X, -0.5, 6.0))),
        (clipped_below, Epilogue(activation=RELU)),
        (clipped_nowhere, Epilogue()),
        (residual, Epilogue(bias=True, residual=True, activation=RELU)),
    ],
)
def test_epilogues_are_fused(body: Callable[..., Any], epilogue: Epilogue) -> None:
    assert only_site(body).workload.epilogue == epilogue
    assert calls(lower(body)) == Counter(pixel=1, pack=1)


def test_no_residual_is_fused_behind_an_activation() -> None:
    def body(emit: Any, x: Any) -> Any:
        return relax.op.add(emit(NN.relu(emit(conv(x, filters=3)))), x)

    assert only_site(body).workload.epilogue == Epilogue(activation=RELU)
    assert calls(lower(body))["pointwise"] == 1


def test_one_bias_one_residual_one_function_of_their_sum() -> None:
    def two_biases(emit: Any, x: Any) -> Any:
        return relax.op.add(emit(biased(emit, x)), BIAS)

    def two_residuals(emit: Any, x: Any) -> Any:
        return relax.op.add(emit(relax.op.add(emit(conv(x, filters=3)), x)), x)

    def two_activations(emit: Any, x: Any) -> Any:
        return relax.op.clip(emit(NN.relu(emit(conv(x)))), 0.5, 1)

    assert only_site(two_biases).workload.epilogue == Epilogue(bias=True)
    assert only_site(two_residuals).workload.epilogue == Epilogue(residual=True)
    assert only_site(two_activations).workload.epilogue == Epilogue(activation=clip(RELU, 0.5, 1.0))


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (1, 1, 8, 8), (1, 1, 1, 8)])
def test_only_one_number_per_channel_is_a_bias(shape: tuple[int, ...]) -> None:
    def body(emit: Any, x: Any) -> Any:
        return relax.op.add(emit(conv(x)), weight(*shape))

    assert only_site(body).workload.epilogue == Epilogue()
    assert calls(lower(body))["relax.add"] == 1


@pytest.mark.parametrize("flipped", [False, True])
def test_the_later_of_two_convolutions_adds_the_earlier(flipped: bool) -> None:
    def body(emit: Any, x: Any) -> Any:
        first, second = emit(conv(x)), emit(conv(x, kernel=1, padding=0))
        return NN.relu(emit(relax.op.add(*((second, first) if flipped else (first, second)))))

    first, second = find_fused_ops(module_of(body))
    assert (first.workload.epilogue, first.result) == (Epilogue(), first.var)
    assert second.workload.epilogue == Epilogue(residual=True, activation=RELU)
    assert second.residual.same_as(first.var)
    assert calls(lower(body)).keys() == {"pixel", "pack"}


def test_the_shortcut_takes_the_sum_of_a_branch_with_more_behind_it() -> None:
    def body(emit: Any, x: Any) -> Any:
        shortcut = emit(biased(emit, x))
        branch = emit(NN.relu(emit(conv(x))))
        return relax.op.add(branch, shortcut)

    first, second = find_fused_ops(module_of(body))
    assert first.workload.epilogue == Epilogue(bias=True, residual=True)
    assert first.residual.same_as(second.result)
    lowered = lower(body)
    assert calls(lowered).keys() == {"pixel", "pack"}


def used_twice(emit: Any, x: Any) -> Any:
    y = emit(conv(x))
    return NN.relu(y), relax.op.negative(y)


def returned(emit: Any, x: Any) -> Any:
    y = emit(conv(x))
    return y, NN.relu(y)


@pytest.mark.parametrize("body", [used_twice, returned])
def test_results_with_several_users_stay(body: Callable[..., Any]) -> None:
    fused_op = only_site(body)
    assert fused_op.workload.epilogue == Epilogue()
    assert not fused_op.absorbed
    module = lower(body)
    assert calls(module)["pixel"] == 1
    assert sum(count for name, count in calls(module).items() if name.startswith("relax.")) >= 1
