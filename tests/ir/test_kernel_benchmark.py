"""The kernel benchmark's own reckoning: layers, rounds, shares, promises. Nothing here is timed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from benchmarks import measuring
from benchmarks.engines import environments, running
from benchmarks.kernels import deepsparse, run
from benchmarks.kernels.__main__ import main
from benchmarks.kernels.against import Comparison, ratios
from benchmarks.kernels.filters import Filters
from benchmarks.kernels.promises import PEER_PROMISES, PROMISES, Promise, geometric_mean, judge, judge_peer
from benchmarks.kernels.roofline import draw
from benchmarks.kernels.row import Row
from benchmarks.layer_data import layer_model, random_data
from benchmarks.layers import DENSITIES, GROUPS, PRUNINGS, Layer, layers
from benchmarks.measuring import Reading, interleave
from benchmarks.peak.meters import Meter, Roofs
from pconvgen.errors import PconvgenError
from pconvgen.values.workload import RELU, ConvWorkload, Epilogue

ROOT = Path(__file__).resolve().parents[2]
PEAK = 100.0
SMALL = ConvWorkload(1, 16, 6, 6, 16, (3, 3), padding=(1, 1, 1, 1), epilogue=Epilogue(bias=True, activation=RELU))


def row(layer: str, share: float, structure: str = "pattern", density: float = 0.125, group: str = "3x3") -> Row:
    """A row whose kernel has this share of PEAK: 1 MFLOP in so many milliseconds."""
    return Row(group, layer, structure, density, density, structure, {}, 1 / (share * PEAK), 0.0, PEAK, 10**6, 10**5)


def squares() -> list[Layer]:
    return [layer for layer in layers() if layer.group == "3x3"]


def test_layers_are_distinct_and_complete():
    found = layers()
    assert len({(layer.group, layer.name) for layer in found}) == len({layer.workload for layer in found}) == len(found)
    assert tuple(dict.fromkeys(layer.group for layer in found)) == GROUPS
    # ResNet-50's bottlenecks: three shapes in the first stage, four 1x1 (one with a stride) in each of the others.
    pointwise = [layer.workload for layer in found if layer.group == "1x1"]
    assert len(pointwise) == 15
    assert sum(w.stride == (2, 2) for w in pointwise) == 3
    assert [layer.name for layer in found if layer.group == "strided"] == [
        "3-64@224/2",
        "128@56/2",
        "256@28/2",
        "512@14/2",
    ]
    depthwise = [layer.workload for layer in found if layer.group == "depthwise"]
    assert len(depthwise) == 10
    assert all(w.groups == w.in_channels == w.out_channels for w in depthwise)


def test_every_layer_is_measured_dense_once_and_pruned_as_its_shape_allows():
    for layer in layers():
        names = {p.name: [d for d in DENSITIES if p.suits(layer, d)] for p in PRUNINGS}
        assert names.pop("dense") == [1.0]
        pruned = {name for name, densities in names.items() if densities}
        assert all(densities == [0.05, 0.125, 0.25, 0.5] for densities in names.values() if densities)
        if layer.group == "depthwise":
            assert pruned == {"pattern"}
        if layer.group == "1x1":
            assert pruned == set(names) - {"pattern"}
        if layer.group == "3x3":
            assert pruned == set(names)


@pytest.mark.parametrize("pruning", PRUNINGS, ids=lambda pruning: pruning.name)
def test_prunings_keep_the_density_and_shape_that_they_are_named_for(pruning):
    density = 1.0 if pruning.structure == "dense" else 0.125
    data = random_data(replace(SMALL, in_channels=64, out_channels=64), pruning, density)
    alive = data.weight != 0
    assert alive.mean() == pytest.approx(density, rel=0.02)
    if pruning.structure == "pattern":
        kernels = alive.reshape(-1, 9)[alive.any(axis=(2, 3)).reshape(-1)]
        assert len(kernels) / 64**2 == pytest.approx(0.28, abs=0.01)
        assert len(np.unique(kernels, axis=0)) == 8
        assert len(set(alive.any(axis=(2, 3)).sum(axis=1))) > 1  # connectivity is not balanced


def test_rounds_take_turns_and_the_best_of_each_counts(monkeypatch):
    monkeypatch.setattr(measuring, "LIMIT_S", 60.0)
    turns = []
    times = iter([3.0, 1.0, 2.0])

    def subject(name, ms):
        def read():
            turns.append(name)
            return Reading(ms(), 1.0)

        return read

    def rate():
        turns.append("peak")
        return PEAK

    subjects = {"kernel": subject("kernel", lambda: next(times, 2.0)), "pack": subject("pack", lambda: 0.5)}
    assert interleave(subjects, Meter(rate)) == {"kernel": 1.0, "pack": 0.5, "peak": PEAK}
    assert turns == ["peak", "kernel", "pack"] * (len(turns) // 3)
    # The second round still found a better time; only quiet ones after it count.
    assert len(turns) // 3 == 2 + measuring.QUIET_ROUNDS


@pytest.mark.parametrize(("rates", "core"), [((PEAK, PEAK / 2), 1.0), ((PEAK,), 0.5)], ids=["peak", "core"])
def test_rounds_among_neighbours_are_not_quiet(monkeypatch, rates, core):
    monkeypatch.setattr(measuring, "LIMIT_S", 0.05)
    readings = iter(rates)
    peak = Meter(lambda: next(readings, rates[-1]))
    peak()
    subjects = {"kernel": lambda: Reading(1.0, core), "pack": lambda: Reading(1.0, 1.0)}
    highest = interleave(subjects, peak)["peak"]
    assert measuring.is_noisy(highest, peak.best)


def test_a_later_peak_lowers_shares_and_a_slower_one_does_not_raise_them():
    rates = iter([80.0, 100.0, 50.0])
    peak = Meter(lambda: next(rates))
    shares = []
    for _ in range(3):
        peak()
        shares.append(row("64@56", 0.4).json(peak.best)["share"])
    assert shares == pytest.approx([0.5, 0.4, 0.4])


def test_merging_keeps_the_best_of_each():
    first, second = replace(row("64@56", 0.5), pack_ms=0.1, peak_gflops=40.0), replace(row("64@56", 0.4), pack_ms=0.05)
    merged = first.merged(second)
    assert merged == replace(first, pack_ms=0.05, peak_gflops=PEAK)
    assert first.noisy(PEAK)
    assert not merged.noisy(PEAK)


def test_promises_name_rows_that_are_measured():
    measured = {(row.group, p.name, d) for row in layers() for p in PRUNINGS for d in DENSITIES if p.suits(row, d)}
    assert {(promise.group, promise.structure, promise.density) for promise in PROMISES} <= measured
    assert {promise.structure for promise in PEER_PROMISES} <= {pruning.name for pruning in PRUNINGS}


@pytest.mark.parametrize(
    ("shares", "word"),
    [
        ([0.80] * 8, "ok"),
        ([0.69] * 8, "MISSED"),  # the mean
        ([0.95] * 7 + [0.5], "MISSED"),  # one layer
        ([0.95] * 7, "not judged: 7 of 8 layers"),
        ([], "not measured"),
    ],
)
def test_a_promise_is_judged_by_mean_and_floor_of_all_layers(shares, word):
    rows = [row(layer.name, share) for layer, share in zip(squares(), shares, strict=False)]
    others = [row(layer.name, 0.1, density=0.5) for layer in squares()]
    verdict = judge(Promise("pattern", "3x3", 0.125, 0.72, 0.55), [*rows, *others], layers(), PEAK)
    assert verdict.word == word
    assert verdict.missed == (word == "MISSED")


def test_a_peer_is_judged_by_the_geometric_mean_of_ratios():
    found = [
        Comparison(layer.name, 3.0, PEAK, {"pattern": ms}) for layer, ms in zip(squares(), [1, 4] * 4, strict=True)
    ]
    assert geometric_mean(ratios(found, "pattern")) == pytest.approx(1.5)
    (promise,) = (promise for promise in PEER_PROMISES if promise.structure == "pattern")
    assert judge_peer(replace(promise, ratio=1.4), ratios(found, "pattern"), layers(), "peer").word == "ok"
    assert judge_peer(replace(promise, ratio=1.6), ratios(found, "pattern"), layers(), "peer").missed
    assert judge_peer(promise, ratios(found[:3], "pattern"), layers(), "peer").word == "not judged: 3 of 8 layers"
    assert judge_peer(promise, ratios(found, "dense"), layers(), "peer").word == "not measured"


def test_the_peer_gets_the_same_layer():
    data = random_data(SMALL, PRUNINGS[0], 0.25)
    model = layer_model(SMALL, data)
    onnx.checker.check_model(model)
    (found,) = ReferenceEvaluator(model).run(None, {"data": data.data})
    data.check(found, "the model")
    with pytest.raises(ValueError, match="computes something else"):
        data.check(found + 1, "another one")


def test_a_peer_that_cannot_be_had_is_an_error_with_its_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(environments, "PYTHONS", ("no-such-python",))
    with (
        pytest.raises(PconvgenError, match=r"no Python for DeepSparse .*no-such-python.*3\.8 to 3\.11"),
        deepsparse.peer(),
    ):
        pass


def test_a_peer_that_dies_is_an_error_with_its_last_words(monkeypatch, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text("import sys; sys.stdin.readline(); sys.exit('out of luck')")
    monkeypatch.setattr(running, "WORKER", worker)
    monkeypatch.setattr(environments, "environment", lambda *_: sys.executable)
    with deepsparse.peer() as peer, pytest.raises(PconvgenError, match="out of luck"):
        peer.read()


def test_the_picture_is_drawn(tmp_path):
    rows = [row(layer.name, 0.5, group=layer.group) for layer in layers()]
    draw(rows, Roofs(PEAK, 100.0, 20.0), "cpu", tmp_path / "kernels.png")
    assert (tmp_path / "kernels.png").read_bytes().startswith(b"\x89PNG")
    draw(rows[:1], Roofs(PEAK, 100.0, 20.0), "cpu", tmp_path / "one.png")


@pytest.mark.long
@pytest.mark.host
def test_one_row_from_the_command_line_to_its_files(tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks.kernels",
        "--layers",
        "960@7",
        "--densities",
        "0.5",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "pattern" in done.stdout
    assert "missing: not asked for" in done.stdout
    (found,) = json.loads((tmp_path / "kernels.json").read_text())["rows"]
    assert (found["group"], found["layer"], found["structure"]) == ("depthwise", "960@7", "pattern")
    assert found["density"] == pytest.approx(4 / 9)
    assert found["flops"] == 2 * 4 * 960 * 49
    surviving_input_output = 4 * (4 * 960 + 2 * 960 * 49)
    assert surviving_input_output < found["nbytes"] < 1.2 * surviving_input_output
    assert (tmp_path / "kernels.png").is_file()


def test_filters_that_nothing_passes_are_an_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kernels", "--layers", "no-such-layer"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "nothing passes the filters (found no-such-layer, expected layers of 3x3" in capsys.readouterr().err


def test_what_was_measured_is_kept_when_it_is_interrupted(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    todo = Filters(["3x3"], ["pattern"], [0.125]).cases()

    def measured_row(layer, *_):
        if layer == todo[2][0]:
            raise KeyboardInterrupt
        return row(layer.name, 0.5)

    monkeypatch.setattr(run, "measure", measured_row)
    for meter in ("fma_meter", "l2_meter", "memory_meter"):
        monkeypatch.setattr(run, meter, lambda _target: SimpleNamespace(best=PEAK))
    monkeypatch.setattr(run, "roofs", lambda *_: Roofs(PEAK, 100.0, 20.0))
    with pytest.raises(KeyboardInterrupt):
        run.run(Filters(["3x3"], ["pattern"], [0.125]), against=False, folder=tmp_path / "full")
    kept = json.loads((tmp_path / "out" / "kernels.json").read_text())
    assert [found["layer"] for found in kept["rows"]] == [case[0].name for case in todo[:2]]
    assert not (tmp_path / "full" / "kernels.json").exists(), "what was there before is better"
    printed = capsys.readouterr()
    assert "lanes" in printed.out
    assert f"1 of {len(todo)}: " in printed.err
