"""pconvgen records: what files of records hold, and files made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pconvgen.cli.options import check_output

app = typer.Typer(help="Look at files of tuning records, and merge them.", no_args_is_help=True)

Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files of records.", show_default=False)]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The file to write.")]


@app.command()
def stats(files: Files) -> None:
    """How many layers and trials there are of each target and device, and what failed."""
    from pconvgen.records.store import read_records
    from pconvgen.report.console import output
    from pconvgen.report.tuning import statistics_table

    output().print(statistics_table(record for file in files for record in read_records(file)))


@app.command()
def merge(files: Files, output: Output) -> None:
    """Write the records of several files to one, each once."""
    from pconvgen.records.store import merge as merge_files

    check_output(output)
    written, repeated = merge_files(files, output)
    typer.echo(f"wrote {output}: {written} records, {repeated} repeated ones left out")


@app.command()
def best(files: Files) -> None:
    """The fastest record of each layer, for each target and device."""
    from pconvgen.records.store import best as best_of
    from pconvgen.records.store import read_records
    from pconvgen.report.console import output
    from pconvgen.report.tuning import best_table

    output().print(best_table(best_of(record for file in files for record in read_records(file)).values()))


@app.command()
def export(files: Files, output: Output) -> None:
    """Write the fastest record of each layer, target and device to a file: what `compile --records` uses."""
    from pconvgen.files import write_text
    from pconvgen.records.store import best as best_of
    from pconvgen.records.store import read_records

    check_output(output, *files)
    found = best_of(record for file in files for record in read_records(file))
    write_text(output, "".join(record.to_line() for record in found.values()))
    typer.echo(f"wrote {output}: {len(found)} records")
