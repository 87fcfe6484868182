"""The digests of what the compiler writes, and which of them changed."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from torch import nn

import pconvgen
from benchmarks.command import matches
from benchmarks.models.cases import CASES, Case, Variant
from pconvgen.files import write_text
from pconvgen.frontend import load_model
from pconvgen.sparsity import STRUCTURES

DENSITY = 0.25
TARGETS = (("host", "float32"), ("cortex-a53", "float32"), ("cortex-a76", "float32"), ("cortex-a76", "float16"))
"""Targets and formats of activations."""


def cases(patterns: Sequence[str] | None) -> Iterator[tuple[str, Case, str]]:
    """(name of a network and a structure, the network, the structure) that a shell pattern matches, all with None."""
    for case in CASES:
        for structure in STRUCTURES:
            name = f"{case.network} {structure}"
            if matches((name,), patterns):
                yield name, case, structure


def pruned(case: Case, structure: str) -> nn.Module:
    """The network; the layers that the benchmarks leave dense stay so."""
    if structure == "dense":
        return case.build()
    return case.pruned(Variant(structure, DENSITY, case.variants[0].layers))


def digests(case: Case, structure: str, folder: Path) -> Iterator[tuple[str, str]]:
    """(target and format, digest) of each library of a network."""
    imported = load_model(pruned(case, structure), None, example=(case.image(),))
    for target, dtype in TARGETS:
        compiled = pconvgen.compile(imported, target, dtype=dtype)
        path = compiled.export(folder / "model.so")
        with path.open("rb") as file:
            yield f"{target} {dtype}", hashlib.file_digest(file, "sha256").hexdigest()


def run(path: Path, patterns: Sequence[str] | None) -> bool:
    """Compiles what matches a shell pattern, all with None, and writes digests to `path` or compares them with it.

    Returns whether all are the same.
    """
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="pconvgen-") as folder:
        chosen = list(cases(patterns))
        for name, case, structure in track(chosen, "compiling", console=Console(stderr=True), transient=True):
            for target, digest in digests(case, structure, Path(folder)):
                found[f"{name}, {target}"] = digest
    if not path.exists():
        write_text(path, json.dumps(found, indent=1))
        print(f"{len(found)} digests written")
        return True
    known = json.loads(path.read_text())
    differ = [name for name, digest in found.items() if digest != known.get(name)]
    for name in differ:
        print(f"{name}: {'another library' if name in known else 'not known'}")
    print(f"{len(found) - len(differ)} of {len(found)} libraries are the same")
    return not differ
