"""Arguments and options that several commands have, and their checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pconvgen.errors import UsageError

if TYPE_CHECKING:
    from pconvgen.devices import Device
    from pconvgen.manifest import Manifest
    from pconvgen.values.target import Target

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="The model: a .pt2 or .onnx file.", show_default=False)]
Structure = Annotated[
    str,
    typer.Option(metavar="S", help="What zeros form, such as pattern or simd_block. An unknown name lists all."),
]
Library = Annotated[
    Path, typer.Argument(metavar="OUT.so", help="A library that `pconvgen compile` wrote.", show_default=False)
]
InputShapes = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME=SHAPE",
        help="Shape of an input with dynamic dimensions, e.g. x=1,3,224,224. Repeat it for more inputs.",
    ),
]
DeviceName = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="D",
        help="Where to run it: local, emulated, adb://SERIAL (or adb:// for the only phone), rpc://HOST:PORT/KEY, or"
        " rpc+tracker://HOST:PORT/KEY. Without it: this machine where its processor fits, else ARM under emulation.",
    ),
]

Records = Annotated[
    Path | None,
    typer.Option(
        "--records",
        metavar="FILE",
        help="Use the fastest schedules that `pconvgen tune` has measured.",
    ),
]
Latency = Annotated[
    Path | None,
    typer.Option(
        "--latency",
        metavar="M",
        help="Predict times of layers that were not measured by what `latency fit` learned.",
    ),
]
NoCalibrate = Annotated[
    bool,
    typer.Option(
        "--no-calibrate", help="Do not measure this machine first where nobody has: its milliseconds stay unknown."
    ),
]
Threads = Annotated[int, typer.Option(metavar="N", help="How many threads the library may use.")]
Cores = Annotated[
    str | None,
    typer.Option(
        metavar="SET",
        help="The cores of the device that it is kept to: such as 0-3 or 1, big or little. Without it: all.",
    ),
]


def parse_shapes(texts: Sequence[str] | None) -> dict[str, tuple[int, ...]] | None:
    """["x=1,3,8,8"] as {"x": (1, 3, 8, 8)}; sizes may also be separated by "x". None when there are none.

    Raises
    ------
    UsageError: a text does not parse, or an input is named twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        name, _, sizes = text.rpartition("=")
        try:
            shape = tuple(int(size) for size in sizes.replace("x", ",").split(","))
        except ValueError:
            shape = ()
        if not name or not shape:
            raise UsageError(
                "--input does not parse",
                found=text,
                expected="NAME=SHAPE",
                remedy="give the input's name and its sizes, e.g. --input x=1,3,224,224",
            )
        if name in shapes:
            raise UsageError("--input names an input twice", found=name, remedy="give each input once")
        shapes[name] = shape
    return shapes or None


def check_output(output: Path, *others: Path | None) -> None:
    """Checks, before anything slow, that `output` can be written and is none of the `others`.

    Raises
    ------
    UsageError: it would replace one of them.
    PconvgenError: it cannot be written.
    """
    from pconvgen.files import check_writable

    if any(other is not None and other.resolve() == output.resolve() for other in others):
        raise UsageError("the output would replace another file of this command", file=output, remedy="rename it")
    check_writable(output)


def device_for(given: str | None, target: Target) -> Device:
    """The device of that name or address, or where libraries of the target run without further ado.

    Raises
    ------
    UsageError: there is no such device, or it does not run them.
    """
    from pconvgen.devices import DEVICES, get_device

    device = get_device(given or ("local" if target.is_host else "emulated"))
    if device.name in DEVICES and (device.name == "local") != target.is_host:
        raise UsageError(
            f"the {device.name} device does not run libraries for {target.name}",
            remedy="leave --device out, or choose another target",
        )
    return device


def device_name(given: str | None, manifest: Manifest, library: Path) -> str:
    """The device of that name, or where this library runs without further ado.

    Raises
    ------
    UsageError: there is no such device.
    PconvgenError: the library is none.
    """
    import platform

    from pconvgen.devices import get_device
    from pconvgen.elf import machine_of

    if given is not None:
        return get_device(given).name
    # Libraries for Android name another C library than this machine has, also where its processor is ARM.
    fits = machine_of(library) == platform.machine() and manifest.target != "android-arm64"
    return "local" if fits else "emulated"
