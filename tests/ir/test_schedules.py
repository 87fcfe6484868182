"""Schedules that are offered: legal, plain values, at least one for everything, ranked sensibly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, asdict, fields, replace
from typing import Any

import numpy as np
import pytest

from pconvgen.planning.search import all_choices, rank
from pconvgen.schedules.cores import CORES
from pconvgen.sparsity import STRUCTURES, Candidate, candidates, encode, project
from pconvgen.sparsity.structure import TapShape
from pconvgen.templates.family import DIRECT
from pconvgen.templates.layout.proposals import layouts
from pconvgen.templates.layout.tiles import TileRun
from pconvgen.templates.pixels.kernel import block_tiles
from pconvgen.templates.winograd.space import winograd_schedules
from pconvgen.values.core import Core
from pconvgen.values.planes import Places, plain_layout
from pconvgen.values.schedule import ChannelSchedule, PixelSchedule, Schedule
from pconvgen.values.workload import ConvWorkload
from tests.layers import random_weight, random_workload
from tests.spaces import SPACES, schedules

L2_KIB = (16, 1024)


def conv(channels: int, size: int, filters: int, width: int, stride: int = 1, /, **more: Any) -> ConvWorkload:
    """A square convolution with equal output and input sizes, but for what `more` says."""
    padding = (width // 2,) * 4
    square = ConvWorkload(1, channels, size, size, filters, (width, width), (stride, stride), padding)
    return replace(square, **more)


LAYERS = {
    "resnet stem": conv(3, 224, 64, 7, 2),
    "vgg 3x3": conv(64, 224, 64, 3),
    "resnet last 3x3": conv(512, 7, 512, 3),
    "downsampling 1x1": conv(256, 56, 512, 1, 2),
    "mobilenet 1x1": conv(96, 14, 576, 1),
    "depthwise 3x3": conv(32, 112, 32, 3, groups=32),
    "depthwise 5x5, stride 2": conv(240, 28, 240, 5, 2, groups=240),
    "depthwise with two filters per channel": conv(8, 28, 16, 3, groups=8),
    "grouped 1x1": conv(60, 28, 240, 1, groups=3),
    "inception 1x7": conv(128, 17, 192, 7, kernel=(1, 7), padding=(0, 3, 0, 3)),
    "dilated": conv(32, 33, 32, 3, dilation=(6, 6), padding=(6, 6, 6, 6)),
    "large kernel": conv(8, 56, 8, 31, groups=8),
    "long row": conv(4, 256, 8, 1, kernel=(1, 201), padding=(0, 100, 0, 100)),
    "full HD": conv(8, 1, 8, 3, height=1080, width=1920),
    "one column": conv(8, 1, 8, 3, height=100, width=1),
    "one pixel": conv(64, 1, 16, 1),
    "one padded pixel": conv(8, 1, 8, 1, padding=(1, 1, 1, 1)),
    "one pixel, 3x3": conv(16, 1, 16, 3),
    "one filter": conv(5, 9, 1, 3),
    "classifier": ConvWorkload(1, 512, 1, 1, 1000, (1, 1)),
    "classifier of a batch": ConvWorkload(64, 128, 1, 1, 10, (1, 1)),
}


def encodings(w: ConvWorkload) -> Iterator[Candidate]:
    """Encodings of a weight of every structure at a quarter of its density, and of an empty weight."""
    weight = np.random.default_rng(0).standard_normal(w.weight_shape).astype(np.float32)
    for name, structure in STRUCTURES.items():
        if name == "pattern" and not 1 < w.kernel[0] * w.kernel[1] <= 25:
            continue
        yield from structure.detect(project(structure.name, weight, 0.25, groups=w.groups), w.groups)
    yield from candidates(np.zeros_like(weight), w.groups)


def places_of(w: ConvWorkload, core: Core) -> list[Places | None]:
    """Layouts of the input with the output as it is in NCHW, and with an output that has gaps between its rows."""
    if w.is_product:
        return [None]
    target = plain_layout(w.out_channels, w.out_height, w.out_width)
    padded = ConvWorkload(1, w.out_channels, w.out_height, w.out_width, 1, (3, 3), padding=(1, 1, 1, 1))
    gaps = layouts(padded, core.isa)[0]
    return [Places(source, out) for source in layouts(w, core.isa) for out in (target, gaps)]


def assert_legal(w: ConvWorkload, shape: TapShape, schedule: Schedule, core: Core, places: Places | None) -> None:
    """What the templates and the instruction set ask for, said once more and independently of how it is enumerated."""
    isa, lanes = core.isa, core.isa.lanes(w.precision.arithmetic)
    widest = max(lanes)
    assert schedule.lanes in {1, 2, 4, 8, 16}
    assert schedule.lanes <= widest
    if isinstance(schedule, ChannelSchedule):
        vectors = shape.group // schedule.lanes
        assert vectors * schedule.lanes == shape.group
        assert 1 <= schedule.images <= w.batch
        assert schedule.unroll * schedule.images * vectors + vectors + 1 <= isa.registers
        assert not any(w.padding), "the channels template knows no pixels but one"
        assert (w.out_height, w.out_width, w.groups) == (1, 1, 1)
    if not isinstance(schedule, PixelSchedule):
        return
    accumulators = shape.group * schedule.vectors
    weights = -(-shape.group // lanes[0]) if isa.lane_indexed_fma else min(shape.group, schedule.vectors)
    assert accumulators + weights + 1 <= isa.registers
    assert shape.bodies * shape.taps * accumulators <= core.costs.code or schedule.vectors == 1
    assert places is not None
    source = places.source
    down, across = source.step(w)
    seamless = (down, across, source.row_stride) == (
        1,
        1,
        w.out_width,
    ) and places.target.row_stride == places.target.width
    assert schedule.height or seamless, "tiles that run across rows need rows without gaps"
    assert 1 <= schedule.rows <= w.out_height
    assert schedule.height <= schedule.rows
    kernel = np.indices(w.kernel).reshape(2, -1).T
    corners = np.array([(w.in_channels - 1, r, c) for r, c in kernel], np.int32)
    first = source.entry_offsets(w, corners, np.arange(w.in_channels)).max()
    block = (w.out_height - schedule.rows) * down * source.row_stride
    tiles = block_tiles(w, schedule, isa, source)
    last = first + block + max(_last_read(run, down * source.row_stride, across) for run in tiles)
    assert last < source.size, f"{w} {schedule} {source!r}: reads behind the end of an image"


def _last_read(run: TileRun, line: int, across: int) -> int:
    """Offset from the block's start of the last element that the tiles of a run read for their first tap."""
    row, column = run.first_row + (run.rows - 1) * run.row_step, run.first_column + (run.columns - 1) * run.column_step
    return max((row + v.row) * line + (column + v.column + v.lanes - 1) * across for v in run.vectors)


