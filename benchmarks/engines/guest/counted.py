"""Runs on ARM, under emulation: one network in one engine, between the marks of the counting plugin.

python counted.py SESSION MODEL INPUTS.npz OUTPUTS.npz NAME...: SESSION is a key of SESSIONS in sessions.py,
MODEL the ONNX file beside which lies what the engine reads, NAME the outputs. Two spans are counted, of one inference
and of two: their difference is one inference without what surrounds it.
"""

from __future__ import annotations

import ctypes
import sys

import numpy as np
import sessions

MARKER = 0x70637667  # as in count_instructions.c
WARM_UPS = 2


def main(session: str, model: str, source: str, target: str, *names: str) -> None:
    """Warms up, counts, writes the outputs."""
    with np.load(source) as file:
        inputs = {name: file[name] for name in file.files}
    loaded = sessions.load(session, model, inputs, list(names))
    for _ in range(WARM_UPS):
        loaded.infer()
    mark = ctypes.CDLL(None).prctl
    for times in (1, 2):
        mark(MARKER, 1, 0, 0, 0)
        for _ in range(times):
            loaded.infer()
        mark(MARKER, 0, 0, 0, 0)
    np.savez(target, *map(np.ascontiguousarray, loaded.outputs()))


if __name__ == "__main__":
    main(*sys.argv[1:])
