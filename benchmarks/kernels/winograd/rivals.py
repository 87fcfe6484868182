"""Direct convolution and Winograd's on the same dense layers."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.command import matches
from benchmarks.kernels.kernel import build
from benchmarks.layer_data import Data, random_data
from benchmarks.layers import DENSE, named, square
from benchmarks.measuring import interleave, is_noisy
from benchmarks.peak.meters import Meter, fma_meter
from pconvgen.planning.search import all_choices, rank
from pconvgen.sparsity import STRUCTURES
from pconvgen.targets.presets import get_target
from pconvgen.templates.choice import Choice
from pconvgen.templates.family import DIRECT, FAMILIES
from pconvgen.values.dtype import DType
from pconvgen.values.planes import Places, plain_layout, plane_layout
from pconvgen.values.schedule import WinogradSchedule
from pconvgen.values.target import Target
from pconvgen.values.workload import ConvWorkload

LAYERS = (
    (64, 64, 56), (128, 128, 28), (256, 256, 14), (512, 512, 7),  # ResNet-50
    (64, 64, 224), (64, 128, 112), (128, 128, 112), (128, 256, 56), (256, 256, 56), (256, 512, 28), (512, 512, 28),
    (512, 512, 14), (256, 256, 28),  # VGG-16
)  # fmt: skip
"""(channels, filters, height and width)."""


def rivals(w: ConvWorkload, data: Data, target: Target) -> dict[str, Choice]:
    """The best schedule of each kind."""
    core, (candidate,) = target.core, STRUCTURES["dense"].detect(data.weight)
    found = {"direct": rank(w, [candidate], core, families=DIRECT)[0]}
    layout = plane_layout(w, align=1, aligned_rows=False, own_columns=False, interleaved=False, slack=0)
    places = Places(layout, plain_layout(w.out_channels, w.out_height, w.out_width))
    for choice in all_choices(w, [candidate], core, places, families=[FAMILIES["winograd"]]):
        assert isinstance(choice.schedule, WinogradSchedule)
        key = f"F({choice.schedule.tile},3)"
        if key not in found or choice.cycles < found[key].cycles:
            found[key] = choice
    return found


def measure(w: ConvWorkload, target: Target, peak: Meter) -> tuple[dict[str, Choice], dict[str, float]]:
    """The choices and their milliseconds, and the peak in GFLOP/s as "peak"."""
    data = random_data(w, DENSE, 1.0)
    choices = rivals(w, data, target)
    kernels = {key: build(w, data, choice, target, key) for key, choice in choices.items()}
    return choices, interleave({key: kernel.subjects["kernel"] for key, kernel in kernels.items()}, peak)


def run(patterns: Sequence[str] | None) -> None:
    """Measures the layers whose names match a shell pattern, None for all, and prints."""
    # TVM's runtime reads this once, before its first parallel loop.
    os.environ["TVM_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    target = get_target("host")
    peak = fma_meter(target)
    flops_per_cycle = 2 * max(width.lanes * width.fma for width in target.core.widths(DType.FLOAT32))
    table = Table("layer", "direct ms", "F(2,3) ms", "F(4,3) ms", "gain", "predicted", "products", "schedule")
    for layer in (named("3x3", square(*shape)) for shape in LAYERS):
        if not matches((layer.name,), patterns):
            continue
        w = layer.workload
        choices, ms = measure(w, target, peak)
        best = min((key for key in choices if key != "direct"), key=lambda key: ms[key])
        schedule = choices[best].schedule
        assert isinstance(schedule, WinogradSchedule)
        m = schedule.tile
        tiles = (-(-w.out_height // m)) * (-(-w.out_width // m))
        products = 2e-6 * (m + 2) ** 2 * w.in_channels * w.out_channels * tiles / peak.best
        table.add_row(
            layer.name + ("~" if is_noisy(ms["peak"], peak.best) else ""),
            *(f"{ms[key]:.3f}" for key in ("direct", "F(2,3)", "F(4,3)")),
            f"{ms['direct'] / ms[best]:.2f}",
            " ".join(f"{1e-6 * flops_per_cycle * choices[key].cycles / peak.best:.2f}" for key in choices),
            f"{products / ms[best]:.2f}",
            f"{schedule.lanes} x {schedule.vectors} x {schedule.filters}, {schedule.rows} rows",
        )
    console = Console(width=140)
    console.print(f"{target.cpu}, one thread; FMA peak {peak.best:.1f} GFLOP/s")
    console.print(table)
    console.print("~ no quiet round: the machine was busy with something else, which makes kernels look slower")
