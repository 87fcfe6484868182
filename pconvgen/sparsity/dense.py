"""Dense: every weight is stored, zeros included."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pconvgen.sparsity.assemble import encode_tiles, filter_groups, first_channels, weights_by_group
from pconvgen.sparsity.structure import Candidate, Structure, Weight
from pconvgen.sparsity.taps import Tap, TapEncoding, sort_groups
from pconvgen.sparsity.units import Units

# A kernel unrolls the taps of a body for all filters of a group. 9 taps x 8 filters is a loop body that stays in the
# instruction cache; larger kernels therefore become one entry per row.
MAX_BODY_TAPS = 9


class Dense(Structure):
    """Always applies, so every layer has a candidate."""

    name = "dense"
    shares_positions = True

    def detect(self, weight: Weight, groups: int = 1) -> tuple[Candidate, ...]:
        """One candidate. `stored` leaves out the lanes that pad the last filter group of an encoding."""
        nonzeros = int(np.count_nonzero(weight))
        taps = body_taps(weight)
        unit, columns = len(weight) // groups, weight.shape[3]
        return (Candidate(self.name, {}, int(weight.size), nonzeros, unit=unit, taps=taps, columns=columns),)

    def units(self, weight: Weight, *, groups: int = 1) -> Units:
        """All weights together, which are kept whatever the density."""
        return Units(np.full(1, np.linalg.norm(weight)), lambda values: np.broadcast_to(values, weight.shape))

    def encode(self, weight: Weight, candidate: Candidate, *, groups: int = 1, max_group: int = 8) -> TapEncoding:
        """Groups of `max_group` filters; one entry per input channel (or per channel and kernel row)."""
        per_group = len(weight) // groups
        order = filter_groups(len(weight), groups, block=per_group, size=min(max_group, per_group))
        tiles, body = kernel_tiles(weights_by_group(weight, order))
        starts = np.arange(weight.shape[1], dtype=np.int32)
        origin = first_channels(order, weight, groups)
        alive = np.broadcast_to(np.True_, (tiles.shape[0], *tiles.shape[2:5]))
        return sort_groups(encode_tiles(tiles, order, body, starts, origin, alive))


def body_taps(weight: Weight) -> int:
    """Taps of an entry that is a whole kernel, or a row of a kernel that is too large."""
    kh, kw = map(int, weight.shape[2:])
    return kh * kw if kh * kw <= MAX_BODY_TAPS else kw


def kernel_tiles(grouped: NDArray[np.float32]) -> tuple[NDArray[np.float32], tuple[Tap, ...]]:
    """Tiles (see `encode_tiles`) and body for entries that are whole kernels, or rows of kernels that are too large.

    grouped: float32 [groups, G, input channels, kernel height, kernel width].
    """
    n, g, channels, kh, kw = grouped.shape
    if kh * kw <= MAX_BODY_TAPS:
        return grouped.reshape(n, g, channels, 1, 1, kh * kw), tuple((0, r, c) for r in range(kh) for c in range(kw))
    return grouped[:, :, :, :, None, :], tuple((0, 0, c) for c in range(kw))
