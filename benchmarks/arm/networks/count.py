"""Counting whole networks under emulation: pconvgen's libraries and other engines."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import pconvgen
from benchmarks.arm.networks.promises import PROMISES
from benchmarks.arm.networks.results import Row
from benchmarks.arm.peers import FORMATS, TARGET, count_peer
from benchmarks.models.cases import CASES, Case, Variant
from benchmarks.models.exported import Exported, export
from benchmarks.networks.results import DENSE, OURS
from pconvgen.devices.emulated import EmulatedDevice
from pconvgen.errors import PconvgenError

SIZE = 64
"""Height and width of the images: emulation is slow."""

OPTIONS = {"vgg16_bn": {"pool": 2}}
"""What fits a network to the small image: VGG-16 ends with planes of 2x2 then."""

TIMEOUT_S = 3600
TOLERANCE = {"float32": 1e-4, "float16": 2e-2}
"""Largest error relative to the largest output."""
LANES = {"float32": 4, "float16": 8}


def cases(names: Sequence[str] | None) -> list[Case]:
    """The networks that are promised, with their first variant and a small image."""
    promised = [promise.network for promise in PROMISES]
    return [
        replace(case, size=SIZE, variants=case.variants[:1], options=OPTIONS.get(case.network, {}))
        for case in CASES
        if case.network in (names or promised)
    ]


def count(case: Case, say: Callable[[str], None]) -> tuple[list[Row], list[str]]:
    """The rows of one network, and what is missing with its reason.

    Raises PconvgenError when pconvgen's own library fails or computes something else than PyTorch.
    """
    rows, missing = [], []
    # Dense sums of random weights in float16 are off by a tenth and more, here as in other engines.
    dense = [("float32", None)]
    for format, variant in [*dense, *product(FORMATS, case.variants)]:
        say(f"{case.title}: {variant.name if variant else DENSE}, {format}")
        rows.append(_ours(case, variant, format))
    with tempfile.TemporaryDirectory(prefix="pconvgen-network-") as folder:
        model = export(case.build(), case.image(), Path(folder) / "model.onnx")
        for format, peer in ((format, peer) for format, peers in FORMATS.items() for peer in peers):
            say(f"{case.title}: {peer.name}")
            try:
                span = count_peer(peer, model, TARGET, TIMEOUT_S)
            except PconvgenError as error:
                missing.append(f"{peer.name} on {case.title}: {error}")
                continue
            fmas = span.classes["vector_fma"]
            rows.append(Row(case.network, case.title, peer.name, DENSE, span.instructions, fmas, 0, format))
    return rows, missing


def _ours(case: Case, variant: Variant | None, format: str) -> Row:
    weights = variant.name if variant else DENSE
    model = case.pruned(variant) if variant else case.build()
    compiled = pconvgen.compile(model, TARGET, example=(case.image(),), dtype=format)
    with tempfile.TemporaryDirectory(prefix="pconvgen-network-") as name:
        folder = Path(name)
        exported: Exported = export(model, case.image(), folder / "model.onnx")
        library = compiled.manifest.model(compiled.export(folder / "model.so"))
        (image,) = exported.inputs.values()
        inputs = {compiled.manifest.inputs[0][0]: image}
        outputs, span = EmulatedDevice(timeout_s=TIMEOUT_S).profile(library, inputs)
    error = exported.error(list(outputs.values()))
    if not error < TOLERANCE[format]:  # also when it is not a number
        found, expected = f"error {error:.1e}", TOLERANCE[format]
        raise PconvgenError(f"{case.title} computes something else", found=found, expected=expected)
    macs = sum(decision.macs * decision.density for decision in compiled.decisions)
    bound = int(macs / LANES[format])
    return Row(case.network, case.title, OURS, weights, span.instructions, span.classes["vector_fma"], bound, format)
