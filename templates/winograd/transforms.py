"""The transforms of Winograd convolution F(m, 3): exact matrices, and code that applies them to vectors.

m outputs of a filter of 3 taps come from m + 2 inputs with m + 2 multiplications instead of 3 m:

    y = A [(G g) * (B d)]        d [m + 2] inputs, g [3] taps, y [m] outputs, * elementwise

and tiles of m x m outputs with the transforms along rows and along columns. A product of polynomials is known from its
values at m + 2 points (Toom-Cook); the transposed algorithm is the convolution. The points are 0, pairs +-a, and
infinity, so that the rows of a pair share their even and odd parts. Source: Lavin and Gray, Fast Algorithms for
Convolutional Neural Networks, 2016. That rounding errors depend on the points, and that +-1, +-2 are not the best:
Alam et al., Winograd Convolution for Deep Neural Networks: Efficient Point Selection, 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import prod

import numpy as np
from numpy.typing import NDArray

from pconvgen.tvm_compat.tir import Expr, T, broadcast

TAPS = 3
"""Taps of a filter in each direction."""

PAIRS: dict[int, tuple[Fraction, ...]] = {2: (Fraction(1),), 4: (Fraction(5, 8), Fraction(3, 2))}
"""m -> the points a of the pairs +-a, such that all coefficients are exact in float32.

With 5/8 and 3/2 the rounding errors of F(4, 3) are a quarter of those with 1 and 2: 3.7e-6 of the largest output with
512 channels of random data, instead of 1.3e-5.
"""

Matrix = tuple[tuple[Fraction, ...], ...]


@dataclass(frozen=True)
class Transforms:
    """A [m][m + 2], G [m + 2][3] and B [m + 2][m + 2] of F(m, 3); points are in the order 0, a, -a, ..., infinity."""

    output: Matrix
    weight: Matrix
    input: Matrix


@lru_cache
def transforms(m: int) -> Transforms:
    """The matrices of F(m, 3)."""
    points = [Fraction(0), *(sign * a for a in PAIRS[m] for sign in (1, -1))]
    others = [[q for q in points if q != p] for p in points]
    scales = [prod((p - q for q in rest), start=Fraction(1)) for p, rest in zip(points, others, strict=True)]
    return Transforms(
        output=tuple((*(p**i for p in points), Fraction(int(i == m - 1))) for i in range(m)),
        weight=(
            *(tuple(p**k / scale for k in range(TAPS)) for p, scale in zip(points, scales, strict=True)),
            (Fraction(0), Fraction(0), Fraction(1)),
        ),
        input=(*((*_polynomial(rest), Fraction(0)) for rest in others), _polynomial(points)),
    )


def transform_weight(weight: NDArray[np.float32], m: int) -> NDArray[np.float32]:
    """G g G^T of every kernel, rounded once: [filters, channels, 3, 3] -> [m + 2, m + 2, filters, channels]."""
    matrix = np.array(transforms(m).weight, np.float64)
    return np.einsum("ai,fcij,bj->abfc", matrix, weight.astype(np.float64), matrix, optimize=True).astype(np.float32)


def transform_input(d: list[Expr], m: int, lanes: int) -> list[Expr]:
    """B d: m + 2 vectors of inputs as as many of points."""
    squares = [a * a for a in PAIRS[m]]
    # All points but 0, and so without infinity too: a polynomial in x^2, of d[0], d[2], ... and of d[1], d[3], ...
    every = _polynomial(squares)
    points = [_sum(every, d[0::2], lanes)]
    for a in PAIRS[m]:
        rest = _polynomial([square for square in squares if square != a * a])
        even, odd = _sum(rest, d[2::2], lanes), _sum(rest, d[1:-1:2], lanes)
        points += [_add(even, a, odd, lanes), _add(even, -a, odd, lanes)]
    return [*points, _sum(every, d[1::2], lanes)]


def transform_output(points: list[Expr], m: int, lanes: int) -> list[Expr]:
    """A p: m + 2 vectors of points as m vectors of outputs."""
    pairs = list(zip(points[1:-1:2], points[2:-1:2], strict=True))
    even = [T.Bind(plus + minus) for plus, minus in pairs]
    odd = [T.Bind(plus - minus) for plus, minus in pairs]
    outputs = []
    for i in range(m):
        coefficients, vectors = [a**i for a in PAIRS[m]], odd if i % 2 else even
        if i == 0:
            coefficients, vectors = [*coefficients, Fraction(1)], [*vectors, points[0]]
        if i == m - 1:
            coefficients, vectors = [*coefficients, Fraction(1)], [*vectors, points[-1]]
        outputs.append(_sum(coefficients, vectors, lanes))
    return outputs


def _polynomial(roots: list[Fraction]) -> tuple[Fraction, ...]:
    """Coefficients of the product of (x - root), the constant first."""
    coefficients: tuple[Fraction, ...] = (Fraction(1),)
    for root in roots:
        shifted = (Fraction(0), *coefficients, Fraction(0))
        coefficients = tuple(low - root * high for low, high in pairwise(shifted))
    return coefficients


def _sum(coefficients: Sequence[Fraction], vectors: Sequence[Expr], lanes: int) -> Expr:
    """The sum of coefficient * vector, the last first: its coefficient is mostly 1."""
    *terms, (first, vector) = zip(coefficients, vectors, strict=True)
    total = vector if first == 1 else T.Bind(_constant(first, lanes) * vector)
    for coefficient, x in terms:
        total = _add(total, coefficient, x, lanes)
    return total


def _add(total: Expr, coefficient: Fraction, x: Expr, lanes: int) -> Expr:
    """total + coefficient * x."""
    if abs(coefficient) == 1:
        return T.Bind(total + x if coefficient == 1 else total - x)
    return T.Bind(total + _constant(coefficient, lanes) * x)


def _constant(value: Fraction, lanes: int) -> Expr:
    return broadcast(T.float32(float(value)), lanes)
