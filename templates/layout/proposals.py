"""Layouts of a convolution's input that are worth trying."""

from __future__ import annotations

from dataclasses import replace

from pconvgen.values.isa import Isa
from pconvgen.values.planes import PlaneLayout, plain_layout, plane_layout
from pconvgen.values.workload import ConvWorkload


def layouts(workload: ConvWorkload, isa: Isa) -> tuple[PlaneLayout, ...]:
    """Layouts of the input among which the fastest is worth looking for; NCHW, where it is one of them, is the last."""
    plain = plain_layout(workload.in_channels, workload.height, workload.width)
    made = _made_layouts(workload, isa, plain)
    return (*made, plain) if plain.readable(workload) else made


def _made_layouts(workload: ConvWorkload, isa: Isa, plain: PlaneLayout) -> tuple[PlaneLayout, ...]:
    """Layouts that are made for the reader."""
    lanes_of_widths = isa.lanes(workload.precision.arithmetic)
    slack = 2 * lanes_of_widths[0]
    found: dict[PlaneLayout, None] = {}
    if workload.kernel == (1, 1) and not any(workload.padding):
        found[replace(plain, slack=slack * workload.stride[1])] = None
        if workload.stride != (1, 1):
            # Only what is read; other readers want every element, which is then skipped as it is loaded.
            thin = plane_layout(
                workload, align=1, aligned_rows=False, own_columns=False, interleaved=False, slack=slack
            )
            found[thin] = None
        return tuple(found)
    # Paired loads reach few rows that lie far apart: code for them spills.
    orders = (False,) if isa.paired > 1 else (False, True)
    for interleaved in orders:
        found[
            plane_layout(workload, align=1, aligned_rows=False, own_columns=False, interleaved=interleaved, slack=slack)
        ] = None
    if workload.stride != (1, 1) and not isa.lane_indexed_fma:
        # For readers that share it with others: strides are taken as the input is loaded. NEON code for that spills.
        whole = replace(workload, stride=(1, 1))
        found[
            plane_layout(whole, align=1, aligned_rows=False, own_columns=False, interleaved=False, slack=2 * slack)
        ] = None
    for lanes in sorted(set(lanes_of_widths)) if workload.kernel[1] > 1 else ():
        for own_columns, aligned_rows, interleaved in (
            (False, True, False),
            (False, True, True),
            (True, False, False),
            (True, True, False),
        ):
            # With loads of whole vectors in pairs, alignment of the rows gives nothing.
            if interleaved not in orders or (isa.lane_indexed_fma and aligned_rows and not own_columns):
                continue
            layout = plane_layout(
                workload,
                align=lanes,
                aligned_rows=aligned_rows,
                own_columns=own_columns,
                interleaved=interleaved,
                slack=slack,
            )
            found[layout] = None
    return tuple(found)
