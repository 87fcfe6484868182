"""Unstructured (magnitude) sparsity: any single weight may be gone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from pconvgen.sparsity.assemble import encode_tiles, filter_groups, first_channels
from pconvgen.sparsity.structure import Candidate, Structure, Weight
from pconvgen.sparsity.taps import TapEncoding, sort_groups
from pconvgen.sparsity.units import Mask, Norms, Units, weight_units


class Unstructured(Structure):
    """Applies to every weight and stores no fill; one entry per non-zero (compressed sparse rows)."""

    name = "unstructured"
    per_weight = True

    def detect(self, weight: Weight, groups: int = 1) -> tuple[Candidate, ...]:
        """One candidate."""
        nonzeros = int(np.count_nonzero(weight))
        return (Candidate(self.name, {}, stored=nonzeros, nonzeros=nonzeros),)

    def units(self, weight: Weight, *, groups: int = 1, m: int | None = None) -> Units:
        """Single weights.

        With `m`, equally many of each `m` consecutive input channels are kept, rounded, as in N:M sparsity (Mishra et
        al., arXiv 2104.08378); a last group of fewer channels keeps as many as it can of that number.
        """
        units = weight_units(weight)
        return units if m is None else replace(units, choose=partial(_keep_of_each, m=m))

    def encode(self, weight: Weight, candidate: Candidate, *, groups: int = 1, max_group: int = 8) -> TapEncoding:
        """One filter per group, one tap per entry."""
        order = filter_groups(len(weight), groups, block=1, size=1)
        starts = np.arange(weight.shape[1], dtype=np.int32)
        origin = first_channels(order, weight, groups)
        return sort_groups(encode_tiles(weight[:, None, ..., None], order, ((0, 0, 0),), starts, origin))


def _keep_of_each(norms: Norms, count: int, m: int) -> Mask:
    """The largest of each `m` channels, as many as `count` of all come to."""
    channels = norms.shape[1]
    most = max(1, round(m * count / norms.size))
    keep = np.zeros(norms.shape, np.bool_)
    for start in range(0, channels, m):
        order = np.argsort(-norms[:, start : start + m], axis=1, kind="stable")
        np.put_along_axis(keep[:, start : start + m], order[:, :most], True, axis=1)
    return keep
