"""From a weight to a kernel: encodes, schedules, packs the arrays that the kernel reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.schedules.default import Choice
from pconvgen.sparsity.taps import TapEncoding, by_channels
from pconvgen.templates.channels import ChannelKernel
from pconvgen.templates.pixels import PixelKernel
from pconvgen.templates.planes import Places
from pconvgen.templates.winograd import WinogradKernel
from pconvgen.templates.winograd_product import pack_weight
from pconvgen.values.isa import Isa
from pconvgen.values.schedule import ChannelSchedule, PixelSchedule, WinogradSchedule
from pconvgen.values.workload import ConvWorkload

CHUNKS = 8
"""Parts of equal work for threads: enough for 8 threads, few enough that a small layer is not cut to pieces."""


@dataclass(frozen=True, eq=False)
class Instance:
    """One layer, ready to be called.

    Attributes
    ----------
    kernel: the template instance.
    constants: the kernel's arguments between the data and the bias: offsets, values, indptr, order, chunks; the
        transformed weight where the kernel is Winograd's.
    """

    kernel: PixelKernel | ChannelKernel | WinogradKernel
    constants: tuple[NDArray[np.int32] | NDArray[np.floating[Any]], ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights and indices."""
        return sum(array.nbytes for array in self.constants)


def instantiate(workload: ConvWorkload, encoding: TapEncoding, choice: Choice, isa: Isa) -> Instance:
    """The kernel that was chosen for a layer by itself, with its arrays."""
    if choice.places is None or isinstance(choice.schedule, ChannelSchedule):
        assert isinstance(choice.schedule, ChannelSchedule)
        return matrix_product(workload, encoding, choice.schedule, isa)
    return convolution(workload, encoding, choice.schedule, isa, choice.places)


def matrix_product(workload: ConvWorkload, encoding: TapEncoding, schedule: ChannelSchedule, isa: Isa) -> Instance:
    """The kernel of a `workload` of one pixel for weights in `encoding`, with its arrays."""
    chunks = _chunks(encoding, CHUNKS)
    steps = np.diff(encoding.order, axis=1)
    kernel = ChannelKernel(
        workload=workload,
        schedule=schedule,
        isa=isa,
        group=encoding.group,
        groups=encoding.groups,
        bodies=tuple(tuple(channel for channel, _, _ in body) for body in encoding.bodies),
        consecutive=bool((steps == 1).all() and (encoding.order >= 0).all()),
        chunks=len(chunks) - 1,
    )
    return Instance(kernel, _arrays(workload, encoding, np.ascontiguousarray(encoding.entries[:, 0]), chunks))


def convolution(
    workload: ConvWorkload,
    encoding: TapEncoding,
    schedule: PixelSchedule | WinogradSchedule,
    isa: Isa,
    places: Places,
    *,
    slots: NDArray[np.int64] | None = None,
    first: tuple[int, int] = (0, 0),
) -> Instance:
    """The kernel of `workload` for weights in `encoding`, with its arrays.

    Parameters
    ----------
    places: where input, output and residual lie.
    slots: int64 [in_channels], the places of the input's channels among those of its layout; None for the first ones.
        Bodies of several channels, and Winograd's template, need neighbours.
    first: places of the first channels of output and residual.
    """
    source = places.source
    slots = np.arange(workload.in_channels) if slots is None else slots
    if isinstance(schedule, WinogradSchedule):
        kernel = WinogradKernel(
            workload, schedule, isa, source, places.target, places.residual, (int(slots[0]), *first)
        )
        return Instance(kernel, (pack_weight(kernel.grid, encoding.decode(workload.weight_shape)),))
    bodies = tuple(
        tuple(channel * source.channel + source.tap_offset(workload, row, column) for channel, row, column in body)
        for body in encoding.bodies
    )
    # Positions of a body count from those of the kernel's first one.
    origin = source.tap_offset(workload, 0, 0)
    bodies = tuple(tuple(tap - origin for tap in body) for body in bodies)
    # Many row blocks or images are tasks enough; otherwise threads share the filters.
    blocks = workload.batch * -(-workload.out_height // schedule.rows)
    chunks = _chunks(encoding, 1 if blocks >= CHUNKS else CHUNKS)
    pixels = PixelKernel(
        workload=workload,
        schedule=schedule,
        isa=isa,
        source=source,
        target=places.target,
        residual=places.residual,
        slots=first,
        group=encoding.group,
        groups=encoding.groups,
        bodies=bodies,
        padded_groups=bool((encoding.order < 0).any()),
        chunks=len(chunks) - 1,
    )
    if schedule.channels:
        encoding = by_channels(encoding, schedule.channels, workload.in_channels)
    return Instance(
        pixels, _arrays(workload, encoding, source.entry_offsets(workload, encoding.entries, slots), chunks)
    )


def _arrays(
    workload: ConvWorkload, encoding: TapEncoding, offsets: NDArray[np.int32], chunks: NDArray[np.int32]
) -> tuple:
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


def _chunks(encoding: TapEncoding, parts: int) -> NDArray[np.int32]:
    """Boundaries of at most `parts` runs of groups with nearly equal work: entries, and one unit for each store."""
    bodies = len(encoding.bodies)
    work = np.cumsum(np.diff(encoding.indptr[::bodies]) * len(encoding.bodies[0]) + 1)
    marks = (
        np.searchsorted(work, work[-1] * np.arange(1, min(parts, encoding.groups)) / min(parts, encoding.groups)) + 1
    )
    return np.unique(np.concatenate([[0], marks, [encoding.groups]])).astype(np.int32)
