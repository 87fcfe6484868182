"""Where tables and progress are printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

# Rows are cut to the width of a terminal, and never where another program reads them.
WIDE = 10_000


def output() -> Console:
    """Standard output. Names of layers are printed as they are: brackets are no markup, colons no emoji."""
    width = None if sys.stdout.isatty() else WIDE
    return Console(width=width, markup=False, highlight=False, emoji=False)


@contextmanager
def progress(what: str) -> Iterator[Callable[[str], None]]:
    """Says on standard error what takes so long, if that is a terminal; what it gives adds how far it is."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with Console(stderr=True).status(what) as status:
        yield lambda step: status.update(f"{what}: {step}")
