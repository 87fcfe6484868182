"""pconvgen latency: a model of latency, learned from records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pconvgen.cli.options import InputShapes, Latency, Model, Structure, check_output, device_for, parse_shapes
from pconvgen.errors import UsageError

app = typer.Typer(help="Learn from tuning records how long layers take, and predict it.", no_args_is_help=True)

Files = Annotated[list[Path], typer.Argument(metavar="RECORDS...", help="Files of records.", show_default=False)]


@app.command()
def fit(
    files: Files,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="M", help="The latency model to write.")],
) -> None:
    """Learn a model of the target and device that the records have most of."""
    from pconvgen.records.record import NetworkRecord, Record
    from pconvgen.records.store import read_all
    from pconvgen.report.console import progress

    check_output(output, *files)
    with progress("learning"):
        from pconvgen.latency.model import fit as learn

        found = [record for file in files for record in read_all(file)]
        model = learn(
            [record for record in found if isinstance(record, Record)],
            [record for record in found if isinstance(record, NetworkRecord)],
        )
        model.save(output)
    typer.echo(
        f"wrote {output}: {model.records} records of {model.tasks} layers, {model.target['name']} on"
        f" {model.device_class}"
    )


@app.command("eval")
def evaluate(
    files: Files,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw predicted against measured.")] = None,
) -> None:
    """Predict each layer from the others, and each network from others, and tell the errors."""
    if plot is not None:
        check_output(plot, *files)
    from pconvgen.files import replacing
    from pconvgen.records.store import read_records
    from pconvgen.report.console import progress
    from pconvgen.report.latency import plot as draw
    from pconvgen.report.units import percent

    with progress("learning with layers held out"):
        from pconvgen.latency.evaluate import evaluate as held_out
        from pconvgen.latency.model import most

        found = held_out(most([record for file in files for record in read_records(file)]))
    layers = len({record.task for record in found.records})
    typer.echo(f"{len(found.records)} records of {layers} layers, {found.records[0].device_class}")
    typer.echo(f"median error for layers held out: {percent(found.error)}")
    typer.echo(f"within the 80 % interval: {percent(float(found.inside.mean()))}")
    typer.echo(f"rank correlation of the schedules of a layer: {found.rank_correlation:.3f}")
    for name, (measured, predicted) in found.networks.items():
        text = f"{1e3 * predicted:.2f} ms predicted, {1e3 * measured:.2f} measured ({predicted / measured - 1:+.1%})"
        typer.echo(f"{name}, held out, the default schedule of each of its layers once: {text}")
    if not found.networks:
        typer.echo("no network can be held out: the others have too few records")
    if plot is not None:
        with replacing(plot) as temporary:
            draw(found, found.records[0].device_class, temporary)
        typer.echo(f"wrote {plot}")


@app.command()
def predict(
    model: Model,
    latency: Annotated[Path, typer.Option("--model", metavar="M", help="What `latency fit` wrote.")],
    target: Annotated[str, typer.Option(metavar="T", help="What to compile for, see `pconvgen targets`.")] = "host",
    inputs: InputShapes = None,
) -> None:
    """Predict the time of each layer of a network, and of the network, with intervals; records are left aside."""
    shapes = parse_shapes(inputs)
    from pconvgen.frontend import model_format
    from pconvgen.report.console import output, progress
    from pconvgen.report.latency import layers_table
    from pconvgen.targets.presets import get_target

    model_format(model)
    preset = get_target(target)
    with progress(f"planning {model}"):
        from pconvgen.compiler import decide
        from pconvgen.frontend import load_model
        from pconvgen.latency.model import LatencyModel
        from pconvgen.planning.experience import Experience

        learned = LatencyModel.load(latency)
        learned.check(preset)
        known = Experience(preset, learned.device_class, (), learned)
        decisions = decide(load_model(model, shapes), preset, planner=known)
    out = output()
    out.print(layers_table(decisions, learned.together))
    out.print(known.timing)


@app.command()
def curves(
    model: Model,
    structure: Structure,
    target: Annotated[str, typer.Option(metavar="T", help="What to compile for, see `pconvgen targets`.")] = "host",
    lowest: Annotated[float, typer.Option(metavar="D", help="The density at which curves begin.")] = 0.05,
    device: Annotated[
        str | None, typer.Option(metavar="D", help="Measure knots there, see `bench`. Without it, they are predicted.")
    ] = None,
    latency: Latency = None,
    inputs: InputShapes = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the knots of all curves.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the curves of the largest layers.")
    ] = None,
) -> None:
    """Tell how each layer's latency falls with its density, as piecewise-linear curves.

    Knots lie where a curve bends. Without a latency model of the target they are in cycles, a static estimate.
    """
    shapes = parse_shapes(inputs)
    if not 0 < lowest < 1:
        raise UsageError("--lowest is out of range", found=lowest, expected="more than 0, less than 1")
    for output_file in (json, plot):
        if output_file is not None:
            check_output(output_file, model)
    from pconvgen.files import replacing, write_json
    from pconvgen.frontend import model_format
    from pconvgen.report.console import output, progress
    from pconvgen.report.latency import curves_table, plot_curves
    from pconvgen.sparsify import Recipe
    from pconvgen.targets.presets import get_target

    model_format(model)
    preset = get_target(target)
    where = None if device is None else device_for(device, preset)
    Recipe(structure, lowest)
    with progress(f"reading {model}"):
        from pconvgen.devices.units import SECONDS
        from pconvgen.frontend import load_model
        from pconvgen.planning.experience import experience
        from pconvgen.whatif.layer_curves import layer_curves
        from pconvgen.whatif.measuring import measured

        known = experience(preset, latency=latency)
        imported = load_model(model, shapes)
    with progress("looking at layers") as step:
        if where is None:
            unit = "cycles (estimate)" if known.model is None else SECONDS
            found = layer_curves(imported, structure, known, lowest=lowest, report=step)
        else:
            with measured(where, preset) as (unit, cost):
                found = layer_curves(imported, structure, known, lowest=lowest, cost=cost, report=step)
    out = output()
    out.print(curves_table(found, unit))
    if where is None:
        out.print(known.timing)
    if json:
        write_json(json, {"unit": unit, "layers": [curve.to_json() for curve in found]})
        out.print(f"wrote {json}")
    if plot:
        with replacing(plot) as temporary:
            plot_curves(found, unit, f"{model.name}, {structure}, {target}", temporary)
        out.print(f"wrote {plot}")
