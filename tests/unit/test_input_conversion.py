"""What users give as an input becomes the type that the model takes, or is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pconvgen.devices.conversion import converted
from pconvgen.manifest import Manifest


@pytest.mark.parametrize(
    ("given", "dtype", "expected"),
    [
        ([[1, 2], [3, 4]], "float32", [[1, 2], [3, 4]]),
        ([0.1, 3e38], "float32", np.array([0.1, 3e38], "float32")),
        (np.array([1 / 3, np.inf, 1e-300]), "float32", np.array([1 / 3, np.inf, 0], "float32")),
        (np.array([65504.0, -0.1]), "float16", np.array([65504, -0.1], "float16")),
        (np.array([True, False]), "uint8", [1, 0]),
        (np.array([0, 255]), "uint8", [0, 255]),
        (np.array([127], "uint8"), "int8", [127]),
        (np.array([2**24, 2**30, -(2**40)]), "float32", np.array([2**24, 2**30, -(2**40)], "float32")),
        (np.zeros((0, 3)), "float32", np.zeros((0, 3))),
        (torch.arange(3), "int32", [0, 1, 2]),
        (torch.tensor([0.5], requires_grad=True), "float32", [0.5]),
        (torch.tensor([0.5, 3e38]).bfloat16(), "float32", torch.tensor([0.5, 3e38]).bfloat16().float().numpy()),
        (7, "int64", 7),
    ],
)
def test_numbers_that_fit_are_converted(given: Any, dtype: str, expected: Any) -> None:
    found = converted(given, dtype)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.asarray(expected))


def test_what_fits_already_is_not_copied() -> None:
    array = np.zeros(3, "float16")
    assert converted(array, "float16") is array


@pytest.mark.parametrize(
    ("given", "dtype", "reason"),
    [
        (np.array([0.0, 1e39]), "float32", r"1e\+39 does not fit float32"),
        (np.array([65520.0]), "float16", "65520.0 does not fit float16"),
        (np.array([0, 256]), "uint8", "256 does not fit uint8"),
        (np.array([-1]), "uint8", "-1 does not fit uint8"),
        (np.array([128], "uint8"), "int8", "128 does not fit int8"),
        (np.array([2**63], "uint64"), "int64", "9223372036854775808 does not fit int64"),
        (np.array([-1]), "uint64", "-1 does not fit uint64"),
        (np.array([2**24 + 1]), "float32", "16777217 does not fit float32"),
        (np.array([2**53 + 1]), "float64", "9007199254740993 does not fit float64"),
        (np.array([0.5]), "uint8", "float64 is not converted to uint8"),
        (np.array([1]), "bool", "int64 is not converted to bool"),
        (np.array([1j]), "float32", "complex128 is no type of numbers"),
        ("photo.png", "float32", "is no type of numbers"),
        ([[1, 2], [3]], "float32", "inhomogeneous"),
        (None, "float32", "object is no type of numbers"),
    ],
)
def test_numbers_that_would_change_are_refused(given: Any, dtype: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        converted(given, dtype)


def test_random_inputs_are_of_the_type_and_in_its_range() -> None:
    shape = (1, 3, 32, 32)
    types = ("float32", "float16", "float64", "uint8", "int8", "int32", "int64", "bool")
    inputs = Manifest("host", tuple((name, shape, name) for name in types), (), ()).random_inputs(0)
    assert {name: str(array.dtype) for name, array in inputs.items()} == {name: name for name in types}
    assert (inputs["uint8"].min(), inputs["uint8"].max()) == (0, 255)
    assert (inputs["int8"].min(), inputs["int8"].max()) == (-128, 127)
    assert set(np.unique(inputs["int64"])) == {0, 1}
    assert abs(float(inputs["float16"].std()) - 1) < 0.1
