"""Measured costs of pruned layers, for curves that are to rest on measurements."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from pconvgen.devices import Device
from pconvgen.errors import PconvgenError
from pconvgen.records.record import Failure
from pconvgen.tuning.runner import Runner
from pconvgen.tuning.session import reference_library
from pconvgen.values.target import Target
from pconvgen.whatif.layer_curves import Pruned


@contextmanager
def measured(
    device: Device, target: Target, cores: Sequence[int] | None = None
) -> Iterator[tuple[str, Callable[[Pruned], float]]]:
    """What costs of pruned layers are in, see `Device.unit`, and what measures them.

    The latter raises PconvgenError when the layer's kernel fails, or the device does.
    """
    with tempfile.TemporaryDirectory(prefix="pconvgen-curves-") as name, device.session() as ready:
        folder = Path(name)
        runner = Runner(ready, reference_library(target, folder), cores=cores)

        def cost(pruned: Pruned) -> float:
            library = pruned.task.library(pruned.choice, folder / "layer.so")
            found = runner.measure(pruned.task, library)
            if isinstance(found, Failure):
                raise PconvgenError("a kernel fails", layer=pruned.task.name, found=f"{found.kind}: {found.text}")
            return median(found.repeats)

        yield ready.unit, cost
