"""docs/performance.md, which the benchmark writes."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.networks.results import NetworkResult
from benchmarks.networks.tables import ENGINE_COLUMNS, SUMMARY_COLUMNS, engine_rows, markdown, summary_rows
from benchmarks.promises import Verdict

HEAD = """# Performance of whole networks

Written by `make bench-networks`; do not edit. float32, batch 1, one thread, random weights (time does not depend on
their values), the same network and the same image for every engine, every engine's output checked against PyTorch's.

- All engines of a network are measured in one run, round robin, beside the FMA peak of the core. The time is the
  median inference of an engine's best round; "typical" is the median over the rounds.
- "cores used" is processor time over wall time: 1.00 is one thread that had its core. Below 0.97 something else ran,
  and the time has a `~`.
- The *FMA bound* is two FLOP for every surviving multiply-accumulate, over the FMA peak: the time of a network that
  does nothing else and wastes nothing. Winograd convolutions may go below it.
- DeepSparse gets as many non-zeros in each layer, the largest ones wherever they are: it knows no structures.
- TVM untuned is its own importer and default pipeline; an engine that takes six times as long as the fastest is
  measured in one round only. TVM MetaSchedule had {trials} trials for each distinct operator of the network; it was
  tuned for the networks that have the row, and for no other.
- LiteRT's models are written by `benchmarks/engines/guest/litert_model.py`, in NHWC with fused activations: its makers'
  converters need TensorFlow or a second PyTorch.
"""


def page(results: Sequence[NetworkResult], verdicts: Sequence[Verdict], pictures: Sequence[str]) -> str:
    """The whole page; `pictures` are paths of images, from the page's folder."""
    from benchmarks.engines.guest.tvm_dense import TRIALS

    rows = [row for result in results for row in summary_rows(result)]
    parts = [
        HEAD.format(trials=TRIALS),
        machines(results),
        "## pconvgen and the best of the others",
        markdown(SUMMARY_COLUMNS, rows),
        *(f"![{path.rsplit('/', 1)[-1]}]({path})" for path in pictures),
        "## Promises",
        markdown(("promise", "measured", ""), [(v.text, v.found, v.word) for v in verdicts]),
    ]
    for result in results:
        parts += [f"## {result.title} at {result.size}x{result.size}", markdown(ENGINE_COLUMNS, engine_rows(result))]
        if result.missing:
            parts.append("Missing:\n\n" + "\n".join(f"- {line}" for line in result.missing))
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def machines(results: Sequence[NetworkResult]) -> str:
    """Machine, date and versions, once for networks that have the same."""
    lines: dict[str, list[str]] = {}
    for result in results:
        versions = ", ".join(f"{name} {number}" for name, number in result.versions.items())
        line = f"{result.cpu}, FMA peak {result.peak_gflops[1]:.0f} GFLOP/s, {result.date}: {versions}."
        lines.setdefault(line, []).append(result.title)
    return "\n\n".join(f"{', '.join(titles)}: {line}" for line, titles in lines.items())
