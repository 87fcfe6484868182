"""Weights of two structures at once: SIMD blocks, and single weights scattered beside them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pconvgen.sparsity import project


def mixture(
    shape: tuple[int, ...], blocks: float, scattered: float, *, n: int = 4, groups: int = 1, seed: int = 0
) -> NDArray[np.float32]:
    """A weight that keeps a share `blocks` of its blocks of `n` filters, and of its weights a share `scattered`."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(shape).astype(np.float32)
    kept = project("simd_block", weight, blocks, groups=groups, n=n)
    return np.where(rng.random(shape) < scattered, weight, kept).astype(np.float32)
