"""Runs one model after another with DeepSparse, on one core; started by benchmarks/deepsparse.py in its environment.

Requests are lines of JSON, and so are the answers:

    {"model": "layer.onnx", "input": "input.npy", "output": "output.npy"}   loads, runs once, writes the output  -> {}
    {"repeats": 3}       runs that often or longer
                         -> {"ms": the median of what the engine says that a run took,
                             "core": the share of the time in which this process computed}
"""

import json
import os
import statistics
import sys
import time

import numpy as np

WARM_UP, REPEAT_S = 3, 0.005


def main() -> None:
    """Answers until the input ends."""
    # The engine prints a banner; answers keep the real standard output to themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from deepsparse import compile_model

    engine, inputs = None, []
    for line in sys.stdin:
        request = json.loads(line)
        answer = {}
        if "model" in request:
            inputs = [np.load(request["input"])]
            engine = compile_model(request["model"], batch_size=1, num_cores=1)
            np.save(request["output"], engine.run(inputs)[0])
        else:
            for _ in range(WARM_UP):
                engine.timed_run(inputs, val_inp=False)
            times, started, computed = [], time.perf_counter(), time.process_time()
            while len(times) < request["repeats"] or time.perf_counter() - started < REPEAT_S:
                times.append(engine.timed_run(inputs, val_inp=False)[1])
            core = (time.process_time() - computed) / (time.perf_counter() - started)
            answer = {"ms": 1e3 * statistics.median(times), "core": core}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
