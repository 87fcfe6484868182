"""Comparing a compiled model with what its own framework computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.compiler import BuiltModel
from pconvgen.errors import PconvgenError
from pconvgen.frontend.spec import NamedArrays
from pconvgen.overflow import first_overflow
from pconvgen.values.dtype import DType
from pconvgen.values.precision import FLOAT32, Precision

# float32 sums of thousands of products, in another order than the framework's, differ by about 1e-6.
TOLERANCE = 1e-4
# float16 has 11 bits, an error of 5e-4 for each number. The zoo's networks have 2e-4 to 8e-4 with weights that were
# rounded to it, up to 1.5e-3 with all tensors, and up to 5e-3 with sums in it.
TOLERANCE_STORED_HALF, TOLERANCE_HALF = 1e-2, 3e-2
# What a model's own arithmetic may differ from float32's: bfloat16 has 8 bits, and a step of int8 that is rounded to
# another side moves those behind it.
TOLERANCES = {"float16": TOLERANCE_HALF, "bfloat16": 1e-1, "int8": 1e-1}


@dataclass(frozen=True)
class Verification:
    """How far a compiled model is from its reference.

    Attributes
    ----------
    max_relative_error: over all outputs and seeds, max |error| / max |reference| of that output; NaN or infinite where
        only one of them is.
    output: the output that has it.
    seed: the seed whose random input gives it.
    seeds: all that were tried.
    judge: who computed the reference.
    tolerance: what counts as equal.
    overflow: an output with infinities or NaNs that the reference does not have; None when there is none.
    overflow_layer: the first layer whose results do not fit float16, with the largest, where those do not.
    same_top: share of the positions whose largest channel (axis 1, of classes) is the reference's.
    """

    max_relative_error: float
    output: str
    seed: int
    seeds: tuple[int, ...]
    judge: str
    tolerance: float = TOLERANCE
    overflow: str | None = None
    overflow_layer: tuple[str, float] | None = None
    same_top: float = 1.0

    @property
    def passed(self) -> bool:
        """Whether every value is close to the reference, and NaN and infinite where that is."""
        return self.max_relative_error <= self.tolerance


def verify(compiled: BuiltModel, seeds: Sequence[int] = (0, 1, 2)) -> Verification:
    """Runs the compiled model and its reference on standard normal inputs, one for each seed.

    A model for ARM runs under emulation.

    Raises
    ------
    PconvgenError: an output has another shape than the reference's, or the model cannot be run.
    """
    if not seeds:
        raise ValueError("verify needs at least one seed")
    errors: list[tuple[float, str, int]] = []
    overflow, layer, same = None, None, []
    formats = compiled.manifest.precision
    for seed in seeds:
        inputs = compiled.manifest.random_inputs(seed)
        reference, found = compiled.imported.reference(inputs), compiled.run(inputs)
        errors += [(error, name, seed) for name, error in relative_errors(found, reference).items()]
        for name, expected in reference.items():
            if overflow is None and not np.isfinite(found[name][np.isfinite(expected)]).all():
                overflow = name
                layer = first_overflow(compiled.imported, inputs) if formats.activations == DType.FLOAT16 else None
            if expected.ndim > 1 and expected.shape[1] > 1:
                same.append(found[name].argmax(axis=1) == expected.argmax(axis=1))
    # NaN compares as larger than nothing, so max() alone would lose it.
    worst = max(errors, key=lambda row: np.inf if np.isnan(row[0]) else row[0])
    tolerance = max(tolerance_of(formats), TOLERANCES.get(compiled.imported.arithmetic, 0.0))
    same_top = float(np.mean(np.concatenate([part.reshape(-1) for part in same]))) if same else 1.0
    judge = compiled.imported.judge.name
    return Verification(*worst, tuple(seeds), judge, tolerance, overflow, layer, same_top)


def tolerance_of(formats: Precision) -> float:
    """What counts as equal in these formats."""
    if formats.arithmetic == DType.FLOAT16:
        return TOLERANCE_HALF
    return TOLERANCE if formats == FLOAT32 else TOLERANCE_STORED_HALF


def check(result: Verification, source: str, formats: Precision = FLOAT32) -> None:
    """Raises PconvgenError unless the verification of the model from `source`, compiled in `formats`, passed."""
    if result.overflow is not None and formats.activations == DType.FLOAT16:
        raise PconvgenError(
            "the model leaves the range of float16",
            file=source,
            layer=None if result.overflow_layer is None else result.overflow_layer[0],
            found=f"infinities or NaNs in output {result.overflow}"
            + ("" if result.overflow_layer is None else f", {result.overflow_layer[1]:g} in this layer"),
            expected=f"activations of at most {formats.activations.largest:g}",
            remedy="compile it with --dtype float32; --weights float16 still makes the library smaller",
        )
    if not result.passed:
        raise PconvgenError(
            f"the compiled model computes something else than the model in {result.judge}",
            file=source,
            found=f"relative error {result.max_relative_error:.1e} in output {result.output} with seed {result.seed}",
            expected=f"at most {result.tolerance:.0e}",
            remedy="compile it with --dense to see whether sparse kernels are to blame, and report it with the model",
        )


def relative_errors(actual: NamedArrays, reference: NamedArrays) -> dict[str, float]:
    """Output name -> max |error| / max |reference| of finite numbers.

    NaN where only one of the two has a NaN, infinite where they do not have the same infinities.

    Raises
    ------
    PconvgenError: names or shapes differ.
    """
    shapes = [{name: array.shape for name, array in tensors.items()} for tensors in (actual, reference)]
    if shapes[0] != shapes[1]:
        raise PconvgenError("the outputs differ from the reference's", found=shapes[0], expected=shapes[1])
    return {name: _relative_error(actual[name], reference[name]) for name in actual}


def _relative_error(actual: NDArray[Any], reference: NDArray[Any]) -> float:
    if not actual.size:
        return 0.0
    found, expected = actual.astype(np.float64), reference.astype(np.float64)
    if (np.isnan(found) != np.isnan(expected)).any():
        return float("nan")
    numbers = np.isfinite(found) & np.isfinite(expected)
    if not ((found == expected) | np.isnan(found))[~numbers].all():
        return float("inf")
    error = np.abs(found[numbers] - expected[numbers]).max(initial=0.0)
    # An output that is zero everywhere has no scale; there any error is large.
    scale = np.abs(expected[numbers]).max(initial=float(np.finfo(np.float32).tiny))
    return float(error / scale)
