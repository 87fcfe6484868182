"""The process that loads a compiled model on this machine: `python -m pconvgen.devices.worker FOLDER`.

The folder holds request.json and inputs.npz; the worker adds outputs.npz and, if times are asked for, times.json. It is
a process of its own because a library can crash, and because TVM reads the number of threads once.

With `--serve` in place of the folder it reads requests, lines of JSON with "folder" and "timeout_s", and answers each
in a fork of its own, whose exit code it prints; what the fork prints goes to printed.txt in the folder.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from pconvgen.devices.steady import conditions, until_steady

# Long enough that the timer's resolution and a stray interrupt are small against one repeat.
REPEAT_S = 0.005
MIN_REPEATS = 10
MOST_REPEATS = 60
"""Of calls with cold caches."""


def main(folder: Path) -> None:
    """Answers the request in the folder."""
    request = json.loads((folder / "request.json").read_text())
    if "rpc" in request:
        _import_runtime()
        from pconvgen.devices import rpc_client

        rpc_client.answer(folder, request)
        return
    os.environ["TVM_NUM_THREADS"] = str(request["threads"])  # how TVM's runtime is told; it asks once
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, request["cores"])
    runtime = _import_runtime()
    if request["threads"] > 1:
        runtime.keep_to_cores(request["threads"], request["cores"])
    with np.load(folder / "inputs.npz") as stored:
        inputs = [runtime.tensor(stored[f"arr_{index}"]) for index in range(len(stored.files))]
    machine = runtime.load(Path(request["library"]))
    np.savez(folder / "outputs.npz", *(tensor.numpy() for tensor in runtime.tensors_of(machine["main"](*inputs))))
    if request["seconds"] is not None:
        before = conditions(request["cores"][0])
        if request["evict"]:
            times = _measure_cold(runtime, machine, inputs, request["seconds"], request["evict"])
        else:
            times = _measure(runtime, machine, inputs, request["seconds"])
        after = conditions(request["cores"][0])
        told = {"celsius before": before.celsius, "celsius after": after.celsius, "mhz after": after.mhz}
        known = {name: value for name, value in told.items() if value is not None}
        measured = {"times ms": times, "throttled": after.slowed_down(before), "conditions": known}
        (folder / "times.json").write_text(json.dumps(measured))


def serve() -> None:
    """Answers requests until the input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            # Stops native code, too; Python's own handler would wait for it to return.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(request["timeout_s"])
            folder = Path(request["folder"])
            printed = os.open(folder / "printed.txt", os.O_WRONLY | os.O_CREAT)
            os.dup2(printed, 1)
            os.dup2(printed, 2)
            os._exit(_answered(folder))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _answered(folder: Path) -> int:
    """The exit code of a request."""
    try:
        main(folder)
    except Exception as error:
        # The caller shows the end of what is printed: the message belongs there, without the frames before it.
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _import_runtime() -> Any:
    """The room of TVM's runtime, without its compiler and without torch, which would take two seconds to import."""
    os.environ["TVM_USE_RUNTIME_LIB"] = "1"
    sys.modules["torch"] = None  # type: ignore[assignment]
    from pconvgen.tvm_compat import runtime

    # TVM prints a symbolised stack, for half a minute, when a library crashes; the caller wants the bare signal.
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT):
        signal.signal(number, signal.SIG_DFL)
    return runtime


def _measure(runtime: Any, machine: Any, inputs: list[Any], seconds: float) -> list[float]:
    """Milliseconds of one inference, for each repeat."""
    main_function = machine["main"]
    estimate_s = until_steady(lambda: main_function(*inputs))
    number = max(1, math.ceil(REPEAT_S / estimate_s))
    repeats = max(MIN_REPEATS, math.ceil(seconds / (number * estimate_s)))
    return [1e3 * value for value in runtime.seconds_of(machine, inputs, number, repeats)]


def _measure_cold(runtime: Any, machine: Any, inputs: list[Any], seconds: float, nbytes: int) -> list[float]:
    """Milliseconds of one call, for each repeat, after so many bytes went through the caches, and then the inputs and
    the memory of the results.

    So a layer finds them in a network: its weights were pushed out since the last inference, its inputs were just made,
    and its result goes where another tensor was.
    """
    main_function = machine["main"]
    masters, others = [tensor.numpy() for tensor in inputs], np.ones(nbytes // 8)
    until_steady(lambda: main_function(*inputs))
    results = runtime.tensors_of(main_function(*inputs))
    blanks = [tensor.numpy() for tensor in results]
    times: list[float] = []
    started = time.perf_counter()
    while len(times) <= MIN_REPEATS or (time.perf_counter() - started < 2 * seconds and len(times) < MOST_REPEATS):
        others.sum()
        for index, values in enumerate(masters):
            inputs[index].copyfrom(values)
        for index, values in enumerate(blanks):
            results[index].copyfrom(values)
        results.clear()  # the VM keeps their memory for the next ones
        begun = time.perf_counter()
        result = main_function(*inputs)
        times.append(1e3 * (time.perf_counter() - begun))
        results = runtime.tensors_of(result)
        del result
    return times[1:]


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        _import_runtime()
        serve()
    else:
        sys.exit(_answered(Path(sys.argv[1])))
