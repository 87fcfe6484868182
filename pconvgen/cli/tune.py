"""pconvgen tune: the best schedules of a model's layers, found on the device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pconvgen.cli.first_use import calibrate_here, is_unmeasured
from pconvgen.cli.guard import INTERRUPTED
from pconvgen.cli.options import Cores, InputShapes, Model, NoCalibrate, Threads, device_for, parse_shapes
from pconvgen.errors import UsageError


def command(
    model: Model,
    target: Annotated[str, typer.Option(metavar="T", help="What to compile for, see `pconvgen targets`.")] = "host",
    device: Annotated[
        str | None,
        typer.Option(
            metavar="D",
            help="Where to measure: local, emulated, or an address as for `bench`. Without it: this machine for `host`,"
            " else ARM under emulation, which has no times: cycles are estimated where llvm-mca is installed, else"
            " instructions are counted.",
        ),
    ] = None,
    minutes: Annotated[float | None, typer.Option(metavar="M", help="Stop after so many minutes.")] = None,
    trials: Annotated[int | None, typer.Option(metavar="N", help="Stop after so many trials.")] = None,
    records: Annotated[
        Path, typer.Option(metavar="FILE", help="Where trials are kept; an existing file is continued.")
    ] = Path("records.jsonl"),
    threads: Threads = 1,
    cores: Cores = None,
    cool_down: Annotated[
        float, typer.Option(metavar="SECONDS", help="Wait before each trial, for devices that get hot.")
    ] = 0.0,
    inputs: InputShapes = None,
    no_calibrate: NoCalibrate = False,
) -> None:
    """Measure schedules of a model's layers and keep what was measured.

    `pconvgen compile --records FILE` then uses the fastest of each layer. Running it again goes on where it ended.
    """
    shapes = parse_shapes(inputs)
    for option, value in (("--minutes", minutes), ("--trials", trials)):
        if value is not None and value <= 0:
            raise UsageError(f"{option} is not positive", found=value, remedy="give a positive number, or leave it out")
    if cool_down < 0:
        raise UsageError("--cool-down is negative", found=cool_down)
    from pconvgen.affinity import choose_cores
    from pconvgen.frontend import model_format
    from pconvgen.targets.linker import find_linker
    from pconvgen.targets.presets import get_target

    model_format(model)
    preset = get_target(target)
    find_linker(preset)
    where = device_for(device, preset)
    chosen = None if cores is None else choose_cores(cores, where.clocks())

    from rich.console import Group
    from rich.live import Live
    from rich.progress import Progress

    from pconvgen.report.console import output, progress
    from pconvgen.report.tuning import progress_table, summary

    with progress(f"reading {model}"):
        from pconvgen.frontend import load_model
        from pconvgen.tuning.session import tune
        from pconvgen.tuning.tuner import Tuner, TuningBudget

        imported = load_model(model, shapes)
    if is_unmeasured(preset, wanted=not no_calibrate and where.name == "local"):
        calibrate_here(preset)
    budget = TuningBudget(trials, None if minutes is None and trials is not None else 60 * (minutes or 10))
    out = output()
    bar = Progress(console=out)
    spent_so_far = bar.add_task("budget", total=1.0)
    with Live(bar, console=out, transient=True, refresh_per_second=2, auto_refresh=out.is_terminal) as live:

        def report(tuner: Tuner, spent: float) -> None:
            bar.update(spent_so_far, completed=min(spent, 1.0))
            if out.is_terminal:
                live.update(Group(progress_table(tuner, rows=max(5, out.height - 6)), bar))

        tuned = tune(
            imported,
            preset,
            where,
            records,
            budget,
            threads=threads,
            cores=chosen,
            cool_down_s=cool_down,
            report=report,
        )
    out.print(progress_table(tuned.tuner))
    if tuned.split:
        out.print(f"left as they are, as two kernels compute them: {', '.join(tuned.split)}")
    out.print(summary(tuned.tuner))
    if not tuned.interrupted and threads == 1:
        from pconvgen.tuning.network import measure_network

        with progress("measuring the whole network"):
            network = measure_network(imported, preset, where, records, chosen)
        if network is not None:
            out.print(
                f"the whole network: {1e3 * network.cost:.3f} ms; its layers alone: {1e3 * network.layers:.3f} ms"
            )
    if tuned.tuner.prior:
        out.print(f"{tuned.tuner.prior} records of other layers, targets or devices helped to rank, as a prior")
    out.print(f"records in {records}; use them with: pconvgen compile {model} --target {target} --records {records}")
    if tuned.interrupted:
        out.print("interrupted; run the command again to go on")
        raise typer.Exit(INTERRUPTED)
