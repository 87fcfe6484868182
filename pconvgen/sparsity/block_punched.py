"""Block-punched: in a block of filters x input channels, all kernels keep the same positions.

YOLObile (Cai et al., AAAI 2021, arXiv 2009.05697) uses blocks of 8 filters x 4 channels, with 16 x 4 as alternative.
"""

from __future__ import annotations

import numpy as np

from pconvgen.errors import UsageError
from pconvgen.sparsity.assemble import (
    encode_tiles,
    filter_groups,
    first_channels,
    merge_blocks,
    weights_by_group,
)
from pconvgen.sparsity.structure import Candidate, Structure, Weight
from pconvgen.sparsity.taps import TapEncoding, sort_groups
from pconvgen.sparsity.units import Units, block_units

# The paper's two sizes and their neighbours. One channel wide would be a SIMD block.
BLOCK_SIZES = ((4, 4), (8, 4), (16, 4), (8, 8))
PRUNED_SIZES = ((8, 4), (4, 4))
"""In the order of preference: the first that fits is taken for pruning."""


class BlockPunched(Structure):
    """Params: filters, channels of a block."""

    name = "block_punched"
    shares_positions = True
    spans_channels = True

    def detect(self, weight: Weight, groups: int = 1) -> tuple[Candidate, ...]:
        """A candidate for each block size that fits into a convolution group.

        `stored` is exact for encodings with max_group >= filters and an upper bound for smaller powers of two.
        """
        nonzeros = int(np.count_nonzero(weight))
        per_group, channels = len(weight) // groups, weight.shape[1]
        sizes = [(bf, bc) for bf, bc in BLOCK_SIZES if bf <= per_group and bc <= channels]
        if not sizes:
            return ()
        alive = (weight != 0).reshape(groups, per_group, channels, -1)
        # Filters first: the array shrinks before the slower, strided merge of channels.
        rows = {bf: merge_blocks(alive, axis=1, size=bf) for bf in sorted({bf for bf, _ in sizes})}
        return tuple(
            Candidate(
                self.name,
                {"filters": bf, "channels": bc},
                stored=int(np.count_nonzero(merge_blocks(rows[bf], axis=2, size=bc))) * bf * bc,
                nonzeros=nonzeros,
                unit=bf,
                taps=bc,
            )
            for bf, bc in sizes
        )

    def units(self, weight: Weight, *, groups: int = 1, filters: int = 8, channels: int = 4) -> Units:
        """The positions of blocks of `filters` x `channels` kernels."""
        return block_units(weight, groups=groups, filters=filters, channels=channels)

    def fit(self, shape: tuple[int, ...], groups: int) -> dict[str, int] | None:
        """The preferred size that fits into a convolution group."""
        per_group, channels = shape[0] // groups, shape[1]
        sizes = ((bf, bc) for bf, bc in PRUNED_SIZES if bf <= per_group and bc <= channels)
        return next(({"filters": bf, "channels": bc} for bf, bc in sizes), None)

    def is_promising(self, shape: tuple[int, ...], *, depthwise: bool) -> bool:
        """For 1x1 layers; larger kernels have patterns, which keep more of a weight."""
        return not depthwise and shape[2] * shape[3] == 1

    def encode(self, weight: Weight, candidate: Candidate, *, groups: int = 1, max_group: int = 8) -> TapEncoding:
        """One block per group of filters and entry; blocks of more than `max_group` filters become several groups."""
        filters, width = candidate.params["filters"], candidate.params["channels"]
        channels = weight.shape[1]
        if width > channels:
            raise UsageError(
                "block_punched block is wider than the layer",
                found=f"{width} channels per block",
                expected=f"at most {channels}",
                remedy="choose one of the candidates that detect returns",
            )
        order = filter_groups(len(weight), groups, block=filters, size=min(filters, max_group))
        grouped = weights_by_group(weight, order)
        # An incomplete last block moves left to stay inside the layer; its first taps repeat channels of the block
        # before and are zero.
        starts = np.minimum(np.arange(0, channels, width, dtype=np.int32), channels - width)
        overlap = len(starts) * width - channels
        if overlap:
            tiles = grouped[:, :, starts[:, None] + np.arange(width)]
            tiles[:, :, -1, :overlap] = 0
        else:
            tiles = grouped.reshape(*grouped.shape[:2], -1, width, *weight.shape[2:])
        body = tuple((c, 0, 0) for c in range(width))
        origin = first_channels(order, weight, groups)
        return sort_groups(encode_tiles(np.moveaxis(tiles, 3, -1), order, body, starts, origin))
