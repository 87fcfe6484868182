"""A step that fails names the layer and the operator of the user's model, and whose fault it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from commands import invoker
from onnx import TensorProto, checker, helper, numpy_helper, save
from torch import nn

from pconvgen import compiler
from pconvgen.blame import attempt, culprit
from pconvgen.errors import REPORT, CompilerBugError, PconvgenError, UnsupportedError, UsageError
from pconvgen.frontend import Imported, load_model
from pconvgen.frontend.torch.converters import CONVERTERS
from pconvgen.planning.choose import Planner, plan_layer
from pconvgen.targets.presets import get_target
from pconvgen.tvm_compat.passes import apply, module_pass, run_passes
from pconvgen.tvm_compat.relax import op_name
from pconvgen.tvm_compat.rewriting import main_bindings


class Branches(nn.Module):
    """Two layers, one of which is read twice, and a split, whose parts are tuple items."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head, self.gate = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Softplus()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.stem(x).relu().split(4, dim=1)
        return self.head(torch.cat([self.gate(left), torch.softmax(right, 1)], 1)) + 1


@pytest.fixture(scope="module")
def imported() -> Imported:
    torch.manual_seed(0)
    return load_model(Branches().eval(), {"x": (1, 3, 8, 8)})


def failing(layer: str, error: Exception) -> Planner:
    def plan(found: Any, *args: Any, **options: Any) -> Any:
        if found.name == layer:
            raise error
        return plan_layer(found, *args, **options)

    return plan


def breaks_on(operator: str) -> Any:
    """A step that has TVM fail where the module calls an operator."""

    def step(module: Any) -> None:
        if any(op_name(binding.value) == f"relax.{operator}" for binding in main_bindings(module) or []):
            tvm.ir.Op.get("an operator that is not there")

    return step


def test_what_a_pass_refuses_arrives_as_it_was_raised(imported: Imported) -> None:
    refusal = PconvgenError("not this one", layer="head", remedy="do without")
    with pytest.raises(PconvgenError) as raised:
        compiler.lower(imported, get_target("host"), planner=failing("head", refusal))
    assert raised.value is refusal


@pytest.mark.parametrize("error", [IndexError("7"), AssertionError()])
def test_our_own_mistakes_are_told_as_such(imported: Imported, error: Exception) -> None:
    with pytest.raises(CompilerBugError) as raised:
        compiler.lower(imported, get_target("host"), planner=failing("head", error))
    text = str(raised.value)
    assert text.startswith("Branches: layer head: this is a bug in pconvgen, met by this conv2d (found ")
    assert type(error).__name__ in text
    assert text.endswith(REPORT)
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    ("operator", "layer", "name"),
    [
        ("nn.conv2d", "stem", "conv2d"),
        ("split", "split", "split"),
        ("nn.softplus", "gate", "softplus"),
        ("nn.softmax", "softmax", "softmax"),
        ("concat", "cat", "cat"),
    ],
)
def test_what_tvm_cannot_do_names_the_operator(imported: Imported, operator: str, layer: str, name: str) -> None:
    step = breaks_on(operator)
    with pytest.raises(PconvgenError) as raised:
        attempt("lower", imported, lambda: step(imported.module), step)
    assert not isinstance(raised.value, CompilerBugError)
    assert raised.value.layer == layer
    assert raised.value.message == f"TVM cannot lower this {name}"


def test_without_a_culprit_the_model_is_named(imported: Imported) -> None:
    def once() -> None:
        tvm.ir.Op.get("an operator that is not there")

    with pytest.raises(PconvgenError, match=r"^Branches: TVM cannot build this model \(found .*not there"):
        attempt("build", imported, once, lambda module: module)
    # Another kind of error, of the parts, is another failure.
    assert culprit(imported, breaks_on("nn.softplus"), ZeroDivisionError) == (None, "")


def test_nodes_of_onnx_files_are_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
        helper.make_node("HardSwish", ["a"], ["b"], name="second"),
        helper.make_node("Softmax", ["b"], ["y"], name="third", axis=1),
    ]
    weight = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, n, 4, 4)) for name, n in (("x", 3), ("y", 4))]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight]))
    checker.check_model(model)
    save(model, tmp_path / "m.onnx")
    imported = load_model(tmp_path / "m.onnx")
    assert culprit(imported, breaks_on("nn.softmax"), Exception) == ("third", "Softmax")
    assert culprit(imported, breaks_on("clip"), Exception) == ("second", "HardSwish")
    assert culprit(imported, breaks_on("nn.conv2d"), Exception) == ("first", "Conv")


