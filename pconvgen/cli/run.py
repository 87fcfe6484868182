"""pconvgen run: one inference."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pconvgen.cli.options import Cores, DeviceName, Library, Threads, check_output, device_name
from pconvgen.errors import PconvgenError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pconvgen.manifest import Manifest

TOP = 5


def command(
    library: Library,
    inputs: Annotated[
        Path,
        typer.Option(
            "--input",
            metavar="X.npy|.npz",
            help="The input: an array, or for several inputs an archive with the model's names for them.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(metavar="Y.npz", help="Write the outputs, by the model's names. Without it: a summary of them."),
    ] = None,
    device: DeviceName = None,
    threads: Threads = 1,
    cores: Cores = None,
) -> None:
    """Run a compiled library on an input."""
    from pconvgen.affinity import choose_cores
    from pconvgen.devices import get_device
    from pconvgen.manifest import read_manifest
    from pconvgen.report.console import progress

    if output:
        if output.suffix != ".npz":
            raise UsageError("the output is an archive of arrays", file=output, expected="a name that ends in .npz")
        check_output(output, library, inputs)
    manifest = read_manifest(library)
    where = device_name(device, manifest, library)
    chosen = None if cores is None else choose_cores(cores, get_device(where).clocks())
    arrays = read_arrays(inputs, manifest)
    with progress(f"running {library} on the {where} device"):
        results = get_device(where).run(manifest.model(library), arrays, threads=threads, cores=chosen)
    if output:
        write_arrays(output, results)
        typer.echo(f"wrote {output}")
    else:
        for name, array in results.items():
            typer.echo(_summary(name, array))


def read_arrays(path: Path, manifest: Manifest) -> dict[str, NDArray[Any]]:
    """The arrays of a .npy or .npz file by the model's names; a single array is the only input.

    Raises
    ------
    UsageError: a single array for a model of several inputs, or another kind of file.
    PconvgenError: the file cannot be read.
    """
    import numpy as np

    names = [name for name, _, _ in manifest.inputs]
    try:
        # Pickled arrays can run any code when they are read.
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            arrays = {"": loaded}
        else:
            with loaded:
                arrays = {name: loaded[name] for name in loaded.files}
            # Any zip archive opens as one of arrays; what is none comes as bytes.
            if not all(isinstance(array, np.ndarray) for array in arrays.values()):
                raise ValueError("an archive of something else")
    except FileNotFoundError as error:
        raise UsageError("no such file", file=path, remedy="check the path of the input") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        # NumPy takes whatever it does not know for a pickle, and suggests to load it all the same.
        text = "pickled objects, or another kind of file" if "pickle" in str(error) else str(error).partition("\n")[0]
        raise PconvgenError(
            "this is not a file of arrays",
            file=path,
            found=text or type(error).__name__,
            expected="what numpy.save or numpy.savez wrote",
            remedy="write the input again, without objects in it",
        ) from error
    if "" not in arrays:
        return arrays
    if len(names) != 1:
        raise UsageError(
            "the model has several inputs",
            file=path,
            found="one array",
            expected=", ".join(names),
            remedy="write them with numpy.savez, by these names",
        )
    return {names[0]: arrays[""]}


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """An .npz file. Not numpy.savez, which takes some names (file, allow_pickle) for its own arguments.

    Raises PconvgenError when the path cannot be written.
    """
    from numpy.lib import format as npy

    from pconvgen.files import replacing

    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, array, allow_pickle=False)


def _summary(name: str, array: NDArray[Any]) -> str:
    """One line: shape, range, and of a vector the places of its largest values."""
    import numpy as np

    shape = "x".join(str(size) for size in array.shape) or "scalar"
    if not array.size:
        return f"{name}: {array.dtype} {shape}, empty"
    text = f"{name}: {array.dtype} {shape}, min {array.min():.5g}, mean {array.mean():.5g}, max {array.max():.5g}"
    vector = array.reshape(-1)
    if array.ndim and vector.size == max(array.shape) > 1:
        best = np.argsort(-vector.astype(np.float64), kind="stable")[:TOP]
        text += f", top {len(best)}: " + ", ".join(f"[{index}] {vector[index]:.5g}" for index in best)
    return text
