"""pconvgen whatif: how fast a network would be with fewer weights, before anyone trains it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pconvgen.cli.first_use import calibrate_here, is_unmeasured
from pconvgen.cli.options import (
    InputShapes,
    Latency,
    Model,
    NoCalibrate,
    Structure,
    check_output,
    device_for,
    parse_shapes,
)
from pconvgen.errors import UsageError


def command(
    model: Model,
    structure: Structure,
    density: Annotated[str, typer.Option(metavar="D,D,...", help="Shares of the weights to keep.")] = "0.5,0.25,0.125",
    target: Annotated[str, typer.Option(metavar="T", help="What to compile for, see `pconvgen targets`.")] = "host",
    device: Annotated[
        str | None,
        typer.Option(metavar="D", help="Measure whole networks there, see `bench`. Without it, times are predicted."),
    ] = None,
    latency: Latency = None,
    no_calibrate: NoCalibrate = False,
    layers: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Layers to prune, as those of `sparsify`.")
    ] = None,
    inputs: InputShapes = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all figures, too.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw latency against density.")] = None,
) -> None:
    """Tell how latency falls with density, which layers gain and which are not worth pruning.

    The network is pruned by magnitude. Times are predicted by a model that was learned on such a device; where there is
    none, there are estimates of cycles.
    """
    try:
        densities = [float(text) for text in density.split(",")]
    except ValueError as error:
        raise UsageError("--density does not parse", found=density, expected="numbers, e.g. 0.5,0.25") from error
    shapes = parse_shapes(inputs)
    for output in (json, plot):
        if output is not None:
            check_output(output, model)
    from pconvgen.frontend import model_format
    from pconvgen.targets.presets import get_target

    model_format(model)
    preset = get_target(target)
    where = None if device is None else device_for(device, preset)
    if where is not None and where.counts:
        raise UsageError(
            "there is no clock on that device",
            found=device,
            remedy="leave --device out for an estimate, or measure on a device that has one",
        )

    from pconvgen.files import replacing, write_json
    from pconvgen.report.console import output as console
    from pconvgen.report.console import progress
    from pconvgen.report.whatif import outlook_table, points_table
    from pconvgen.report.whatif import plot as draw
    from pconvgen.whatif.networks import outlooks, whatif

    if is_unmeasured(preset, wanted=not no_calibrate and where is None, latency=latency):
        from pconvgen.frontend import load_model

        load_model(model, shapes)  # what is wrong with it is said before anything takes long
        calibrate_here(preset)
    globs = tuple(glob for entry in layers or () for glob in entry.split(",") if glob)
    with progress(f"pruning and planning {model}"):
        points = whatif(model, structure, densities, target, layers=globs, inputs=shapes, device=where, latency=latency)
    found = outlooks(points)
    out = console()
    out.print(outlook_table(found))
    out.print(points_table(points))
    if points[0].total_ms is None:
        out.print(f"nothing was learned of {target} on such a device; cycles are a static estimate")
    idle = [layer.name for layer in found if not layer.worth]
    if idle:
        out.print(f"not worth pruning with {structure}: {', '.join(idle)}")
    if json:
        write_json(json, {"points": [point.to_json() for point in points]})
        out.print(f"wrote {json}")
    if plot:
        with replacing(plot) as temporary:
            draw(points, f"{model.name}, {structure}, {target}", temporary)
        out.print(f"wrote {plot}")
