"""pconvgen sparsify: zeros of a structure put into a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pconvgen.cli.options import Model, Structure, check_output


def command(
    model: Model,
    structure: Structure,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="OUT", help="The pruned model, in the format of MODEL."),
    ],
    density: Annotated[float, typer.Option(metavar="D", help="Share of the weights to keep, in (0, 1].")] = 0.25,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Layers to prune, by the names that `explain` shows; separated by commas, or repeat it."
            " Without it: all convolution and linear layers but the first convolution and the last linear layer.",
        ),
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="Random positions instead of the largest weights; for benchmarks.")
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="For --random.", min=0)] = 0,
) -> None:
    """Prune a model in one shot, by magnitude.

    Where the structure does not apply to a layer, a related one is used or the layer is left as it is; the table says
    so. The accuracy suffers: train the network afterwards, or use it for measurements only.
    """
    from pconvgen.report.console import output as console
    from pconvgen.report.console import progress
    from pconvgen.report.tables import pruned_table
    from pconvgen.sparsify import Recipe, sparsify_file

    globs = tuple(glob for entry in layers or () for glob in entry.split(",") if glob)
    recipe = Recipe(structure, density, globs, random, seed)
    check_output(output)
    with progress(f"pruning {model}"):
        rows = sparsify_file(model, output, recipe)
    out = console()
    out.print(pruned_table(rows))
    weights = sum(row.weights for row in rows)
    kept = sum(row.weights * row.density for row in rows)
    from pconvgen.report.units import percent

    if not globs:
        out.print("the first convolution and the last linear layer stay dense, see --layers")
    out.print(f"{percent(kept / weights)} of the weights are left; wrote {output}")
