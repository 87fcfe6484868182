"""Comparing a compiled model with what its own framework computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.compiler import CompiledModel
from pconvgen.errors import PconvgenError

# float32 sums of thousands of products, in another order than the framework's, differ by about 1e-6.
TOLERANCE = 1e-4

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Verification:
    """How far a compiled model is from its reference.

    Attributes
    ----------
    max_relative_error: over all outputs and seeds, max |error| / max |reference| of that output; NaN when a value is.
    output: the output that has it.
    seed: the seed whose random input gives it.
    seeds: all that were tried.
    tolerance: what counts as equal.
    """

    max_relative_error: float
    output: str
    seed: int
    seeds: tuple[int, ...]
    tolerance: float = TOLERANCE

    @property
    def passed(self) -> bool:
        """Whether every value is close to the reference, and none is NaN."""
        return self.max_relative_error <= self.tolerance


def verify(compiled: CompiledModel, seeds: Sequence[int] = (0, 1, 2)) -> Verification:
    """Runs the compiled model and its reference on standard normal inputs, one for each seed.

    A model for ARM runs under emulation.

    Raises
    ------
    PconvgenError: an output has another shape than the reference's, or the model cannot be run.
    """
    if not seeds:
        raise ValueError("verify needs at least one seed")
    errors: list[tuple[float, str, int]] = []
    for seed in seeds:
        inputs = compiled.manifest.random_inputs(seed)
        reference = compiled.imported.reference(inputs)
        errors += [(error, name, seed) for name, error in relative_errors(compiled.run(inputs), reference).items()]
    # NaN compares as larger than nothing, so max() alone would lose it.
    worst = max(errors, key=lambda row: np.inf if np.isnan(row[0]) else row[0])
    return Verification(*worst, tuple(seeds))


def check(result: Verification, source: str) -> None:
    """Raises PconvgenError unless the verification of the model from `source` passed."""
    if not result.passed:
        raise PconvgenError(
            "the compiled model computes something else than the model",
            file=source,
            found=f"relative error {result.max_relative_error:.1e} in output {result.output} with seed {result.seed}",
            expected=f"at most {result.tolerance:.0e}",
            remedy="compile it with --dense to see whether sparse kernels are to blame, and report it with the model",
        )


def relative_errors(actual: Tensors, reference: Tensors) -> dict[str, float]:
    """Output name -> max |error| / max |reference|; NaN where either has a NaN.

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
    error = float(np.abs(actual.astype(np.float64) - reference).max())
    # An output that is zero everywhere has no scale; there any error is large.
    scale = max(float(np.abs(reference).max()), float(np.finfo(np.float32).tiny))
    return error / scale
