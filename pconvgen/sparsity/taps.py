"""The one encoding that all sparsity structures share: groups of filters, entries, taps.

A convolution weight becomes, per *group* of G filters, a list of *entries*; each entry adds K *taps*
(K x G weights) whose positions relative to the entry are known when the kernel is generated.

=====================  ==  ===================================================  =======================
structure              G   body (the K taps of one entry)                       entry
=====================  ==  ===================================================  =======================
dense, filter          g   all positions of the kernel (or one of its rows)     one input channel
pattern (FKW)          1   the positions of one pattern; one body per pattern   one surviving kernel
simd_block(N)          N   one position, or all positions of the kernel         one surviving block
block_punched(N x C)   N   C consecutive input channels at one position         one surviving position
unstructured           1   one position                                         one surviving weight
=====================  ==  ===================================================  =======================

With G = 1 and patterns as bodies the arrays are PatDNN's FKW format (Niu et al., ASPLOS 2020, figure on
compressed storage): `order` is its reorder, `indptr` its offset and stride, `entries` its index, `values` its weight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Tap = tuple[int, int, int]
"""(input channel, kernel row, kernel column), relative to the entry the tap belongs to."""


@dataclass(frozen=True, eq=False)
class TapEncoding:
    """Weights of one convolution, ready to be laid out for a kernel.

    Attributes
    ----------
    bodies: taps of an entry, one tuple of K taps per body; all bodies have the same K. For every tap either the
        entry's or the tap's row is 0, and likewise for columns, so that address offsets add up under any stride and
        dilation.
    order: int32 [groups, G], the filter that each lane of a group computes, -1 for a lane that pads the group.
        Groups are sorted by their number of entries (filter-kernel reorder).
    indptr: int32 [groups * len(bodies) + 1], entries of body b of group g are
        indptr[g * B + b] .. indptr[g * B + b + 1].
    entries: int32 [entries, 3], (input channel, kernel row, kernel column) of each entry; the channel counts over all
        input channels of the layer, also in grouped convolutions.
    values: float32 [entries, K, G].
    """

    bodies: tuple[tuple[Tap, ...], ...]
    order: NDArray[np.int32]
    indptr: NDArray[np.int32]
    entries: NDArray[np.int32]
    values: NDArray[np.float32]

    @property
    def group(self) -> int:
        """Filters per group, G."""
        return int(self.order.shape[1])

    @property
    def groups(self) -> int:
        """Number of filter groups."""
        return int(self.order.shape[0])

    @property
    def stored(self) -> int:
        """Stored weights, zeros that fill up groups and bodies included."""
        return int(self.values.size)

    @property
    def nbytes(self) -> int:
        """Bytes of weights and of one int32 per entry, group boundary and filter."""
        return 4 * (self.values.size + len(self.entries) + self.indptr.size + self.order.size)

    def decode(self, shape: tuple[int, int, int, int], groups: int = 1) -> NDArray[np.float32]:
        """The weight this encodes: [filters, input channels / groups, kernel height, kernel width]."""
        weight = np.zeros(shape, np.float32)
        per_group = shape[0] // groups
        n_bodies = len(self.bodies)
        for g in range(self.groups):
            lanes = np.flatnonzero(self.order[g] >= 0)
            filters = self.order[g, lanes]
            for b, body in enumerate(self.bodies):
                lo, hi = self.indptr[g * n_bodies + b : g * n_bodies + b + 2]
                for k, (dc, dh, dw) in enumerate(body):
                    c, h, w = (self.entries[lo:hi] + np.array([dc, dh, dw], np.int32)).T
                    for lane, f in zip(lanes, filters, strict=True):
                        weight[f, c - (f // per_group) * shape[1], h, w] += self.values[lo:hi, k, lane]
        return weight


def by_channels(encoding: TapEncoding, channels: int, in_channels: int) -> TapEncoding:
    """Entries sorted by blocks of `channels` input channels before all else (cache blocking).

    `indptr` is int32 [blocks * groups * len(bodies) + 1] then.
    """
    rows = len(encoding.indptr) - 1
    row = encoding.entries[:, 0] // channels * rows + np.repeat(np.arange(rows), np.diff(encoding.indptr))
    sort = np.argsort(row, kind="stable")
    counts = np.bincount(row, minlength=-(-in_channels // channels) * rows)
    return replace(
        encoding,
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        entries=np.ascontiguousarray(encoding.entries[sort]),
        values=np.ascontiguousarray(encoding.values[sort]),
    )


def sort_groups(encoding: TapEncoding) -> TapEncoding:
    """Filter-kernel reorder: groups with equally many entries become neighbours (stable, so order is reproducible)."""
    n_bodies = len(encoding.bodies)
    ptr = encoding.indptr
    sizes = np.diff(ptr[::n_bodies])
    if (np.diff(sizes) >= 0).all():
        return encoding
    rank = np.argsort(sizes, kind="stable")
    spans = [np.arange(ptr[g * n_bodies], ptr[(g + 1) * n_bodies]) for g in rank]
    take = np.concatenate(spans) if spans else np.zeros(0, np.int64)
    counts = np.diff(ptr).reshape(-1, n_bodies)[rank].reshape(-1)
    return TapEncoding(
        bodies=encoding.bodies,
        order=np.ascontiguousarray(encoding.order[rank]),
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        entries=np.ascontiguousarray(encoding.entries[take]),
        values=np.ascontiguousarray(encoding.values[take]),
    )
