"""pconvgen compile: a model becomes a shared library."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pconvgen.cli.first_use import calibrate_here, is_unmeasured
from pconvgen.cli.options import (
    DeviceName,
    InputShapes,
    Latency,
    Model,
    NoCalibrate,
    Records,
    check_output,
    device_for,
    parse_shapes,
)
from pconvgen.errors import UsageError

if TYPE_CHECKING:
    from pconvgen.compiler import BuiltModel
    from pconvgen.frontend import Imported
    from pconvgen.values.target import Target


def command(
    model: Model,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT.so", help="The library. Without it: the model's name, in here."),
    ] = None,
    target: Annotated[str, typer.Option(metavar="T", help="What to compile for, see `pconvgen targets`.")] = "host",
    inputs: InputShapes = None,
    dense: Annotated[bool, typer.Option("--dense", help="Ignore the zeros in the weights, to compare with.")] = False,
    exact_nan: Annotated[
        bool,
        typer.Option(
            "--exact-nan",
            help="Leave out what hands NaN and infinities on to outputs that do not see them, such as Winograd.",
        ),
    ] = False,
    dtype: Annotated[
        str,
        typer.Option(
            metavar="float32|float16",
            help="Format of activations. float16 needs an ARM processor with half precision, such as cortex-a76.",
        ),
    ] = "float32",
    accumulate: Annotated[
        str | None,
        typer.Option(
            metavar="float32|float16", help="Format of sums. float32 is more exact and slower. Without it: --dtype."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="float32|float16",
            help="Format of weights in the library; float16 halves their bytes, on any target. Without it: --dtype.",
        ),
    ] = None,
    records: Records = None,
    latency: Latency = None,
    explain: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write what was decided for each layer.")
    ] = None,
    emit: Annotated[
        str | None,
        typer.Option(metavar="c-header", help="Also write OUT.h, which describes the library to C and C++."),
    ] = None,
    timings: Annotated[
        bool, typer.Option("--timings", help="Print the seconds of each phase, and the memory.")
    ] = False,
    no_calibrate: NoCalibrate = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Measure kernels of which predictions do not tell which is faster, sparse against dense among them,"
            " on --device; what was measured is kept in the cache, or in --records.",
        ),
    ] = False,
    device: DeviceName = None,
    check: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Run the library on random inputs, for ARM under emulation, and compare with the model in PyTorch or"
            " onnxruntime; when they differ, nothing is written.",
        ),
    ] = False,
) -> None:
    """Compile a model to a shared library.

    Each layer gets the kernel that is predicted to be fastest for the zeros in its weight.
    """
    shapes = parse_shapes(inputs)
    output = output or Path(f"{model.stem}.so")
    if device and not measure:
        raise UsageError("--device is where --measure measures", remedy="add --measure, or leave --device out")
    if emit not in (None, "c-header"):
        raise UsageError("nothing of that kind can be written", found=f"--emit {emit}", expected="c-header")
    header = output.with_suffix(".h") if emit else None
    from pconvgen.files import replacing, write_json, write_text
    from pconvgen.frontend import model_format
    from pconvgen.report.console import output as console
    from pconvgen.report.console import progress
    from pconvgen.targets.formats import check_formats
    from pconvgen.targets.linker import find_linker
    from pconvgen.targets.presets import get_target
    from pconvgen.values.precision import FLOAT32, precision
    from pconvgen.watch import phase, watching

    # What can be known to fail does so before the minutes that a large network takes.
    model_format(model)
    preset = get_target(target)
    find_linker(preset)
    formats = precision(dtype, accumulate=accumulate, weights=weights)
    check_formats(preset, formats)
    if measure and (dense or formats != FLOAT32):
        raise UsageError("--measure is for pruned models in float32", remedy="leave --measure out")
    check_output(output, model, explain, records, latency, header)
    if header:
        check_output(header, model, explain, records, latency)
    if explain:
        check_output(explain, model)

    source: Path | Imported = model
    unmeasured = is_unmeasured(preset, wanted=not no_calibrate and not dense, latency=latency)
    if unmeasured or measure:
        from pconvgen.frontend import load_model

        with progress(f"reading {model}"):
            source = imported = load_model(model, shapes)
        if unmeasured:
            calibrate_here(preset)
    verified, measured = "", ""
    if measure:
        records, measured = _measured(imported, preset, device, records, latency)
    with (
        tempfile.TemporaryDirectory(prefix="pconvgen-") as folder,
        progress(f"compiling {model} for {target}") as report,
        watching(report) as watch,
    ):
        with phase("start"):
            from pconvgen.compiler import compile
            from pconvgen.header import c_header

        compiled = compile(
            source, target, inputs=shapes, dense=dense, exact_nan=exact_nan, dtype=dtype, accumulate=accumulate,
            weights=weights, records=records, latency=latency,
        )  # fmt: skip
        library = compiled.export(Path(folder) / "model.so")
        if check:
            with phase("verify"):
                verified = _verified(compiled, str(model))
        size = library.stat().st_size
        with replacing(output) as temporary:
            shutil.copyfile(library, temporary)
    if explain:
        write_json(explain, compiled.explain())
    if header:
        write_text(header, c_header(compiled.manifest, output))

    from pconvgen.report.layers import layer_table, summary
    from pconvgen.report.timings import timings_table

    out = console()
    out.print(layer_table(compiled.decisions))
    if timings:
        out.print(timings_table(watch.seconds))
    out.print(summary(compiled.decisions, size, compiled.manifest.memory))
    out.print(compiled.manifest.timing)
    if measured:
        out.print(measured)
    if verified:
        out.print(verified)
    out.print(f"wrote {output}" + (f" and {header}" if header else ""))


def _measured(
    imported: Imported,
    target: Target,
    device: str | None,
    records: Path | None,
    latency: Path | None,
) -> tuple[Path | None, str]:
    """Measures contenders; the file of records to compile with, None where nothing had to be measured, and a line."""
    from functools import partial

    from pconvgen.planning.experience import experience
    from pconvgen.records.facts import device_name
    from pconvgen.records.kept import kept_trials, make_folder
    from pconvgen.records.record import device_class
    from pconvgen.report.console import progress
    from pconvgen.report.tuning import summary
    from pconvgen.tuning.contenders import Contenders
    from pconvgen.tuning.session import tune
    from pconvgen.tuning.tuner import TuningBudget

    where = device_for(device, target)
    if where.counts:
        raise UsageError(
            "there is no clock on that device", found=where.name, remedy="name one that has one, or leave --measure out"
        )
    make_folder()
    path = records or kept_trials(target, device_class(device_name(where), 1))
    with progress(f"measuring kernels of {imported.source} on {where.name}") as say:
        strategy = partial(Contenders, experience(target, latency=latency))
        tuned = tune(
            imported, target, where, path, TuningBudget(), strategy=strategy,
            report=lambda tuner, _: say(f"{tuner.trials} kernels"),
        )  # fmt: skip
    if tuned.interrupted:
        raise KeyboardInterrupt
    usable = path.stat().st_size > 0
    return (path if usable else None), summary(tuned.tuner) if usable else "nothing had to be measured"


def _verified(compiled: BuiltModel, source: str) -> str:
    """What verifying the model from `source` has found. Raises PconvgenError when it computes something else."""
    from pconvgen.values.precision import FLOAT32
    from pconvgen.verify import check, verify

    result = verify(compiled)
    formats = compiled.manifest.precision
    check(result, source, formats)
    error, count = f"{result.max_relative_error:.1e}", len(result.seeds)
    text = f"verified against {result.judge}: relative error {error} with {count} random inputs"
    if formats == FLOAT32:
        return text
    return f"{text}; {formats}: the largest channel is the model's at {result.same_top:.1%} of the positions"