@pytest.mark.parametrize("core", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("layer", LAYERS)
def test_every_encoding_of_every_layer_has_legal_schedules(layer: str, core: Core) -> None:
    w = LAYERS[layer]
    rng = np.random.default_rng(0)
    for candidate in encodings(w):
        where = places_of(w, core)
        for places in [where[n] for n in rng.choice(len(where), min(3, len(where)), replace=False)]:
            found = list(schedules(w, candidate, replace(core, l2_kib=int(rng.choice(L2_KIB))), places))
            assert found, candidate
            for max_group, shape, schedule in found:
                assert shape == candidate.shape(w.out_channels, w.groups, max_group)
                assert_legal(w, shape, schedule, core, places)


@pytest.mark.parametrize("core", SPACES.values(), ids=SPACES)
def test_random_layers_have_legal_schedules_for_what_is_encoded(core: Core) -> None:
    """The sizes that schedules are legal for are those of the encoding that is made afterwards."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        w = random_workload(rng)
        weight = random_weight(w, rng)
        where = places_of(w, core)
        for candidate in candidates(weight, w.groups):
            places = where[rng.integers(len(where))]
            found = list(schedules(w, candidate, replace(core, l2_kib=int(rng.choice(L2_KIB))), places))
            assert found, f"{w} {candidate}"
            for max_group, shape in dict.fromkeys((max_group, shape) for max_group, shape, _ in found):
                encoding = encode(weight, candidate, w.groups, max_group)
                made = encoding.group, len(encoding.bodies), len(encoding.bodies[0])
                assert made == (shape.group, shape.bodies, shape.taps), f"{w} {candidate}"
            for _, shape, schedule in found:
                assert_legal(w, shape, schedule, core, places)


@pytest.mark.parametrize("layer", ["vgg 3x3", "classifier"])
def test_schedules_are_frozen_and_survive_json(layer: str) -> None:
    w, core = LAYERS[layer], replace(CORES["avx512"], l2_kib=1024)
    places = places_of(w, core)[0]
    found = [s for c in encodings(w) for _, _, s in schedules(w, c, core, places)]
    assert {type(s) for s in found} == {family.schedule for family in DIRECT if family.applies(w)}
    for schedule in found:
        assert type(schedule)(**json.loads(json.dumps(asdict(schedule)))) == schedule
        with pytest.raises(FrozenInstanceError):
            setattr(schedule, fields(schedule)[0].name, 1)


@pytest.mark.parametrize("core", SPACES.values(), ids=SPACES)
def test_rank_is_deterministic_and_sorted(core: Core) -> None:
    for w in list(LAYERS.values())[::3]:
        found = list(encodings(w))
        ranking = rank(w, found, core)
        assert ranking == rank(w, found, core)
        cycles = [choice.cycles for choice in ranking]
        assert cycles == sorted(cycles)
        # Several families may compute one, a direct one always does.
        direct = [choice.candidate for choice in ranking if choice.family.direct]
        assert all(candidate in direct for candidate in found)
        assert cycles[0] > 0


@pytest.mark.parametrize("core", SPACES.values(), ids=SPACES)
def test_more_stored_weights_are_never_cheaper(core: Core) -> None:
    for name, w in list(LAYERS.items())[1::3]:
        for candidate in encodings(w):
            steps = [replace(candidate, stored=int(candidate.stored * share)) for share in (0, 0.3, 1)]
            cycles = [rank(w, [step], core)[0].cycles for step in steps]
            assert cycles == sorted(cycles), f"{name} {candidate}"


@pytest.mark.parametrize("core", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("structure", ["simd_block", "block_punched", "unstructured"])
def test_pruning_further_is_never_slower(structure: str, core: Core) -> None:
    """From the weight itself: the same structure of lower density, through detect and rank."""
    w = LAYERS["resnet last 3x3"]
    w = replace(w, in_channels=64, out_channels=64)
    weight = np.random.default_rng(1).standard_normal(w.weight_shape).astype(np.float32)
    costs: dict[str, list[float]] = {}
    for density in (0.05, 0.2, 0.4, 0.8):
        pruned = project(structure, weight, density)
        for choice in rank(w, STRUCTURES[structure].detect(pruned), core):
            name = f"{choice.family.name} {structure} {dict(choice.candidate.params)}"
            costs.setdefault(name, []).append(choice.cycles)
    for candidate, cycles in costs.items():
        assert cycles == sorted(cycles), candidate


@pytest.mark.parametrize("core", SPACES.values(), ids=SPACES)
def test_the_number_of_schedules_is_bounded_whatever_the_image(core: Core) -> None:
    core = replace(core, l2_kib=1024)

    def count(height: int, width: int) -> int:
        w = replace(LAYERS["vgg 3x3"], height=height, width=width)
        (candidate,) = STRUCTURES["dense"].detect(np.ones((w.out_channels, w.in_channels, 3, 3), np.float32))
        places = Places(layouts(w, core.isa)[0], plain_layout(w.out_channels, w.out_height, w.out_width))
        return len(list(schedules(w, candidate, core, places))) + len(list(winograd_schedules(w, core.isa)))

    for large, usual in (((1, 10**8), (1, 10**5)), ((10**7, 3), (10**5, 3)), ((10**6, 10**6), (10**4, 10**4))):
        assert count(*large) <= 1.1 * count(*usual), large


def test_a_target_enters_the_cost_by_what_it_takes_to_store() -> None:
    core, w = replace(CORES["avx512"], l2_kib=1024), LAYERS["vgg 3x3"]
    source, candidate = layouts(w, core.isa)[0], next(encodings(w))
    reader = replace(w, in_channels=w.out_channels)
    plain = plain_layout(w.out_channels, w.out_height, w.out_width)
    costs = {}
    for target in (plain, *layouts(reader, core.isa)):
        places = Places(source, target)
        (best,) = rank(w, [candidate], core, places, families=DIRECT)
        every = all_choices(w, [candidate], core, places, families=DIRECT)
        assert best.cycles == min(choice.cycles for choice in every)
        costs[target] = best.cycles
    assert min(costs.values()) == costs[plain]
    assert max(costs.values()) > costs[plain], "planes of each column are stored more often"
