"""SIMD blocks: N consecutive filters share their surviving positions.

Per kernel position as in Fast Sparse ConvNets (Elsen et al., CVPR 2020, blocks of output channels), or per whole kernel
as in 1xN (Lin et al., TPAMI 2022, arXiv 2105.14713).
"""

from __future__ import annotations

import numpy as np

from pconvgen.sparsity.assemble import (
    encode_tiles,
    filter_groups,
    first_channels,
    merge_blocks,
    weights_by_group,
)
from pconvgen.sparsity.dense import body_taps, kernel_tiles
from pconvgen.sparsity.structure import Candidate, Structure, Weight
from pconvgen.sparsity.taps import TapEncoding, sort_groups
from pconvgen.sparsity.units import Units, block_units

BLOCK_SIZES = (2, 4, 8, 16)
PRUNED_SIZES = (4, 2)
"""In the order of preference: the first that fits is taken for pruning."""


class SimdBlock(Structure):
    """Params: n, filters per block; whole_kernel, whether a block is N whole kernels instead of N weights."""

    name = "simd_block"
    shares_positions = True

    def detect(self, weight: Weight, groups: int = 1) -> tuple[Candidate, ...]:
        """A candidate for each block size and variant that fits into a convolution group; none for depthwise.

        `stored` is exact for encodings with max_group >= n and an upper bound for smaller groups of a power of two.
        """
        nonzeros = int(np.count_nonzero(weight))
        per_group, (kh, kw) = len(weight) // groups, weight.shape[2:]
        sizes = [n for n in BLOCK_SIZES if n <= per_group]
        if not sizes:
            return ()
        positions = (weight != 0).reshape(groups, per_group, -1)
        variants = [(False, 1, 1, positions)]
        if kh * kw > 1:
            variants.append(
                (True, kh * kw, body_taps(weight), positions.reshape(groups, per_group, -1, kh * kw).any(axis=3))
            )
        found = []
        for whole_kernel, size, taps, alive in variants:
            for n in sizes:
                # Sizes double, so blocks of n are pairs of the blocks of n / 2.
                alive = merge_blocks(alive, axis=1, size=2)
                stored = int(np.count_nonzero(alive)) * n * size
                params = {"n": n, "whole_kernel": whole_kernel}
                columns = kw if whole_kernel else 1
                found.append(Candidate(self.name, params, stored, nonzeros, unit=n, taps=taps, columns=columns))
        return tuple(found)

    def units(self, weight: Weight, *, groups: int = 1, n: int = 4, whole_kernel: bool = False) -> Units:
        """Blocks of `n` filters at one kernel position of one channel, or of `n` whole kernels."""
        return block_units(weight, groups=groups, filters=n, channels=1, whole_kernel=whole_kernel)

    def fit(self, shape: tuple[int, ...], groups: int) -> dict[str, int] | None:
        """The preferred size that fits into a convolution group."""
        return next(({"n": n} for n in PRUNED_SIZES if n <= shape[0] // groups), None)

    def is_promising(self, shape: tuple[int, ...], *, depthwise: bool) -> bool:
        """Blocks need several filters that read the same channels."""
        return not depthwise

    def encode(self, weight: Weight, candidate: Candidate, *, groups: int = 1, max_group: int = 8) -> TapEncoding:
        """One block per group of filters; a block larger than `max_group` becomes several groups."""
        n = candidate.params["n"]
        order = filter_groups(len(weight), groups, block=n, size=min(n, max_group))
        grouped = weights_by_group(weight, order)
        starts = np.arange(weight.shape[1], dtype=np.int32)
        origin = first_channels(order, weight, groups)
        if not candidate.params["whole_kernel"]:
            return sort_groups(encode_tiles(grouped[..., None], order, ((0, 0, 0),), starts, origin))
        tiles, body = kernel_tiles(grouped)
        kernels = (grouped != 0).any(axis=(1, 3, 4))
        alive = np.broadcast_to(kernels[:, :, None, None], (tiles.shape[0], *tiles.shape[2:5]))
        return sort_groups(encode_tiles(tiles, order, body, starts, origin, alive))
