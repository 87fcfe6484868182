"""The benchmark of whole networks: what it makes of measurements; nothing is timed here."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import pconvgen
from benchmarks.arm.networks import count, promises
from benchmarks.arm.networks.results import Row, table
from benchmarks.arm.peers import PEERS
from benchmarks.engines import environments
from benchmarks.engines import running as engine_processes
from benchmarks.engines.engine import DEEPSPARSE, LIBRARY, Engine
from benchmarks.engines.engine import DENSE as ENGINES
from benchmarks.engines.running import running
from benchmarks.models.cases import CASES, Case, Variant
from benchmarks.models.exported import export
from benchmarks.networks.layer_times import assign, layer_ms, profile, slower_than_dense
from benchmarks.networks.page import CoreResults, page
from benchmarks.networks.pictures import draw_all
from benchmarks.networks.promises import SPEED, judge_speed, verdicts
from benchmarks.networks.results import (
    DENSE,
    OURS,
    LayerTime,
    Library,
    NetworkResult,
    Profile,
    Timing,
    load,
    merged,
    save,
)
from benchmarks.networks.tables import SUMMARY_COLUMNS, engine_rows, network_table, summary_rows, summary_table
from pconvgen.errors import PconvgenError
from pconvgen.frontend.torch.weights import module_layers
from pconvgen.sparsity import density
from pconvgen.values.decision import Decision

SMALL = Case(
    "mobilenet_v2", "small", 32, (Variant("simd_block", 0.5),), options={"num_classes": 10, "width": 0.25}, scaling=True
)
PROMISE = SPEED[0]


def timing(engine, ms, weights=DENSE, threads=1, core=1.0):
    return Timing(engine, weights, threads, ms, 1.1 * ms, core, 1e-6)


def result(ours=10.0, peers=40.0, sparse=20.0, bound=9.0, layers=((1.0, 2.0),), missing=()):
    """A network as PROMISE is about; `bound` in ms at a peak of 100 GFLOP/s, `layers` of (ms, dense ms)."""
    weights = PROMISE.weights
    times = [timing(engine.name, peers) for engine in ENGINES if engine.name not in missing]
    libraries = [Library(name, 5.0, 1.0, 100, 200, bound * 1e8 / 2) for name in (DENSE, weights)]
    rows = tuple(LayerTime(f"layer{i}", "3x3", 1e6, ms, dense) for i, (ms, dense) in enumerate(layers))
    return NetworkResult(
        network=PROMISE.network,
        title="A network",
        size=224,
        date="2026-01-01",
        cpu="cpu",
        versions={"pconvgen": "1", "MNN": "2"},
        peak_gflops={1: 100.0, 2: 200.0},
        timings=(
            *times,
            timing(DEEPSPARSE.name, sparse, f"unstructured {weights}"),
            timing(OURS, peers),
            timing(OURS, peers / 2, threads=2),
            timing(OURS, ours, weights),
            timing(OURS, ours / 1.9, weights, threads=2),
        ),
        libraries=tuple(libraries),
        profiles=(Profile(weights, rows, {"3x3": 1.0, "packing": 0.1}),),
        missing=tuple(f"{name}: not there" for name in missing),
    )


@pytest.mark.parametrize(
    ("measured", "word"),
    [
        (result(), "ok"),
        (result(peers=10 * PROMISE.dense - 1), "MISSED"),
        (result(sparse=10 * PROMISE.sparse - 1), "MISSED"),
        (result(bound=10 / PROMISE.bound - 1), "MISSED"),
        (result(missing=("MNN",)), "not judged without MNN"),
    ],
)
def test_a_pruned_network_is_judged_by_dense_sparse_and_bound(measured, word):
    promise = replace(PROMISE, bound=1.35)
    assert judge_speed(promise, measured).word == word


def test_a_network_without_deepsparse_is_not_judged():
    measured = result()
    kept = tuple(row for row in measured.timings if row.weights != f"unstructured {PROMISE.weights}")
    assert judge_speed(PROMISE, replace(measured, timings=kept)).word == "not measured"


def test_every_other_promise_can_be_missed():
    kept = {v.text: v for v in verdicts([result()])}
    assert not any(v.missed for v in kept.values())
    slow_scaling = tuple(replace(row, ms=1.5 * row.ms) if row.threads == 2 else row for row in result().timings)
    slow_dense = tuple(
        replace(row, ms=50.0) if row.engine == OURS and row.weights == DENSE else row for row in result().timings
    )
    large = tuple(replace(row, nbytes=300, compile_s=1000.0) for row in result().libraries)
    for broken, words in (
        ({"timings": slow_scaling}, "two threads"),
        ({"timings": slow_dense}, "not pruned"),
        ({"libraries": large}, "weights and indices"),
        ({"libraries": large}, "compiled in"),
        ({"profiles": result(layers=((2.0, 1.0),)).profiles}, "no layer slower"),
    ):
        missed = [v.text for v in verdicts([replace(result(), **broken)]) if v.missed]
        assert any(words in text for text in missed), (words, missed)


def test_noise_does_not_make_a_layer_slower_than_dense():
    layers = [
        LayerTime("stays dense", "3x3", 1.0, 2.0, 1.0, pruned=False),
        LayerTime("a", "3x3", 1.0, 1.04, 1.0),
        LayerTime("b", "3x3", 1.0, 0.011, 0.002),
        LayerTime("c", "", 1.0, 1.1, 1.0),
    ]
    assert [layer.name for layer in slower_than_dense(Profile("w", tuple(layers), {}))] == ["c"]


def decision(name, nbytes):
    return Decision(name, "conv2d", (8, 8, 3, 3), 1000, "dense", 0.5, "pixels: dense", "", nbytes=nbytes)


def test_calls_are_layers_by_their_constants():
    decisions = [decision("a", 30), decision("b", 30), decision("c", 50)]
    calls = [
        {"name": "pack_0", "nbytes": [5, 6], "ms": 0.5},
        {"name": "pixels_0", "nbytes": [6, 10, 20, 1, 7], "ms": 1.0},
        {"name": "pool_0", "nbytes": [30, 50], "ms": 0.25},
        {"name": "pixels_0", "nbytes": [6, 10, 20, 1, 7], "ms": 2.0},
        {"name": "fused_add", "nbytes": [7, 7, 7], "ms": 0.125},
    ]
    owners = assign(calls, decisions)
    assert [owner and owner.name for owner in owners] == [None, "a", None, "b", None]
    assert layer_ms(calls, owners) == {"a": 1.5, "b": 2.0}
    found = profile("w", calls, decisions, calls, decisions)
    assert [(layer.name, layer.macs, layer.dense_ms) for layer in found.layers] == [("a", 500, 1.5), ("b", 500, 2.0)]
    assert found.parts == {"packing": 0.5, "3x3": 3.0, "pooling": 0.25, "other operators": 0.125}


def test_a_split_layer_has_two_calls():
    split = replace(decision("split", 75), choice="pixels: simd_block(4) + unstructured")
    calls = [
        {"name": "pixels_0", "nbytes": [6, 10, 20, 9], "ms": 1.0},
        {"name": "vm.builtin.alloc_tensor", "nbytes": [7], "ms": 0.25},
        {"name": "pixels_1", "nbytes": [6, 30, 15, 9, 7], "ms": 2.0},
        {"name": "pixels_2", "nbytes": [7, 50, 7], "ms": 0.5},
    ]
    owners = assign(calls, [split, decision("next", 50)])
    assert [owner and owner.name for owner in owners] == ["split", None, "split", "next"]
    assert layer_ms(calls, owners) == {"split": 3.0, "next": 0.5}


def test_results_survive_their_file(tmp_path):
    path = tmp_path / "networks.json"
    assert load(path) == []
    save([result()], path)
    assert load(path) == [result()]


def test_networks_that_are_measured_again_take_their_places():
    old = [result(), replace(result(), network="another")]
    again = result(ours=5.0)
    assert merged(old, [again]) == [again, old[1]]
    assert merged([], [again]) == [again]


def test_tables_and_pictures_and_page(tmp_path):
    measured = [result(missing=("MNN",)), replace(result(), network="another", profiles=())]
    rows = summary_rows(measured[0])
    assert all(len(row) == len(SUMMARY_COLUMNS) for row in rows)
    assert {"4.00x", "2.00x", "1.11", "1.90x of 2.00x"} <= set(rows[1])
    assert engine_rows(measured[0])[-1][0] == OURS
    assert network_table(measured[0]).row_count == len(measured[0].timings)
    assert summary_table(measured).row_count == 4
    for path in draw_all(measured, tmp_path):
        assert path.read_bytes().startswith(b"\x89PNG")
    core = CoreResults("avx2-here", measured, verdicts(measured), ["a/networks.png"])
    there = CoreResults("neon-there", measured[:1], verdicts(measured[:1]), [])
    text = page([core, there])
    assert "| network | weights | avx2-here, ms | x best dense engine | neon-there, ms |" in text
    assert text.count("### Promises") == 2
    assert "MNN: not there" in text
    assert "| A network |" in text
    assert "](a/networks.png)" in text


def test_a_busy_core_is_marked():
    assert timing(OURS, 1.0, core=0.5).noisy
    assert not timing(OURS, 1.0).noisy


def test_the_same_number_of_weights_in_every_layer():
    variant = SMALL.variants[0]
    pruned, other = (module_layers(model) for model in (SMALL.pruned(variant), SMALL.unstructured(variant)))
    kept = [density(layer.weight) for layer in pruned]
    assert min(kept) < 0.6
    assert [density(layer.weight) for layer in other] == pytest.approx(kept, abs=0.01)


def test_cases_name_layers_that_are_there():
    vgg = replace(CASES[0], options={"num_classes": 10, "width": 0.125, "pool": 1, "hidden": 32})
    kept = {layer.name: density(layer.weight) for layer in module_layers(vgg.pruned(vgg.variants[0]))}
    assert kept["features.0"] == 1
    assert all(value < 0.3 for name, value in kept.items() if name != "features.0")


@pytest.mark.long
@pytest.mark.host
def test_a_library_in_its_process_computes_and_tells_its_layers(tmp_path):
    exported = export(SMALL.pruned(SMALL.variants[0]), SMALL.image(), tmp_path / "model.onnx")
    compiled = pconvgen.compile(str(exported.path))
    path = compiled.export(tmp_path / "model.so")
    with running(LIBRARY) as process:
        found = process.load(path, exported.inputs, list(exported.expected))
        assert exported.error(found) < 1e-4
        assert not exported.error([np.zeros((1, 3), np.float32)]) < 1e-4
        assert process.read(0.0, 2).ms > 0
        calls = process.profile(2)
    owners = [owner.name for owner in assign(calls, compiled.decisions) if owner is not None]
    assert sorted(owners) == sorted(decision.name for decision in compiled.decisions)
    assert all(call["ms"] >= 0 for call in calls)


def test_an_environment_is_made_anew_when_requirements_change(monkeypatch, tmp_path):
    made = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(environments, "_python", lambda *_: "python3")

    def run_child(command, *_, **__):
        made.append(command)
        if "venv" in command:
            (tmp_path / "pconvgen" / "engine-1" / "bin").mkdir(parents=True)

    monkeypatch.setattr(environments, "run_child", run_child)
    for requirements, commands in ((["engine==1"], 2), (["engine==1"], 2), (["engine==1", "numpy"], 4)):
        environments.environment("engine", requirements, (3, 13))
        assert len(made) == commands


def test_what_an_engine_cannot_do_is_an_error_with_its_words(monkeypatch):
    monkeypatch.setattr(engine_processes, "ANSWER_S", 60)
    with running(Engine("none", "no such session")) as process, pytest.raises(PconvgenError, match="no such session"):
        process.load(None, {"input": np.zeros(1, np.float32)}, ["output"])


def test_the_detector_has_a_map_for_every_stride(tmp_path):
    case = Case("yolo", "small", 64, (), options={"num_classes": 3, "width": 0.125})
    exported = export(case.build(), case.image(), tmp_path / "model.onnx")
    assert [array.shape for array in exported.expected.values()] == [(1, 24, 8, 8), (1, 24, 4, 4), (1, 24, 2, 2)]


def test_images_repeat():
    assert torch.equal(SMALL.image(), SMALL.image())
    assert sys.executable == str(LIBRARY.python())


def arm_rows(ours, missing=()):
    promise = promises.PROMISES[0]
    peers = [peer.name for peer in PEERS if peer.name not in missing]
    return [
        Row(promise.network, "A network", OURS, promise.weights, ours, ours // 2, ours // 3),
        *(Row(promise.network, "A network", name, DENSE, 1000 + i, 500, 0) for i, name in enumerate(peers)),
    ]


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        (arm_rows(550), "ok"),
        (arm_rows(551), "MISSED"),
        (arm_rows(400, missing=("MNN",)), "not judged without MNN"),
        ([], "not measured"),
    ],
)
def test_instructions_are_judged_by_the_best_engine(rows, word):
    assert promises.judge(promises.PROMISES[0], rows, [peer.name for peer in PEERS]).word == word


def test_instructions_are_a_table():
    assert table(arm_rows(500), "a title").row_count == 1 + len(PEERS)


def test_promised_networks_fit_small_images():
    for case in count.cases(None):
        assert case.size == count.SIZE
        assert len(case.variants) == 1
        assert (case.network, case.variants[0].name) in {(p.network, p.weights) for p in promises.PROMISES}
