"""Filter (and channel) pruning: whole filters and whole input channels are gone, the rest is dense."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pconvgen.sparsity.assemble import encode_tiles, first_channels, pad_rows, weights_by_group
from pconvgen.sparsity.dense import body_taps, kernel_tiles
from pconvgen.sparsity.structure import Candidate, Structure, Weight
from pconvgen.sparsity.taps import TapEncoding, sort_groups
from pconvgen.sparsity.units import Units, block_units


class Filter(Structure):
    """Structured pruning in the classic sense; the encoding is dense over the surviving filters and channels."""

    name = "filter"
    whole_filters = True

    def detect(self, weight: Weight, groups: int = 1) -> tuple[Candidate, ...]:
        """A candidate if a filter, or an input channel for all filters that see it, is entirely zero.

        `stored` leaves out the lanes that pad the last filter group of an encoding.
        """
        filters, channels = survivors(weight, groups)
        if filters.all() and channels.all():
            return ()
        kernels = int((np.count_nonzero(filters, axis=1) * np.count_nonzero(channels, axis=1)).sum())
        stored = kernels * weight.shape[2] * weight.shape[3]
        unit = max(1, int(np.count_nonzero(filters, axis=1).max()))
        nonzeros = int(np.count_nonzero(weight))
        taps, columns = body_taps(weight), weight.shape[3]
        return (Candidate(self.name, {}, stored, nonzeros, unit=unit, taps=taps, columns=columns),)

    def units(self, weight: Weight, *, groups: int = 1) -> Units:
        """Filters."""
        return block_units(weight, groups=groups, filters=1, channels=weight.shape[1], whole_kernel=True)

    def encode(self, weight: Weight, candidate: Candidate, *, groups: int = 1, max_group: int = 8) -> TapEncoding:
        """Like dense; empty filters come in groups of their own, without entries, because they still have a bias."""
        filters, channels = survivors(weight, groups)
        size = min(max_group, max(1, int(np.count_nonzero(filters, axis=1).max())))
        ids = np.arange(len(weight), dtype=np.int32).reshape(groups, -1)
        rows = [
            pad_rows(row[None, chosen], size)
            for row, alive in zip(ids, filters, strict=True)
            for chosen in (alive, ~alive)
        ]
        order = np.concatenate(rows)
        tiles, body = kernel_tiles(weights_by_group(weight, order))
        stored = channels[order[:, 0] // ids.shape[1]] & filters.reshape(-1)[order[:, 0]][:, None]
        alive_tiles = np.broadcast_to(stored[:, :, None, None], (tiles.shape[0], *tiles.shape[2:5]))
        starts = np.arange(weight.shape[1], dtype=np.int32)
        origin = first_channels(order, weight, groups)
        return sort_groups(encode_tiles(tiles, order, body, starts, origin, alive_tiles))


def survivors(weight: Weight, groups: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Filters and input channels that have a weight: bool [groups, filters / groups], [groups, channels / groups]."""
    kernels = (weight != 0).any(axis=(2, 3)).reshape(groups, -1, weight.shape[1])
    return kernels.any(axis=2), kernels.any(axis=1)
