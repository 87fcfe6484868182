"""What loaders look at in a shared library, as readelf tells it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_readelf = pytest.mark.skipif(not shutil.which("readelf"), reason="readelf is not installed")


@dataclass(frozen=True)
class Elf:
    """A shared library.

    Attributes
    ----------
    needed: names of the libraries that it asks for.
    undefined: symbols that others have to provide.
    alignments: of the segments that are loaded, in bytes.
    hashes: kinds of tables of its symbols.
    text_relocations: whether code would have to be written to, which Android refuses.
    printed: all that readelf says.
    """

    needed: frozenset[str]
    undefined: frozenset[str]
    alignments: frozenset[int]
    hashes: frozenset[str]
    text_relocations: bool
    printed: str


def read_elf(path: Path) -> Elf:
    """Asks readelf."""
    command = ["readelf", "-hdlrW", "--dyn-syms", path]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return Elf(
        needed=frozenset(re.findall(r"\(NEEDED\).*\[(.+)\]", printed)),
        undefined=frozenset(re.findall(r" UND (\w+)", printed)),
        alignments=frozenset(
            int(size, 16) for size in re.findall(r"^\s+LOAD .* (0x[0-9a-f]+)$", printed, re.MULTILINE)
        ),
        hashes=frozenset(re.findall(r"\((HASH|GNU_HASH)\)", printed)),
        text_relocations="TEXTREL" in printed,
        printed=printed,
    )
