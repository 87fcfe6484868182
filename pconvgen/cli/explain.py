"""pconvgen explain: what is decided for each layer, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pconvgen.cli.first_use import calibrate_here, is_unmeasured
from pconvgen.cli.options import InputShapes, Latency, NoCalibrate, Records, check_output, parse_shapes
from pconvgen.errors import UsageError

if TYPE_CHECKING:
    from pconvgen.arena import ActivationMemory
    from pconvgen.values.decision import Decision


def command(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL|OUT.so", help="A model, or a library that `pconvgen compile` wrote.", show_default=False
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(metavar="T", help="For a model: what it would be compiled for. Without it: host."),
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table as JSON, too.")] = None,
    inputs: InputShapes = None,
    records: Records = None,
    latency: Latency = None,
    no_calibrate: NoCalibrate = False,
) -> None:
    """Show the kernel of each layer, the reason and the numbers that decided.

    For a model nothing is built, so this takes a fraction of the time of `compile`.
    """
    shapes = parse_shapes(inputs)
    if json:
        check_output(json, path)
    size = None
    if _is_library(path):
        if target is not None or shapes or records or latency:
            raise UsageError(
                "--target, --input, --records and --latency are for models",
                file=path,
                found="a compiled library",
                remedy="leave them out, or give the model that the library was compiled from",
            )
        from pconvgen.manifest import read_manifest

        manifest = read_manifest(path)
        target, decisions, memory = manifest.target, manifest.decisions, manifest.memory
        timing = manifest.timing
        size = path.stat().st_size
    else:
        target = target or "host"
        decisions, memory, timing = _decide(path, target, shapes, records, latency, calibrate=not no_calibrate)
    if json:
        from pconvgen.files import write_json
        from pconvgen.manifest import explained

        write_json(json, explained(target, decisions, memory, timing))

    from pconvgen.report.console import output
    from pconvgen.report.layers import layer_table, summary

    out = output()
    out.print(layer_table(decisions))
    out.print(f"target {target}; {summary(decisions, size, memory)}")
    out.print(timing)


def _is_library(path: Path) -> bool:
    """Whether the file is a shared library by its name or its content."""
    if path.suffix == ".so" or not path.is_file():
        return path.suffix == ".so"
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _decide(
    path: Path,
    target: str,
    shapes: Mapping[str, Sequence[int]] | None,
    records: Path | None,
    latency: Path | None,
    *,
    calibrate: bool,
) -> tuple[tuple[Decision, ...], ActivationMemory | None, str]:
    """The decisions for a model, the memory of its activations and what is known of times, without building it."""
    from pconvgen.frontend import load_model
    from pconvgen.report.console import progress
    from pconvgen.targets.presets import get_target

    preset = get_target(target)
    with progress(f"reading {path}"):
        imported = load_model(path, shapes)
    if is_unmeasured(preset, wanted=calibrate, latency=latency):
        calibrate_here(preset)
    with progress(f"choosing kernels for {target}"):
        from pconvgen.compiler import lower
        from pconvgen.passes.memory import memory_of
        from pconvgen.planning.experience import experience

        known = experience(preset, records, latency)
        lowered, decisions = lower(imported, preset, planner=known)
        return decisions, memory_of(lowered), known.timing
