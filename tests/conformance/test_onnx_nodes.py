"""The onnx package's node tests: each gives the right values, or is refused as `refusals` lists it.

Cases of one opset are compiled many at a time, in one model; what such a model is refused for is found by halving.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from conformance.cases import Arrays, Case, collect, write
from conformance.refusals import OTHERWISE, REFUSALS, Refusal
from numpy.typing import NDArray

import pconvgen
from pconvgen.errors import PconvgenError

pytestmark = pytest.mark.host

PARTS = 8
TOGETHER = 64


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return collect()


def refusals_of(case: Case) -> list[Refusal]:
    return [refusal for refusal in REFUSALS if refusal.covers(case.name)]


@pytest.mark.parametrize("part", range(PARTS))
def test_what_is_not_refused_is_right(part: int, cases: Sequence[Case], tmp_path: Path) -> None:
    accepted = [case for case in cases if not refusals_of(case)]
    found = {}
    for opset in {case.opset for case in accepted}:
        same = [case for case in accepted if case.opset == opset][part::PARTS]
        for start in range(0, len(same), TOGETHER):
            found.update(faults(same[start : start + TOGETHER], tmp_path / "cases.onnx"))
    assert not found


def test_what_is_refused_says_why(cases: Sequence[Case], tmp_path: Path) -> None:
    found = {}
    for case in cases:
        for refusal in refusals_of(case):
            try:
                run([case], tmp_path / "case.onnx")
            except PconvgenError as error:
                if refusal.message not in str(error):
                    found[case.name] = f"refused, but not with {refusal.message!r}: {error}"
            else:
                found[case.name] = "is computed: take it from the list"
    assert not found


def test_the_list_of_refusals_has_no_old_rows(cases: Sequence[Case]) -> None:
    names = [case.name for case in cases]
    assert not [refusal for refusal in REFUSALS if not any(map(refusal.covers, names))]
    assert not [case.name for case in cases if len(refusals_of(case)) > 1]
    assert not set(OTHERWISE) - set(names)


def faults(cases: Sequence[Case], path: Path) -> Iterator[tuple[str, str]]:
    """Each case that is refused or wrong, and what is."""
    if not cases:
        return
    try:
        outputs = run(cases, path)
    except Exception as error:
        if len(cases) == 1:
            yield cases[0].name, f"{type(error).__name__}: {error}"
            return
        half = len(cases) // 2
        yield from faults(cases[:half], path)
        yield from faults(cases[half:], path)
        return
    for case in cases:
        for name, expected in case.outputs.items():
            fault = difference(outputs[name], OTHERWISE.get(case.name, expected))
            if fault is not None:
                yield case.name, f"{name}: {fault}"


def run(cases: Sequence[Case], path: Path) -> Arrays:
    """The outputs of all cases, as compiled code computes them."""
    write(cases, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pconvgen.compile(path).run({name: plain(array) for case in cases for name, array in case.inputs.items()})


def plain(array: NDArray) -> NDArray:
    """Floats that NumPy does not know as float32."""
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def difference(found: NDArray, expected: NDArray) -> str | None:
    """What is wrong with an output; floats of other widths become float32."""
    # bfloat16 has 8 bits, float16 has 11; what is computed in float32 is not rounded to them.
    close = {"bfloat16": 1e-2, "float16": 2e-3}.get(str(expected.dtype), 1e-4)
    expected = plain(expected)
    if found.shape != expected.shape:
        return f"shape {found.shape}, expected {expected.shape}"
    if found.dtype != expected.dtype and {found.dtype.kind, expected.dtype.kind} != {"f"}:
        return f"{found.dtype}, expected {expected.dtype}"
    if found.dtype.kind == "f":
        wrong = ~np.isclose(found, expected, rtol=close, atol=close, equal_nan=True)
    else:
        wrong = found != expected
    if not wrong.any():
        return None
    return f"{wrong.sum()} of {wrong.size} are wrong: {found[wrong][:3]}, expected {expected[wrong][:3]}"
