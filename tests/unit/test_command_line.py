"""The command line around the commands: help, exit codes, one line for each error; and what needs no TVM."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Invoke, invoker

from pconvgen.arena import ActivationMemory
from pconvgen.cli.options import parse_shapes
from pconvgen.cli.run import _summary, read_arrays, write_arrays
from pconvgen.errors import REPORT, PconvgenError, UsageError
from pconvgen.frontend.weights import WeightedLayer
from pconvgen.manifest import Manifest
from pconvgen.report.layers import layer_table, summary
from pconvgen.report.units import kib, millions, milliseconds, percent
from pconvgen.sparsify import PrunedLayer, Recipe, prune
from pconvgen.sparsity import STRUCTURES
from pconvgen.values.decision import Decision

COMMANDS = (
    "compile",
    "explain",
    "run",
    "bench",
    "sparsify",
    "targets",
    "doctor",
    "tune",
    "records",
    "latency",
    "whatif",
)


@pytest.fixture
def invoke(capfd: pytest.CaptureFixture[str]) -> Invoke:
    """Runs a command: exit code, standard output, standard error."""
    return invoker(capfd)


def python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60, check=False)


def test_help_imports_neither_tvm_nor_torch() -> None:
    code = (
        "import sys\n"
        "from pconvgen.cli import main\n"
        f"for command in {COMMANDS}:\n"
        "    try: main([command, '--help'])\n"
        "    except SystemExit as stop: assert stop.code == 0, command\n"
        "print(*({'tvm', 'torch', 'onnx', 'numpy', 'matplotlib'} & set(sys.modules)), file=sys.stderr)"
    )
    done = python(code)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert "NAME=SHAPE" in done.stdout


def test_no_command_shows_help(invoke: Invoke) -> None:
    code, out, err = invoke()
    assert (code, err) == (2, "")
    assert "sparsify" in out
    code, out, err = invoke("--debug")
    assert (code, out) == (2, "")
    assert err.endswith("error: Missing command; see pconvgen --help\n")


def test_version(invoke: Invoke) -> None:
    code, out, err = invoke("--version")
    assert (code, err) == (0, "")
    assert out.startswith("pconvgen 0.")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["compile"], "error: Missing argument 'MODEL'; see pconvgen compile --help"),
        (["compile", "m.onnx", "--bogus"], "No such option"),
        (["sparsify", "m.onnx", "-o", "o.onnx"], "--structure"),
        (["bench", "m.so", "--threads", "many"], "--threads"),
        (["nope"], "No such command 'nope'"),
        (["compile", "m.onnx", "--input", "x"], "found x, expected NAME=SHAPE); give the input's name"),
    ],
)
def test_wrong_usage_is_one_line(args: list[str], message: str, invoke: Invoke) -> None:
    code, out, err = invoke(*args)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (PconvgenError("it broke", file="m.onnx", remedy="mend\nit"), 1, "error: m.onnx: it broke; mend it"),
        (UsageError("no such thing"), 2, "error: no such thing"),
        (KeyError("a\nb"), 1, rf"error: this is a bug in pconvgen (found KeyError: 'a\nb'); {REPORT}"),
        (
            RuntimeError("line\n  line"),
            1,
            f"error: this is a bug in pconvgen (found RuntimeError: line line); {REPORT}",
        ),
        (AssertionError(), 1, f"error: this is a bug in pconvgen (found AssertionError); {REPORT}"),
        (
            MemoryError(),
            1,
            "error: this machine has not enough memory for it; close other programs, or use a smaller model",
        ),
        (PermissionError(13, "", "m.onnx"), 1, "error: m.onnx: Permission denied; check the path and its permissions"),
        (OSError(28, ""), 1, "error: the disk is full; free some space"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_are_one_line(
    error: BaseException, code: int, line: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_library: Path) -> None:
        raise error

    # The message is as long as it is: a terminal's width does not cut it.
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr("pconvgen.manifest.read_manifest", fail)
    assert invoke("explain", "m.so") == (code, "", line + "\n")
    shown = invoke("explain", "m.so", "--debug")
    assert shown[0] == code
    assert shown[2].endswith(line + "\n")
    assert ("Traceback" in shown[2]) == (code != 130)


def test_closed_pipe_is_quiet() -> None:
    # Long output goes into the closed pipe at once, short output when the program ends.
    for text in ("'text' * 100000", "'text'"):
        code = (
            "import os, typer; from pconvgen import cli\n"
            f"cli.app.command('print')(lambda: typer.echo({text}))\n"
            "reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1)\n"
            "cli.main(['print'])"
        )
        done = python(code)
        assert (done.returncode, done.stderr) == (1, "")


def test_only_our_own_messages_are_on_standard_error() -> None:
    code = (
        "import os, sys, warnings, typer; from pconvgen import cli; from pconvgen.errors import *\n"
        "def noisy(how: str):\n"
        "    os.write(2, b'[16:03:01] Warning: of C++\\n')\n"
        "    os.system('echo of a child >&2')\n"
        "    print('progress', file=sys.stderr)\n"
        "    warnings.warn('look', PconvgenWarning)\n"
        "    if how == 'fails': raise PconvgenError('it broke')\n"
        "    if how == 'execs':\n"
        "        cli.rpc.hand_on()\n"
        "        os.execv('/bin/sh', ['sh', '-c', 'echo another program >&2'])\n"
        "cli.app.command('noisy')(noisy)\n"
        "try: cli.main(['noisy', *sys.argv[1:]])\n"
        "finally: os.write(2, b'end\\n')"
    )
    ours, end = "progress\nwarning: look\n", "end\n"
    assert python(code, "works").stderr == ours + end
    assert python(code, "fails").stderr == ours + "error: it broke\n" + end
    assert python(code, "execs").stderr == ours + "another program\n"
    loud = python(code, "works", "--debug").stderr
    assert "of C++" in loud
    assert "of a child" in loud


def test_suggestions_can_be_followed(invoke: Invoke, tmp_path: Path) -> None:
    model, text = tmp_path / "m.onnx", tmp_path / "x.npy"
    model.write_bytes(b"a model")
    text.write_text("1.5 2.5")
    code, _, err = invoke("run", model, "--input", text)
    assert code == 1
    assert f"compile it first: pconvgen compile {model}" in err
    with pytest.raises(PconvgenError, match="pickled objects, or another kind of file") as raised:
        read_arrays(text, manifest("x"))
    assert "allow_pickle" not in str(raised.value)


def test_shapes_parse() -> None:
    assert parse_shapes(None) is None
    assert parse_shapes(["x=1,3,8,8", "a=b=4x2"]) == {"x": (1, 3, 8, 8), "a=b": (4, 2)}
    for wrong in ("x", "x=", "=1", "x=1,,2", "x=1.5", "x=one"):
        with pytest.raises(UsageError, match="--input does not parse"):
            parse_shapes([wrong])
    with pytest.raises(UsageError, match="twice"):
        parse_shapes(["x=1", "x=2"])


def manifest(*names: str) -> Manifest:
    return Manifest("host", tuple((name, (2, 3), "float32") for name in names), (), ())


def test_arrays_of_files(tmp_path: Path) -> None:
    array = np.arange(6, dtype="float32").reshape(2, 3)
    np.save(tmp_path / "x.npy", array)
    assert (read_arrays(tmp_path / "x.npy", manifest("x"))["x"] == array).all()
    with pytest.raises(UsageError, match=r"x\.npy: the model has several inputs \(found one array, expected a, b"):
        read_arrays(tmp_path / "x.npy", manifest("a", "b"))
    # Names that numpy.savez takes for its own arguments.
    arrays = {"file": array, "allow_pickle": array[:1], "a/b": array[0]}
    write_arrays(tmp_path / "y.npz", arrays)
    read = read_arrays(tmp_path / "y.npz", manifest("x"))
    assert list(read) == list(arrays)
    assert all((read[name] == arrays[name]).all() for name in arrays)


def test_summary_of_an_output() -> None:
    line = _summary("y", np.array([[0.5, 3, -1, 2, 0, 1]], "float32"))
    assert line == (
        "y: float32 1x6, min -1, mean 0.91667, max 3, top 5: [1] 3, [3] 2, [5] 1, [0] 0.5, [4] 0".replace(
            "[0] 0.5", "[0] 0.5"
        )
    )
    assert "top" not in _summary("y", np.zeros((2, 3), "float32"))
    assert _summary("y", np.float32(2).reshape(())) == "y: float32 scalar, min 2, mean 2, max 2"
    assert _summary("y", np.zeros((0, 3), "float32")) == "y: float32 0x3, empty"


def test_units() -> None:
    assert percent(0.25) == "25.0 %"
    assert [millions(n) for n in (0, 160, 110_592, 1_234_567, 313_000_000, 15_500_000_000)] == [
        "0 M",
        "0.00016 M",
        "0.111 M",
        "1.23 M",
        "313 M",
        "15500 M",
    ]
    assert [milliseconds(value) for value in (0.0123, 1.5, 123.4)] == ["0.0123", "1.50", "123"]
    assert kib(2048) == "2.0 KiB"


def decision(name: str, **values: Any) -> Decision:
    known: dict[str, Any] = {
        "op": "conv2d",
        "shape": (8, 4, 3, 3),
        "macs": 1_000_000,
        "structure": "pattern",
        "density": 0.25,
        "choice": "pixels: pattern",
        "reason": "2.0x fewer cycles than dense",
    }
    return Decision(name, **{**known, **values})


def test_layer_table(capsys: pytest.CaptureFixture[str]) -> None:
    from pconvgen.report.console import output

    rows = [
        decision("features[0]:smile:", predicted_ms=0.5, predicted_cycles=1e6, nbytes=2048),
        decision("up", structure="dense", density=1.0, choice="tvm"),
    ]
    output().print(layer_table(rows))
    printed = capsys.readouterr().out
    assert "features[0]:smile:" in printed
    assert "8x4x3x3" in printed
    assert "25.0 %" in printed
    assert "ms (80 % interval)" in printed
    assert len(printed.splitlines()) == 4, "rows are not wrapped where nobody looks"
    assert summary(rows, 4096) == (
        "total: 2 layers (1 pattern, 1 dense); 2.00 M MACs dense, 1.25 M surviving (62.5 %); "
        "predicted 0.500 ms on one core without 1 layers of TVM's; library 4.0 KiB"
    )
    assert summary(rows[:1], memory=ActivationMemory(5 << 20, 4 << 20)).endswith(
        "on one core; activations 5.0 MiB, largest live set 4.0 MiB, 1.25x"
    )
    assert summary([]) == "no convolution or linear layers"


def test_no_milliseconds_without_a_clock(capsys: pytest.CaptureFixture[str]) -> None:
    from pconvgen.report.console import output

    rows = [decision("a", predicted_cycles=2e6)]
    output().print(layer_table(rows))
    printed = capsys.readouterr().out
    assert "ms" not in printed
    assert "cycles (estimate)" in printed
    assert "ms" not in summary(rows)


def test_targets_without_a_host(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    from pconvgen.targets import presets

    def no_host() -> Any:
        raise UsageError("no kernels for this machine")

    monkeypatch.setattr(presets, "host_target", no_host)
    monkeypatch.setattr("pconvgen.targets.linker.find_linkers", lambda _platform: [])
    code, out, err = invoke("targets")
    assert (code, err) == (0, "")
    assert "cortex-a76" in out
    assert "not found" in out
    assert out.splitlines()[-1] == "host: no kernels for this machine"


class Net:
    """Layers with random weights whose new weights are kept."""

    def __init__(self, **shapes: tuple[tuple[int, ...], int]) -> None:
        rng = np.random.default_rng(0)
        self.before = {name: rng.standard_normal(shape).astype("float32") for name, (shape, _) in shapes.items()}
        self.after = dict(self.before)
        self.layers = [
            WeightedLayer(name, name[:-1], groups, self.before[name], lambda w, n=name: self._set(n, w), name)
            for name, (_, groups) in shapes.items()
        ]

    def _set(self, name: str, weight: np.ndarray) -> None:
        self.after[name] = weight

    def prune(self, *args: Any, **options: Any) -> dict[str, PrunedLayer]:
        return {row.name: row for row in prune(self.layers, Recipe(*args, **options), "net")}


def net() -> Net:
    return Net(
        conv2d1=((16, 3, 3, 3), 1),
        conv2d2=((32, 16, 3, 3), 1),
        conv2d3=((32, 1, 3, 3), 32),
        conv2d4=((16, 32, 1, 1), 1),
        conv2d5=((8, 4, 3, 3), 4),
        linear1=((24, 16, 1, 1), 1),
        linear2=((10, 24, 1, 1), 1),
    )


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        ("unstructured", ["unstructured"] * 5),
        ("filter", ["filter"] * 5),
        ("pattern", ["pattern", "pattern", "simd_block", "pattern", "simd_block"]),
        ("simd_block", ["simd_block", "dense", "simd_block", "simd_block", "simd_block"]),
        ("block_punched", ["block_punched", "dense", "block_punched", "simd_block", "block_punched"]),
    ],
)
@pytest.mark.parametrize("random", [False, True])
def test_prune_falls_back_where_a_structure_does_not_apply(structure: str, expected: list[str], random: bool) -> None:
    model = net()
    rows = model.prune(structure, 0.25, random=random)
    middle = [name for name in model.before if name not in ("conv2d1", "linear2")]
    assert [rows[name].structure for name in middle] == expected
    assert all(rows[name].note == "not chosen" for name in ("conv2d1", "linear2"))
    for layer in model.layers:
        row, before, after = rows[layer.name], model.before[layer.name], model.after[layer.name]
        kept = after != 0
        assert row.density == np.count_nonzero(kept) / kept.size
        assert (after[kept] == before[kept]).all()
        assert bool(row.note) == (row.structure != structure or "all kernels kept" in row.note)
        if row.structure == "dense":
            assert kept.all()
            continue
        if "all kernels kept" not in row.note:
            assert 0.15 < row.density < 0.4
        found = STRUCTURES[row.structure].detect(after, layer.groups)
        assert max(candidate.fill for candidate in found) > 0.99


def test_prune_is_reproducible_and_seeded() -> None:
    results = []
    for seed, layers in ((0, ()), (0, ("conv2d4",)), (1, ())):
        model = net()
        model.prune("simd_block", 0.5, layers=layers, random=True, seed=seed)
        results.append(model.after["conv2d4"] != 0)
    assert (results[0] == results[1]).all(), "a layer's zeros do not depend on which others are pruned"
    assert (results[0] != results[2]).any()


def test_prune_by_name_and_shared_weights() -> None:
    model = net()
    twin = model.layers[1]
    model.layers.append(WeightedLayer("twin", "conv2d", 1, twin.weight, twin.store, twin.key))
    rows = model.prune("unstructured", 0.5, layers=("conv2d[12]", "linear2"))
    assert [name for name, row in rows.items() if row.structure != "dense"] == ["conv2d1", "conv2d2", "linear2", "twin"]
    assert rows["twin"].note == "shares the weight of conv2d2"
    computed = WeightedLayer("masked", "conv2d", 1, None, twin.store, "masked")
    (row,) = prune([computed], Recipe("unstructured", 0.5, ("*",)), "net")
    assert "its weight is computed" in row.note


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (lambda: Recipe("patern", 0.5), "unknown structure"),
        (lambda: Recipe("dense", 0.5), "unknown structure"),
        (lambda: Recipe("pattern", 0.0), "density is out of range"),
        (lambda: Recipe("pattern", 1.5), "density is out of range"),
        (lambda: Recipe("pattern", float("nan")), "density is out of range"),
        (lambda: net().prune("pattern", 0.5, layers=("fc*",)), "no layer has such a name"),
        (lambda: Net(conv2d1=((4, 3, 3, 3), 1)).prune("pattern", 0.5), "there is nothing to prune"),
        (lambda: Net().prune("pattern", 0.5), "there is nothing to prune"),
    ],
)
def test_bad_recipes(recipe: Callable[[], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recipe()


def test_nothing_is_pruned_when_a_weight_is_not_finite() -> None:
    model = net()
    model.before["linear1"][0, 0] = np.nan
    with pytest.raises(PconvgenError, match="layer linear1: weight is not finite"):
        model.prune("unstructured", 0.5)
    assert all(model.after[name] is model.before[name] for name in model.before)
