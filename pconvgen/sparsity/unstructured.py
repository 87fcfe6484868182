"""Unstructured (magnitude) sparsity: any single weight may be gone."""

from __future__ import annotations

import numpy as np

from pconvgen.sparsity.assemble import encode_tiles, filter_groups, first_channels, keep_count, keep_largest
from pconvgen.sparsity.structure import Candidate, Weight
from pconvgen.sparsity.taps import TapEncoding, sort_groups


class Unstructured:
    """Applies to every weight and stores no fill; one entry per non-zero (compressed sparse rows)."""

    name = "unstructured"

    def detect(self, weight: Weight, groups: int = 1) -> tuple[Candidate, ...]:
        """One candidate."""
        nonzeros = int(np.count_nonzero(weight))
        return (Candidate(self.name, {}, stored=nonzeros, nonzeros=nonzeros),)

    def project(self, weight: Weight, density: float, *, groups: int = 1) -> Weight:
        """Keeps the round(density * size) weights of largest magnitude, at least one."""
        keep = keep_largest(np.abs(weight), keep_count(weight.size, density))
        return np.where(keep, weight, np.float32(0))

    def encode(self, weight: Weight, candidate: Candidate, *, groups: int = 1, max_group: int = 8) -> TapEncoding:
        """One filter per group, one tap per entry."""
        order = filter_groups(len(weight), groups, block=1, size=1)
        starts = np.arange(weight.shape[1], dtype=np.int32)
        origin = first_channels(order, weight, groups)
        return sort_groups(encode_tiles(weight[:, None, ..., None], order, ((0, 0, 0),), starts, origin))
