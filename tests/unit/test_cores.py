"""What is known of cores: each number decides something, and what is predicted with them is what was measured."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from pconvgen.matching.fused_ops import FusedOp
from pconvgen.planning.choose import SPLIT_GAIN, Layer, layer_of
from pconvgen.planning.experience import experience, find_choice
from pconvgen.planning.search import rank
from pconvgen.planning.split import schedule_split
from pconvgen.records.record import Record, isa_of, target_key
from pconvgen.records.store import read_records
from pconvgen.schedules import ISAS, measured
from pconvgen.schedules.cores import CORES, core_of_cpu
from pconvgen.schedules.measured import latency_of, records_of
from pconvgen.sparsity import STRUCTURES, Candidate, candidates, project
from pconvgen.targets.presets import get_target
from pconvgen.templates.family import DIRECT
from pconvgen.templates.layout.proposals import layouts
from pconvgen.values.core import Core, Costs, VectorRate
from pconvgen.values.planes import Places, PlaneLayout, plain_layout
from pconvgen.values.precision import Precision
from pconvgen.values.target import Target
from pconvgen.values.workload import RELU, Activation, ConvWorkload, Epilogue
from tests.mixtures import mixture

SHIPPED = sorted(Path(measured.__file__).parent.glob("*.jsonl"))
ZEN4 = Target("host", replace(CORES["avx512-zen4"], l2_kib=1024), "x86_64-conda-linux-gnu", "znver4")
MEASURED = {
    "avx512-znver4": ZEN4,
    "avx2-znver4": replace(ZEN4, core=replace(CORES["avx2"], l2_kib=1024), features=("-avx512f",)),
    "neon-cortex-a76": get_target("cortex-a76"),
}
"""The target of each file of records that comes with pconvgen."""


def conv(channels: int, size: int, filters: int, width: int, stride: int = 1, /, **more: Any) -> ConvWorkload:
    square = ConvWorkload(1, channels, size, size, filters, (width, width), (stride, stride), (width // 2,) * 4)
    return replace(square, **more)


LAYERS = (
    conv(32, 28, 32, 3, 2),
    conv(32, 112, 32, 3),
    conv(64, 56, 64, 3),
    conv(128, 28, 128, 3),
    conv(64, 112, 128, 3, 2),
    conv(64, 56, 256, 1),
    conv(256, 28, 256, 3),
    conv(512, 7, 512, 3),
    conv(3, 224, 32, 3, 2),
    conv(3, 224, 64, 7, 2),
    conv(256, 56, 64, 1),
    conv(96, 14, 576, 1),
    conv(960, 7, 160, 1),
    conv(256, 56, 512, 1, 2),
    conv(32, 112, 32, 3, groups=32),
    conv(144, 56, 144, 3, 2, groups=144),
    conv(480, 14, 480, 5, groups=480),
    conv(64, 224, 64, 3),
    conv(128, 17, 192, 7, kernel=(1, 7), padding=(0, 3, 0, 3)),
    conv(32, 33, 32, 3, dilation=(6, 6), padding=(6,) * 4),
    conv(32, 56, 32, 5),
    conv(64, 28, 64, 3, groups=4),
    ConvWorkload(1, 512, 1, 1, 1000, (1, 1)),
    ConvWorkload(1, 4096, 1, 1, 1000, (1, 1)),
    ConvWorkload(16, 512, 1, 1, 256, (1, 1)),
    conv(128, 14, 128, 3, batch=4),
)
PRUNED = {"pattern": 0.25, "simd_block": 0.25, "unstructured": 0.2, "dense": 1.0}


@lru_cache
def encodings(workload: ConvWorkload, structure: str) -> tuple[Candidate, ...]:
    """Those that hold a weight of a structure."""
    weight = np.random.default_rng(0).standard_normal(workload.weight_shape).astype(np.float32)
    weight = weight if structure == "dense" else project(structure, weight, PRUNED[structure], groups=workload.groups)
    return tuple(candidates(weight, workload.groups))


def kernel(workload: ConvWorkload, structure: str, number: int) -> Callable[[Core], Hashable]:
    """Which encoding and schedule are chosen, with one of the layouts of the input."""

    def judge(core: Core) -> Hashable:
        places = None
        if not workload.is_product:
            found = layouts(workload, core.isa)
            target = plain_layout(workload.out_channels, workload.out_height, workload.out_width)
            places = Places(found[number % len(found)], target)
        best = rank(workload, encodings(workload, structure), core, places)[0]
        return str(best.candidate), best.max_group, best.schedule

    return judge


def layout(first: ConvWorkload, second: ConvWorkload) -> Callable[[Core], Hashable]:
    """How the tensor between two layers lies."""

    def judge(core: Core) -> Hashable:
        source, out = layouts(first, core.isa)[0], plain_layout(second.out_channels, *second_size)
        found = [between for between in layouts(second, core.isa) if between.writable]
        cycles = [
            rank(first, encodings(first, "dense"), core, Places(source, between))[0].cycles
            + rank(second, encodings(second, "dense"), core, Places(between, out))[0].cycles
            for between in found
        ]
        return found[int(np.argmin(cycles))]

    second_size = (second.out_height, second.out_width)
    return judge


def split(size: int, blocks: float) -> Callable[[Core], Hashable]:
    """Whether a weight of blocks and single weights is computed by two kernels."""
    workload = conv(64, size, 64, 3)
    weight = mixture(workload.weight_shape, blocks, 0.05)
    layer = layer_of(FusedOp(None, "conv2d", None, weight, None, None, None, frozenset(), workload, ()), "mixed")
    assert layer.splits

    def judge(core: Core) -> Hashable:
        places = Places(layouts(workload, core.isa)[0], plain_layout(64, size, size))
        single = rank(workload, layer.candidates, core, places)[0].cycles
        return SPLIT_GAIN * min(schedule_split(workload, s, core, places).cycles for s in layer.splits) <= single

    return judge


def judgements() -> Iterator[Callable[[Core], Hashable]]:
    """All that is decided, what takes the least time first."""
    for size in (4, 5, 6, 7):
        for blocks in (0.07, 0.1):
            yield split(size, blocks)
    for channels, size in ((8, 28), (8, 14), (16, 7), (32, 7)):
        yield layout(conv(channels, size, channels, 1), conv(channels, size, channels, 3))
        yield layout(conv(channels, size, channels, 1), conv(channels, size, channels, 3, 2))
    for workload in LAYERS:
        for structure in PRUNED:
            if structure == "pattern" and workload.kernel == (1, 1):
                continue
            if structure != "dense" and 1 < workload.in_channels == workload.groups:
                continue
            for number in range(1 if workload.is_product else 6):
                yield kernel(workload, structure, number)


def changed(core: Core, number: str, factor: float) -> Core:
    """A core of which one number is another; of `rates` that of the native vectors."""

    def times(row: Any) -> Any:
        value = factor * getattr(row, number)
        return replace(row, **{number: int(value) if value == int(value) else value})

    if number in NUMBERS[Costs]:
        return replace(core, costs=times(core.costs))
    if number in NUMBERS[VectorRate]:
        return replace(core, rates=(times(core.rates[0]), *core.rates[1:]))
    return times(core)  # type: ignore[no-any-return]


NUMBERS = {
    Costs: [each.name for each in fields(Costs)],
    VectorRate: [each.name for each in fields(VectorRate)],
    Core: ["issue", "l1_kib", "l2_kib"],
}
JUDGES = [CORES["cortex-a53"], CORES["cortex-a76"], replace(CORES["avx512-zen4"], l2_kib=1024)]


@pytest.mark.parametrize("number", [number for numbers in NUMBERS.values() for number in numbers])
def test_every_number_decides_something(number: str) -> None:
    """Twice or half of it changes what is chosen somewhere: one that does not is in nobody's way, and goes."""
    for judge in judgements():
        for core in JUDGES:
            chosen = judge(core)
            if any(judge(changed(core, number, factor)) != chosen for factor in (2, 0.5)):
                return
    pytest.fail(f"{number} changes no choice")


