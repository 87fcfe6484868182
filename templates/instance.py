"""From a weight to a kernel: what all families share of packing the arrays that kernels read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pconvgen.sparsity.taps import TapEncoding
from pconvgen.tvm_compat.calls import Kernel
from pconvgen.values.workload import ConvWorkload

CHUNKS = 8
"""Parts of equal work for threads: enough for 8 threads, few enough that a small layer is not cut to pieces."""


class LayerKernel(Kernel, Protocol):
    """The kernel of a layer."""

    @property
    def workload(self) -> ConvWorkload:
        """What is computed."""


@dataclass(frozen=True, eq=False)
class Instance:
    """One layer, ready to be called.

    Attributes
    ----------
    kernel: the template instance.
    constants: the kernel's arguments between the data and the bias.
    """

    kernel: LayerKernel
    constants: tuple[NDArray[np.int32] | NDArray[np.floating[Any]], ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights and indices."""
        return sum(array.nbytes for array in self.constants)


def tap_arrays(
    workload: ConvWorkload, encoding: TapEncoding, offsets: NDArray[np.int32], chunks: NDArray[np.int32]
) -> tuple[NDArray[Any], ...]:
    """What kernels of taps read: offsets [entries], values, indptr, order and chunks."""
    stored = workload.precision.weights
    if not len(offsets):
        # A layer without weights still needs arrays to point at; no loop reads them.
        zeros = np.zeros(len(encoding.bodies[0]) * encoding.group, stored)
        return np.zeros(1, np.int32), zeros, encoding.indptr, encoding.order.reshape(-1), chunks
    return (
        offsets,
        encoding.values.reshape(-1).astype(stored, copy=False),
        encoding.indptr,
        encoding.order.reshape(-1),
        chunks,
    )


def chunks_of(encoding: TapEncoding, parts: int) -> NDArray[np.int32]:
    """Boundaries of at most `parts` runs of groups with nearly equal work: entries, and one unit for each store."""
    bodies = len(encoding.bodies)
    work = np.cumsum(np.diff(encoding.indptr[::bodies]) * len(encoding.bodies[0]) + 1)
    marks = (
        np.searchsorted(work, work[-1] * np.arange(1, min(parts, encoding.groups)) / min(parts, encoding.groups)) + 1
    )
    return np.unique(np.concatenate([[0], marks, [encoding.groups]])).astype(np.int32)
