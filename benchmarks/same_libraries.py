"""Whether a change of the compiler changes what it writes: python -m benchmarks.same_libraries DIGESTS [NAME ...].

Compiles each network of `make bench-networks`, dense and with a quarter of its weights in each structure, for this
machine and for ARM cores. The digests of the libraries go to the file DIGESTS where there is none yet; where there is
one, libraries that differ from it are printed, and the exit code is 1. Run it before and after a change, on one
machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console
from rich.progress import track
from torch import nn

import pconvgen
from benchmarks.network_cases import CASES, Case, Variant
from pconvgen.files import write_text
from pconvgen.frontend import load_model
from pconvgen.sparsity import STRUCTURES

DENSITY = 0.25
TARGETS = (("host", "float32"), ("cortex-a53", "float32"), ("cortex-a76", "float32"), ("cortex-a76", "float16"))
"""Targets and formats of activations."""


def cases(patterns: list[str]) -> Iterator[tuple[str, Case, str]]:
    """(name of a network and a structure, the network, the structure) that a shell pattern matches."""
    for case in CASES:
        for structure in STRUCTURES:
            name = f"{case.network} {structure}"
            if any(fnmatch(name, pattern) for pattern in patterns):
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


def main() -> int:
    """Exit code: 1 when a library differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("digests", type=Path, metavar="DIGESTS", help="JSON file, written or compared with")
    parser.add_argument("names", nargs="*", metavar="NAME", help="shell patterns, e.g. 'mobilenet_* pattern'")
    arguments = parser.parse_args()
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="pconvgen-") as folder:
        chosen = list(cases(arguments.names or ["*"]))
        for name, case, structure in track(chosen, "compiling", console=Console(stderr=True), transient=True):
            for target, digest in digests(case, structure, Path(folder)):
                found[f"{name}, {target}"] = digest
    if not arguments.digests.exists():
        write_text(arguments.digests, json.dumps(found, indent=1))
        print(f"{len(found)} digests written")
        return 0
    known = json.loads(arguments.digests.read_text())
    differ = [name for name, digest in found.items() if digest != known.get(name)]
    for name in differ:
        print(f"{name}: {'another library' if name in known else 'not known'}")
    print(f"{len(found) - len(differ)} of {len(found)} libraries are the same")
    return int(bool(differ))


if __name__ == "__main__":
    sys.exit(main())