def test_all_numbers_are_judged() -> None:
    others = {each.name for each in fields(Core)} - set(NUMBERS[Core])
    assert others == {"name", "isa", "rates", "costs", "cpus"}


def test_every_processor_has_one_row_and_every_instruction_set_one_for_the_others() -> None:
    named = [(core.isa.name, cpu) for core in CORES.values() for cpu in core.cpus]
    assert len(set(named)) == len(named)
    for name, isa in ISAS.items():
        assert CORES[name].isa is isa
        assert core_of_cpu(isa, "of next year") is CORES[name]
    for core in CORES.values():
        assert len(core.rates) == len(core.isa.widths)
        assert all(core_of_cpu(core.isa, cpu) is core for cpu in core.cpus)


COUNTED = {
    (128, "simd_block", 4): 2.05,
    (128, "simd_block", 8): 2.05,
    (128, "block_punched", 0): 2.05,
    (128, "pattern", 0): 2.14,
    (128, "unstructured", 0): 2.94,
    (128, "dense", 0): 15.1,
    (256, "simd_block", 4): 8.5,
    (256, "simd_block", 8): 9.2,
    (256, "pattern", 0): 8.9,
    (256, "unstructured", 0): 11.7,
}
"""Millions of cycles, packing included, of 3x3 layers at 28x28 with an eighth of their weights: (channels, structure,
filters of a block), counted by a trace-driven model of a core as the Cortex-A76: four instructions wide, two vector
pipes, FMAs that wait two cycles for an accumulator, two loads of which one over a line's end takes a slot more, 64 KiB
and 512 KiB of caches with prefetchers, TLBs."""


