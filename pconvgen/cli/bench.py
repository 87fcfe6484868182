"""pconvgen bench: how long an inference takes or, under emulation, how many instructions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pconvgen.cli.options import Cores, DeviceName, Library, Threads, check_output, device_name

if TYPE_CHECKING:
    from pconvgen.devices import BenchResult


def command(
    library: Library,
    device: DeviceName = None,
    threads: Threads = 1,
    cores: Cores = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the result as JSON, too.")] = None,
) -> None:
    """Measure a compiled library on random inputs.

    Under emulation there are no times, because they would say nothing about ARM: instructions are counted instead.
    """
    from pconvgen.affinity import choose_cores
    from pconvgen.devices import get_device
    from pconvgen.manifest import read_manifest
    from pconvgen.report.console import progress

    if json:
        check_output(json, library)
    manifest = read_manifest(library)
    where = device_name(device, manifest, library)
    chosen = None if cores is None else choose_cores(cores, get_device(where).clocks())
    inputs = manifest.random_inputs(0)
    with progress(f"measuring {library} on the {where} device"):
        result = get_device(where).bench(manifest.model(library), inputs, threads=threads, cores=chosen)
    if json:
        from pconvgen.files import write_json

        write_json(json, to_json(result))
    typer.echo(line(result))


def to_json(result: BenchResult) -> dict[str, Any]:
    """The result as JSON values: times where the device has a clock, instructions where it counts them."""
    data: dict[str, Any] = {"threads": result.threads, "device": result.device, "target": result.target}
    if result.cores:
        data["cores"] = list(result.cores)
    if result.median_ms is not None:
        data |= {"median_ms": result.median_ms, "min_ms": result.min_ms, "times_ms": list(result.times_ms)}
        data |= {"spread": result.spread, "throttled": result.throttled, "conditions": dict(result.conditions)}
    if result.instructions is not None:
        data |= {"instructions": result.instructions, "classes": dict(result.classes)}
    return data


def line(result: BenchResult) -> str:
    """The result as people read it."""
    from pconvgen.affinity import format_cores
    from pconvgen.report.units import millions, milliseconds

    parts = []
    if result.median_ms is not None and result.min_ms is not None:
        times = f"median {milliseconds(result.median_ms)} ms, min {milliseconds(result.min_ms)} ms"
        parts.append(f"{times}, spread {100 * (result.spread or 0):.1f} %, {len(result.times_ms)} repeats")
    if result.throttled:
        clock = f" to {result.conditions['mhz after']:.0f} MHz" if "mhz after" in result.conditions else ""
        parts.append(f"THROTTLED{clock}: the device was slowed down, let it cool and measure again")
    if result.instructions is not None:
        classes = ", ".join(f"{name} {millions(count)}" for name, count in sorted(result.classes.items()))
        parts.append(f"instructions {result.instructions} for one inference ({classes})")
    threads = f"{result.threads} thread{'' if result.threads == 1 else 's'}"
    if result.cores:
        threads += f" on core{'' if len(result.cores) == 1 else 's'} {format_cores(result.cores)}"
    return f"{'; '.join(parts)}; {threads}, device {result.device}, target {result.target}"
