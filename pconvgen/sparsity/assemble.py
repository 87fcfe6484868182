"""What structures share when they encode: grouping filters, collecting surviving tiles into a TapEncoding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pconvgen.sparsity.structure import Weight
from pconvgen.sparsity.taps import Tap, TapEncoding

# Weights that are looked at in one step. Bounds the temporaries of a fully connected layer of 100 M weights.
CHUNK = 1 << 20


def pad_rows(ids: NDArray[np.int32], size: int) -> NDArray[np.int32]:
    """`ids` [n, m] cut into rows of `size`, each source row padded with -1: int32 [n * ceil(m / size), size]."""
    padded = np.pad(ids, ((0, 0), (0, -ids.shape[1] % size)), constant_values=-1)
    return padded.reshape(-1, size)


def filter_groups(filters: int, groups: int, block: int, size: int) -> NDArray[np.int32]:
    """Consecutive filters in groups of `size` that straddle neither blocks of `block` filters nor convolution groups.

    Returns int32 [n, size]; -1 pads incomplete groups.
    """
    per_group = np.arange(filters, dtype=np.int32).reshape(groups, -1)
    rows = pad_rows(pad_rows(per_group, block), size)
    return rows[rows[:, 0] >= 0]


def weights_by_group(weight: Weight, order: NDArray[np.int32]) -> NDArray[np.float32]:
    """`weight` as [groups, G, channels, kernel height, kernel width]; padding lanes are zero. A view where possible."""
    if np.array_equal(order.reshape(-1), np.arange(len(weight))):
        return weight.reshape(*order.shape, *weight.shape[1:])
    grouped = weight[order]
    grouped[order < 0] = 0
    return grouped


def first_channels(order: NDArray[np.int32], weight: Weight, groups: int) -> NDArray[np.int32]:
    """First input channel that each filter group can see: int32 [groups of filters]."""
    return order[:, 0] // np.int32(len(weight) // groups) * np.int32(weight.shape[1])


def encode_tiles(
    tiles: NDArray[np.float32],
    order: NDArray[np.int32],
    body: tuple[Tap, ...],
    starts: NDArray[np.int32],
    origin: NDArray[np.int32],
    alive: NDArray[np.bool_] | None = None,
) -> TapEncoding:
    """Collects the surviving tiles of a one-body encoding.

    Parameters
    ----------
    tiles: [groups, G, channel blocks, rows, columns, K], usually a view of the weight. Tile [g, :, a, r, s, :] is one
        possible entry: the K taps of all filters of the group.
    order: int32 [groups, G] as in TapEncoding.
    body: the K taps.
    starts: int32 [channel blocks], first channel of each block inside a convolution group.
    origin: int32 [groups], see `first_channels`.
    alive: bool [groups, channel blocks, rows, columns], tiles to store; None stores those that are not all zero.
    """
    n = len(tiles)
    step = max(1, CHUNK // max(1, tiles[0].size))
    chunks = [slice(lo, min(lo + step, n)) for lo in range(0, n, step)]
    if alive is None:
        alive = np.empty((n, *tiles.shape[2:5]), np.bool_)
        for chunk in chunks:
            alive[chunk] = pool_any(tiles[chunk] != 0)

    counts = np.count_nonzero(alive.reshape(n, -1), axis=1)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    entries = np.empty((indptr[-1], 3), np.int32)
    values = np.empty((indptr[-1], len(body), order.shape[1]), np.float32)
    for chunk in chunks:
        lo, hi = indptr[chunk.start], indptr[chunk.stop]
        g, block, row, column = np.nonzero(alive[chunk])
        entries[lo:hi, 0] = starts[block] + origin[chunk][g]
        entries[lo:hi, 1] = row
        entries[lo:hi, 2] = column
        # The slices keep the index arrays at one number per entry instead of one per weight: [entries, G, K].
        values[lo:hi] = tiles[chunk][g, :, block, row, column, :].transpose(0, 2, 1)
    return TapEncoding((body,), order, indptr, entries, values)


def pool_any(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether a tile has any weight: [n, G, a, r, s, K] -> [n, a, r, s]."""
    return np.asarray(mask.any(axis=1).any(axis=-1))


def merge_blocks(mask: NDArray[np.bool_], axis: int, size: int) -> NDArray[np.bool_]:
    """Whether any of `size` consecutive elements along `axis` is set; the last block may be incomplete."""
    source = np.moveaxis(mask, axis, 0)
    merged = source[::size].copy()
    for i in range(1, size):
        part = source[i::size]
        merged[: len(part)] |= part
    return np.moveaxis(merged, 0, axis)
