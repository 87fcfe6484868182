"""docs/performance.md, which the benchmark writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.networks.results import NetworkResult
from benchmarks.networks.tables import ENGINE_COLUMNS, NONE, SUMMARY_COLUMNS, engine_rows, markdown, summary_rows
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


@dataclass(frozen=True)
class CoreResults:
    """What was measured on one core.

    Attributes
    ----------
    name: its folder's.
    results, verdicts: of its networks, and of what is promised of them.
    pictures: paths of images, from the page's folder.
    """

    name: str
    results: Sequence[NetworkResult]
    verdicts: Sequence[Verdict]
    pictures: Sequence[str]


def page(cores: Sequence[CoreResults]) -> str:
    """The whole page: the cores side by side, then each by itself."""
    from benchmarks.engines.guest.tvm_dense import TRIALS

    parts = [HEAD.format(trials=TRIALS), "## Cores side by side", side_by_side(cores)]
    for core in cores:
        parts += _of_core(core)
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def side_by_side(cores: Sequence[CoreResults]) -> str:
    """A table with a row for each network and two columns for each core: milliseconds, and times the best of others."""
    found: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {}
    for core in cores:
        for row in (row for result in core.results for row in summary_rows(result)):
            values = dict(zip(SUMMARY_COLUMNS[:5], row, strict=False))
            found.setdefault(row[:2], {})[core.name] = (values["ms"], values["speed-up"])
    columns = [column for core in cores for column in (f"{core.name}, ms", "x best dense engine")]
    rows = [
        (*network, *(value for core in cores for value in measured.get(core.name, (NONE, NONE))))
        for network, measured in found.items()
    ]
    return markdown(("network", "weights", *columns), rows)


def _of_core(core: CoreResults) -> list[str]:
    rows = [row for result in core.results for row in summary_rows(result)]
    parts = [
        f"## {core.name}",
        machines(core.results),
        "### pconvgen and the best of the others",
        markdown(SUMMARY_COLUMNS, rows),
        *(f"![{path.rsplit('/', 1)[-1]}]({path})" for path in core.pictures),
        "### Promises",
        markdown(("promise", "measured", ""), [(v.text, v.found, v.word) for v in core.verdicts]),
    ]
    for result in core.results:
        parts += [f"### {result.title} at {result.size}x{result.size}", markdown(ENGINE_COLUMNS, engine_rows(result))]
        if result.missing:
            parts.append("Missing:\n\n" + "\n".join(f"- {line}" for line in result.missing))
    return parts


def machines(results: Sequence[NetworkResult]) -> str:
    """Machine, date and versions, once for networks that have the same."""
    lines: dict[str, list[str]] = {}
    for result in results:
        versions = ", ".join(f"{name} {number}" for name, number in result.versions.items())
        line = f"{result.cpu}, FMA peak {result.peak_gflops[1]:.0f} GFLOP/s, {result.date}: {versions}."
        lines.setdefault(line, []).append(result.title)
    return "\n\n".join(f"{', '.join(titles)}: {line}" for line, titles in lines.items())
