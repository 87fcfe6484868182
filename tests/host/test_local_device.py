"""Libraries of this machine: linking, running, timing, and what happens when they are bad."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pconvgen.affinity import core_numbers, usable_cores
from pconvgen.devices import Model, get_device
from pconvgen.devices.local import LocalDevice
from pconvgen.errors import PconvgenError, UsageError
from pconvgen.schedules import ISAS
from pconvgen.targets.linker import Linker, find_linker, find_linkers, library_linker
from pconvgen.targets.presets import get_target
from pconvgen.tvm_compat.llvm import llvm_target

pytestmark = pytest.mark.host

LINKERS = find_linkers("host")
SHAPE = (16, 48)


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    values = np.random.default_rng(0)
    return {name: values.standard_normal(SHAPE).astype("float32") for name in ("a", "b")}


@pytest.fixture(scope="module")
def executable() -> Any:
    """softmax(a - b) and a - b: the order of the inputs shows, and the exponential needs libm."""
    from tvm import relax

    a, b = (relax.Var(name, relax.TensorType(SHAPE, "float32")) for name in ("a", "b"))
    builder = relax.BlockBuilder()
    with builder.function("main", [a, b]):
        with builder.dataflow():
            difference = builder.emit(relax.op.subtract(a, b))
            output = builder.emit_output(relax.Tuple([relax.op.nn.softmax(difference), difference]))
        builder.emit_func_output(output)
    return _compiled(builder.get())


def _compiled(module: Any) -> Any:
    import tvm
    from tvm import relax

    target = llvm_target(get_target("host"))
    with target:
        return tvm.compile(relax.get_pipeline("zero")(module), target)


def _exported(executable: Any, linker: Linker, path: Path) -> Model:
    executable.export_library(str(path), fcompile=library_linker(get_target("host"), linker))
    parameters = tuple((name, SHAPE, "float32") for name in ("a", "b"))
    return Model(path, parameters, ("probabilities", "difference"), "host")


@pytest.fixture(scope="module")
def model(executable: Any, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return _exported(executable, find_linker(get_target("host")), tmp_path_factory.mktemp("model") / "model.so")


def _assert_right(outputs: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> None:
    difference = inputs["a"] - inputs["b"]
    exponentials = np.exp(difference)
    assert list(outputs) == ["probabilities", "difference"]
    np.testing.assert_allclose(outputs["difference"], difference, rtol=1e-6)
    np.testing.assert_allclose(
        outputs["probabilities"], exponentials / exponentials.sum(-1, keepdims=True), rtol=1e-5, atol=1e-7
    )


def test_host_target_is_complete() -> None:
    host = get_target("host")
    assert host.is_host
    assert host.core.isa in ISAS.values()
    assert host.core.l1_kib > 0
    assert host.core.l2_kib > 0
    assert llvm_target(host).attrs["mcpu"] == host.cpu


def test_processors_that_llvm_does_not_know_are_refused() -> None:
    wrong = dataclasses.replace(get_target("cortex-a76"), cpu="cortex-a7x")
    with pytest.raises(UsageError, match=r"LLVM does not know the processor.*expected cortex-a7"):
        llvm_target(wrong)
    more = dataclasses.replace(get_target("cortex-a53"), features=("+dotprod",))
    assert list(llvm_target(more).attrs["mattr"]) == ["+dotprod"]


@pytest.mark.parametrize("linker", LINKERS, ids=[linker.name for linker in LINKERS])
def test_library_of_every_linker(
    linker: Linker, executable: Any, inputs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    model = _exported(executable, linker, tmp_path / "model.so")
    again = _exported(executable, linker, tmp_path / "again.so")
    assert model.path.read_bytes() == again.path.read_bytes(), "equal inputs must give equal files"
    _assert_right(get_device("local").run(model, inputs), inputs)


def test_inputs_in_any_memory_layout(model: Model, inputs: dict[str, np.ndarray]) -> None:
    unaligned = np.frombuffer(b"\0" + inputs["a"].tobytes(), "float32", offset=1).reshape(SHAPE)
    assert unaligned.ctypes.data % 4
    strided = np.repeat(inputs["b"], 2, axis=1)[:, ::2]
    assert not strided.flags.c_contiguous
    _assert_right(get_device("local").run(model, {"b": strided, "a": unaligned}), inputs)


def test_wrong_inputs_are_refused(model: Model, inputs: dict[str, np.ndarray]) -> None:
    with pytest.raises(PconvgenError, match="wrong inputs"):
        get_device("local").run(model, {"a": inputs["a"]})
    with pytest.raises(PconvgenError, match="input b does not fit"):
        get_device("local").run(model, {**inputs, "b": inputs["b"][:1]})


@pytest.mark.parametrize("threads", [1, usable_cores()])
def test_times_are_kept(threads: int, model: Model, inputs: dict[str, np.ndarray]) -> None:
    result = get_device("local").bench(model, inputs, threads=threads, seconds=0.1)
    assert result.median_ms is not None
    assert result.min_ms is not None
    assert len(result.times_ms) >= 10
    assert 0 < result.min_ms == min(result.times_ms) <= result.median_ms <= max(result.times_ms)
    assert (result.threads, result.device, result.target) == (threads, "local", "host")
    assert result.instructions is None


def test_impossible_threads_are_refused(model: Model, inputs: dict[str, np.ndarray]) -> None:
    for threads in (0, usable_cores() + 1):
        with pytest.raises(UsageError, match="impossible number of threads"):
            get_device("local").bench(model, inputs, threads=threads)


def test_a_model_keeps_to_its_cores(model: Model, inputs: dict[str, np.ndarray]) -> None:
    last = core_numbers()[-1]
    _assert_right(get_device("local").run(model, inputs, cores=[last]), inputs)
    result = get_device("local").bench(model, inputs, cores=[last], seconds=0.05)
    assert result.cores == (last,)
    with pytest.raises(UsageError, match=r"impossible number of threads.*expected 1 to 1"):
        get_device("local").run(model, inputs, cores=[last], threads=2)
    with pytest.raises(UsageError, match="no such cores"):
        get_device("local").bench(model, inputs, cores=[last + 1])


@pytest.mark.skipif(usable_cores() < 2, reason="one core")
def test_threads_are_bound_to_the_cores_they_are_given() -> None:
    first, second = core_numbers()[:2]
    program = f"""