def test_the_a76_is_as_a_model_of_its_pipelines_and_caches_counts() -> None:
    found = {}
    for channels, structure, block in COUNTED:
        workload = conv(channels, 28, channels, 3, epilogue=Epilogue(bias=True, activation=RELU))
        weight = np.random.default_rng(0).standard_normal(workload.weight_shape).astype(np.float32)
        if structure != "dense":
            weight = project(structure, weight, 0.125, **({"n": block} if block else {}))
        mine = [c for c in STRUCTURES[structure].detect(weight) if not block or c.params["n"] == block]
        choice = rank(workload, mine, CORES["cortex-a76"], families=DIRECT)[0]
        found[channels, structure, block] = choice.cycles / 1e6
    for key, counted in COUNTED.items():
        assert found[key] == pytest.approx(counted, rel=0.1), key
    assert spearmanr(list(COUNTED.values()), list(found.values())).statistic >= 0.9
    # Single weights, with a load for each FMA: 1.4 times, and 1.1 if a load over a line's end were like any other.
    for channels in (128, 256):
        assert found[channels, "unstructured", 0] >= 1.25 * found[channels, "simd_block", 4]


def test_no_record_that_comes_with_pconvgen_is_lost() -> None:
    """Those name the core where newer ones name its instruction set, and some are of before the core had a row."""
    from pconvgen.latency.model import LatencyModel
    from pconvgen.records.describe import describe_target

    assert {path.stem for path in SHIPPED} == set(MEASURED)
    for path in SHIPPED:
        target = MEASURED[path.stem]
        records = list(read_records(path))
        assert path in records_of(target.core.isa.name)
        assert {target_key(record.target) for record in records} == {target_key(describe_target(target))}
        assert {isa_of(record.target) for record in records} == {target.core.isa.name}
        known = latency_of(target.core.isa.name, target.cpu)
        assert (known is not None) == path.with_suffix(".json").exists() == target.is_host
        assert known is None or LatencyModel.load(known).is_of(target)
    a76 = get_target("cortex-a76")
    assert len(experience(a76).records) == len(list(read_records(SHIPPED[-1]))) > 50
    assert experience(replace(a76, core=CORES["neon"])).records == experience(a76).records, "whatever the core's row"


@pytest.mark.parametrize(("name", "floor"), [("avx512-znver4", 0.97), ("avx2-znver4", 0.96), ("neon-cortex-a76", 0.99)])
def test_predictions_are_in_the_order_of_what_was_measured(name: str, floor: float) -> None:
    """Over layers, of which there are records of the fastest schedules only. Those of the A76 are cycles of llvm-mca,
    in which memory takes no time, as it then does for the core."""
    target, costs, cycles, lost = MEASURED[name], [], [], 0
    if not target.is_host:
        free = {"l2_bytes": np.inf, "l3_bytes": np.inf, "memory_bytes": np.inf, "cold": 0.0, "tlb_miss": 1.0}
        target = replace(target, core=replace(target.core, costs=replace(target.core.costs, **free)))
    (path,) = (path for path in SHIPPED if path.stem == name)
    for record in list(read_records(path))[:: 2 if target.is_host else 1]:
        choice = find_choice(record, layer_from(record), target, places_from(record))
        if choice is None:
            lost += 1
        else:
            costs.append(record.cost)
            cycles.append(choice.cycles)
    # Weights are drawn anew, and one has another structure by chance; schedules are all found.
    assert lost <= len(costs) // 100
    assert spearmanr(costs, cycles).statistic >= floor


def layer_from(record: Record) -> Layer:
    """The layer of a record, with a weight that is drawn anew."""
    epilogue, precision = record.workload["epilogue"], record.workload["precision"]
    plain = {name: _tuples(value) for name, value in record.workload.items()}
    activation = None if epilogue["activation"] is None else _activation(epilogue["activation"])
    plain["epilogue"] = Epilogue(epilogue["bias"], epilogue["residual"], activation)
    workload = ConvWorkload(**{**plain, "precision": Precision.from_json(precision)})
    share = record.weight["nonzeros"] / record.weight["size"]
    weight = _drawn(workload.weight_shape, record.weight["structure"], share, workload.groups)
    op = FusedOp(None, "conv2d", None, weight, None, None, None, frozenset(), workload, ())
    return layer_of(op, "recorded")


def places_from(record: Record) -> Places | None:
    """The layouts of a record."""
    if record.places is None:
        return None
    found = {
        name: None if each is None else PlaneLayout(**{key: _tuples(value) for key, value in each.items()})
        for name, each in record.places.items()
    }
    return Places(**found)  # type: ignore[arg-type]


@lru_cache
def _drawn(shape: tuple[int, ...], structure: str, share: float, groups: int) -> NDArray[np.float32]:
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    name, _, block = re.fullmatch(r"(\w+)(\((\d+).*\))?", structure).groups()  # type: ignore[union-attr]
    return (
        weight
        if name == "dense"
        else project(name, weight, share, groups=groups, **({"n": int(block)} if block else {}))
    )


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _activation(described: Any) -> Activation:
    if isinstance(described, float):
        return described  # type: ignore[return-value]
    return Activation(described["name"], tuple(_activation(operand) for operand in described["operands"]))
