"""From a weight to a kernel: encodes, schedules, packs the arrays that the kernel reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pconvgen.schedules.isa import Isa
from pconvgen.schedules.schedule import ChannelSchedule, PixelSchedule, Schedule, WinogradSchedule
from pconvgen.sparsity.taps import TapEncoding, by_channels
from pconvgen.templates.channels import ChannelKernel
from pconvgen.templates.pack import PackKernel
from pconvgen.templates.pixels import PixelKernel, pixel_layout
from pconvgen.templates.winograd import WinogradKernel, nchw, planes_read
from pconvgen.templates.winograd_product import pack_weight
from pconvgen.workload import ConvWorkload

CHUNKS = 8
"""Parts of equal work for threads: enough for 8 threads, few enough that a small layer is not cut to pieces."""


@dataclass(frozen=True, eq=False)
class Instance:
    """One layer, ready to be called.

    Attributes
    ----------
    kernel: the template instance.
    pack: what brings the input into the kernel's layout, None when it reads NCHW.
    constants: the kernel's arguments between the data and the bias: offsets, values, indptr, order, chunks; the
        transformed weight where the kernel is Winograd's.
    """

    kernel: PixelKernel | ChannelKernel | WinogradKernel
    pack: PackKernel | None
    constants: tuple[NDArray[np.int32] | NDArray[np.float32], ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights and indices."""
        return sum(array.nbytes for array in self.constants)


def instantiate(workload: ConvWorkload, encoding: TapEncoding, schedule: Schedule, isa: Isa) -> Instance:
    """The kernel of `workload` for weights in `encoding`, with its arrays."""
    if isinstance(schedule, ChannelSchedule):
        return _channels(workload, encoding, schedule)
    if isinstance(schedule, WinogradSchedule):
        return _winograd(workload, encoding, schedule, isa)
    return _pixels(workload, encoding, schedule, isa)


def _pixels(workload: ConvWorkload, encoding: TapEncoding, schedule: PixelSchedule, isa: Isa) -> Instance:
    layout = pixel_layout(workload, schedule)
    bodies = tuple(
        tuple(channel * layout.channel + layout.tap_offset(row, column) for channel, row, column in body)
        for body in encoding.bodies
    )
    # Many row blocks or images are tasks enough; otherwise threads share the filters.
    blocks = workload.batch * -(-workload.out_height // schedule.rows)
    chunks = _chunks(encoding, 1 if blocks >= CHUNKS else CHUNKS)
    kernel = PixelKernel(
        workload=workload,
        schedule=schedule,
        isa=isa,
        group=encoding.group,
        groups=encoding.groups,
        bodies=bodies,
        padded_groups=bool((encoding.order < 0).any()),
        chunks=len(chunks) - 1,
    )
    if schedule.channels:
        encoding = by_channels(encoding, schedule.channels, workload.in_channels)
    pack = None if layout.identity else PackKernel(layout, schedule.lanes)
    return Instance(kernel, pack, _arrays(encoding, layout.entry_offsets(encoding.entries), chunks))


def _channels(workload: ConvWorkload, encoding: TapEncoding, schedule: ChannelSchedule) -> Instance:
    chunks = _chunks(encoding, CHUNKS)
    steps = np.diff(encoding.order, axis=1)
    kernel = ChannelKernel(
        workload=workload,
        schedule=schedule,
        group=encoding.group,
        groups=encoding.groups,
        bodies=tuple(tuple(channel for channel, _, _ in body) for body in encoding.bodies),
        consecutive=bool((steps == 1).all() and (encoding.order >= 0).all()),
        chunks=len(chunks) - 1,
    )
    return Instance(kernel, None, _arrays(encoding, np.ascontiguousarray(encoding.entries[:, 0]), chunks))


def _winograd(workload: ConvWorkload, encoding: TapEncoding, schedule: WinogradSchedule, isa: Isa) -> Instance:
    layout, source = planes_read(workload)
    target = nchw(workload.out_channels, workload.out_height, workload.out_width)
    kernel = WinogradKernel(workload, schedule, isa, source, target)
    pack = None if layout.identity else PackKernel(layout, isa.widths[0].lanes)
    return Instance(kernel, pack, (pack_weight(kernel.grid, encoding.decode(workload.weight_shape)),))


def _arrays(encoding: TapEncoding, offsets: NDArray[np.int32], chunks: NDArray[np.int32]) -> tuple:
    if not len(offsets):
        # A layer without weights still needs arrays to point at; no loop reads them.
        zeros = np.zeros(len(encoding.bodies[0]) * encoding.group, np.float32)
        return np.zeros(1, np.int32), zeros, encoding.indptr, encoding.order.reshape(-1), chunks
    return offsets, encoding.values.reshape(-1), encoding.indptr, encoding.order.reshape(-1), chunks


def _chunks(encoding: TapEncoding, parts: int) -> NDArray[np.int32]:
    """Boundaries of at most `parts` runs of groups with nearly equal work: entries, and one unit for each store."""
    bodies = len(encoding.bodies)
    work = np.cumsum(np.diff(encoding.indptr[::bodies]) * len(encoding.bodies[0]) + 1)
    marks = (
        np.searchsorted(work, work[-1] * np.arange(1, min(parts, encoding.groups)) / min(parts, encoding.groups)) + 1
    )
    return np.unique(np.concatenate([[0], marks, [encoding.groups]])).astype(np.int32)
