"""Answers requests about one engine's networks: started by benchmarks/engines/running.py in the engine's environment.

python worker.py ENGINE; requests are lines of JSON, and so are the answers:

    {"convert": "model.onnx"}                                -> {}
    {"load": "model.onnx", "inputs": "in.npz", "outputs": "out.npz", "names": [...]}   loads, runs once, writes -> {}
    {"seconds": 0.2, "repeats": 3}       runs that long or longer, and that often or more
                                         -> {"ms": the median, "core": processor time of all threads / wall time}
    {"profile": 5}                       of a library -> {"calls": the kernels that one inference calls}

A failure is answered with {"error": "..."}.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

# Last, so that an engine is never mistaken for a file of this folder.
sys.path.append(str(Path(__file__).parent))

import numpy as np
import sessions

WARM_UP_S = 0.02
LONGEST_S = 5
"""A slow engine gets fewer repeats, but one."""


def main():
    """Answers until the input ends."""
    # Engines print banners; answers keep the real standard output to themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    session = None
    for line in sys.stdin:
        request = json.loads(line)
        answer = {}
        try:
            if "convert" in request:
                sessions.SESSIONS[sys.argv[1]].convert(Path(request["convert"]))
            elif "load" in request:
                with np.load(request["inputs"]) as file:
                    arrays = {name: file[name] for name in file.files}
                session = sessions.load(sys.argv[1], request["load"], arrays, request["names"])
                session.infer()
                np.savez(request["outputs"], *session.outputs())
            elif "profile" in request:
                answer = {"calls": session.profile(request["profile"])}
            else:
                answer = measure(session, request["seconds"], request["repeats"])
        except BaseException as error:  # converters call sys.exit
            answer = {"error": f"{type(error).__name__}: {str(error)[-500:]}"}
        print(json.dumps(answer), file=answers, flush=True)


def measure(session, seconds, repeats):
    """The median inference, and how many threads computed meanwhile."""
    started, last = time.perf_counter(), 0.0
    while time.perf_counter() - started + last < WARM_UP_S:
        last = session.seconds()
    times, started, computed = [], time.perf_counter(), time.process_time()
    elapsed = 0.0
    while not times or (elapsed < LONGEST_S and (len(times) < repeats or elapsed < seconds)):
        times.append(session.seconds())
        elapsed = time.perf_counter() - started
    core = (time.process_time() - computed) / (time.perf_counter() - started)
    return {"ms": 1e3 * statistics.median(times), "core": core}


if __name__ == "__main__":
    main()