import os
from pconvgen.devices.worker import _import_runtime
runtime = _import_runtime()
before = set(os.listdir("/proc/self/task"))
runtime.keep_to_cores(2, [{second}, {first}])
for thread in sorted(set(os.listdir("/proc/self/task")) - before | {{str(os.getpid())}}):
    print(thread == str(os.getpid()), sorted(os.sched_getaffinity(int(thread))))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, env={**os.environ, "TVM_NUM_THREADS": "2"}, capture_output=True, text=True, check=True
    )
    # TVM itself would bind its second thread to the second core.
    assert sorted(done.stdout.splitlines()) == [f"False [{first}]", f"True [{first}, {second}]"]


def test_kernel_that_writes_out_of_bounds_is_a_message(tmp_path: Path) -> None:
    import tvm
    from tvm import relax
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)
    def wild(a: T.Buffer((8,), "float32"), b: T.Buffer((8,), "float32")):
        for i in range(8):
            b[T.int64(1) << T.int64(44)] = a[i]

    x = relax.Var("x", relax.TensorType((8,), "float32"))
    builder = relax.BlockBuilder()
    function = builder.add_func(wild.with_attr("tirx.is_scheduled", True), "wild")
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(relax.call_tir(function, [x], relax.TensorType((8,), "float32"))))
    target = llvm_target(get_target("host"))
    path = tmp_path / "wild.so"
    tvm.compile(builder.get(), target).export_library(str(path), fcompile=library_linker(get_target("host")))
    model = Model(path, (("x", (8,), "float32"),), ("y",), "host")
    with pytest.raises(PconvgenError, match=r"wild\.so: the model crashed \(found SIGSEGV"):
        get_device("local").run(model, {"x": np.zeros(8, "float32")})


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler makes the bad library")
@pytest.mark.parametrize(
    ("body", "message", "timeout_s"), [("abort();", "found SIGABRT", 120), ("sleep(60);", "did not end", 3)]
)
def test_bad_libraries_are_messages(body: str, message: str, timeout_s: float, tmp_path: Path) -> None:
    (tmp_path / "m.c").write_text(
        f"#include <stdlib.h>\n#include <unistd.h>\n__attribute__((constructor)) static void bad(void) {{ {body} }}"
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "m.so", "m.c"], cwd=tmp_path, check=True)
    with pytest.raises(PconvgenError, match=message):
        LocalDevice(timeout_s=timeout_s).run(Model(tmp_path / "m.so", (), (), "host"), {})


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler makes the bad libraries")
def test_a_session_outlives_bad_libraries(model: Model, inputs: dict[str, np.ndarray], tmp_path: Path) -> None:
    bodies = {
        "abort();": "found SIGABRT",
        "sleep(60);": "did not end",
        "kill(getppid(), SIGKILL);": "ended the process",
    }
    with LocalDevice(timeout_s=2).session() as device:
        _assert_right(device.run(model, inputs), inputs)
        for number, (body, message) in enumerate(bodies.items()):
            source = "#include <signal.h>\n#include <stdlib.h>\n#include <unistd.h>\n"
            source += f"__attribute__((constructor)) static void bad(void) {{ {body} }}"
            (tmp_path / "m.c").write_text(source)
            bad = tmp_path / f"m{number}.so"
            subprocess.run(["cc", "-shared", "-fPIC", "-o", str(bad), "m.c"], cwd=tmp_path, check=True)
            with pytest.raises(PconvgenError, match=message):
                device.run(Model(bad, (), (), "host"), {})
            outputs, result = device.measure(model, inputs, seconds=0.05)
            _assert_right(outputs, inputs)
            assert len(result.times_ms) >= 10
        with pytest.raises(PconvgenError, match="wrong inputs"):
            device.run(model, {})
        server = device.server  # type: ignore[attr-defined]
        process = server._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_damaged_library_is_a_message(model: Model, inputs: dict[str, np.ndarray], tmp_path: Path) -> None:
    data = model.path.read_bytes()
    damages = (
        (data[:4000], "this library is cut short"),
        (data[:4000].ljust(len(data), b"\0"), "the model (failed|crashed)"),
    )
    for index, (damaged, message) in enumerate(damages):
        path = tmp_path / f"{index}.so"
        path.write_bytes(damaged)
        with pytest.raises(PconvgenError, match=rf"{index}\.so: {message}"):
            get_device("local").run(dataclasses.replace(model, path=path), inputs)


def test_facts_name_the_machine() -> None:
    facts = get_device("local").facts()
    assert facts["cores"] == usable_cores()
    assert facts["cpu"]
