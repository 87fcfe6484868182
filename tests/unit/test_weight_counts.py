"""What is counted of weights, whatever their shape, against the plain way."""

from __future__ import annotations

import numpy as np
import pytest

from pconvgen.sparsity import counts
from pconvgen.sparsity.counts import count


@pytest.mark.parametrize("shape", [(64, 32, 3, 3), (5, 7, 1, 1), (16, 1, 5, 5), (1, 3, 32, 32), (300, 700, 1, 1)])
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_counts(shape: tuple[int, int, int, int], density: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    weight = np.where(rng.random(shape) < density, rng.standard_normal(shape), 0).astype(np.float32)
    monkeypatch.setattr(counts, "CHUNK", 1000)
    found = count(weight)
    filters = np.count_nonzero(weight.reshape(len(weight), -1), axis=1)
    np.testing.assert_array_equal(found.filters, filters)
    kernels = np.count_nonzero(weight, axis=(2, 3)).ravel()
    np.testing.assert_array_equal(found.kernels, np.bincount(kernels, minlength=shape[2] * shape[3] + 1))
    assert found.nonzeros == np.count_nonzero(weight)
    assert found.spread == pytest.approx(filters.std() / filters.mean() if density else 0)