PLACES = (
    "pconvgen.frontend.finish.CanonicalizeOperators",
    "pconvgen.pipeline.KeepSpecialNumbers",
    "pconvgen.pipeline.PlanMemory",
    "pconvgen.tvm_compat.pipeline.HandOnNan",
)
"""A pass of each place where there are some: reading, before and behind what TVM legalises, and building."""


def refuse() -> None:
    raise PconvgenError("not this one", layer="conv", found="it", remedy="do without")


def misuse() -> None:
    raise UsageError("not so", remedy="ask otherwise")


def slip() -> None:
    raise ValueError("7 is no 8")


def ask_tvm() -> None:
    tvm.ir.Op.get("an operator that is not there")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("act", "code", "line"),
    [
        (refuse, 1, r"error: layer conv: not this one \(found it\); do without"),
        (misuse, 2, r"error: not so; ask otherwise"),
        (slip, 1, rf"error: .*this is a bug in pconvgen.* \(found ValueError: 7 is no 8\); {REPORT}"),
        (ask_tvm, 1, r"error: .*\(found .*an operator that is not there.*\); .*"),
    ],
)
def test_commands_tell_what_a_pass_raises(
    place: str,
    act: Callable[[], None],
    code: int,
    line: str,
    small: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @module_pass
    def failing(module: Any, _context: Any) -> Any:
        act()
        return module

    monkeypatch.setattr(place, lambda *_: failing)
    stopped, out, err = invoker(capfd)("compile", small, "-o", small.with_suffix(".so"))
    assert (stopped, out) == (code, "")
    assert re.fullmatch(line + "\n", err)
    if act is ask_tvm and "frontend" not in place:
        assert err.startswith(f"error: {small}: layer ")
        assert f"TVM cannot {'build' if 'HandOnNan' in place else 'lower'} this Conv" in err
    # Who debugs sees where it was raised.
    stopped, _, err = invoker(capfd)("--debug", "compile", small, "-o", small.with_suffix(".so"))
    assert stopped == code
    assert f", in {act.__name__}\n" in err


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A file with one convolution."""
    weight = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, n, 4, 4)) for name, n in (("x", 3), ("y", 4))]
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    save(helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], [weight])), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_what_a_pass_raises_keeps_its_cause() -> None:
    refusal = PconvgenError("outer")

    @module_pass
    def failing(_module: Any, _context: Any) -> Any:
        try:
            int("x")
        except ValueError as error:
            raise refusal from error

    with pytest.raises(PconvgenError) as raised:
        run_passes(tvm.IRModule({}), failing)
    assert raised.value is refusal
    assert isinstance(refusal.__cause__, ValueError)


def test_the_innermost_pass_is_heard() -> None:
    refusal = PconvgenError("inner")

    @module_pass
    def inner(_module: Any, _context: Any) -> Any:
        raise refusal

    @module_pass
    def outer(module: Any, _context: Any) -> Any:
        return tvm.transform.Sequential([inner])(module)

    @module_pass
    def careful(module: Any, _context: Any) -> Any:
        with pytest.raises(RuntimeError):
            outer(module)
        return module

    with pytest.raises(PconvgenError) as raised:
        apply(outer, tvm.IRModule({}))
    assert raised.value is refusal
    # What was caught is forgotten.
    with pytest.raises(ValueError, match="later"):
        apply(lambda module: int("later" if careful(module) else ""), tvm.IRModule({}))


def test_converters_refuse_and_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(error: Exception) -> Any:
        def convert(_node: Any, _importer: Any) -> Any:
            return helpless(error)

        return convert

    # What our code calls is ours, what it calls in TVM is not.
    namespace = {"__name__": "pconvgen.somewhere"}
    exec("def helpless(error): raise error", namespace)
    helpless: Any = namespace["helpless"]
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softplus())
    for error, text in (
        (UnsupportedError("such a thing"), "layer 1: TVM cannot import this softplus (found such a thing)"),
        (IndexError("7"), "layer 1: this is a bug in pconvgen, met by this softplus (found IndexError: 7); report it"),
        (PconvgenError("no", layer="mine"), "layer mine: no"),
    ):
        monkeypatch.setitem(CONVERTERS, "softplus.default", raising(error))
        with pytest.raises(PconvgenError) as raised:
            load_model(network.eval(), {"input": (1, 3, 8, 8)})
        assert text in str(raised.value)
