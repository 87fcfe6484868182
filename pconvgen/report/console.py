"""Where tables and progress are printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer

from rich.console import Console
from rich.text import Text

# Rows are cut to the width of a terminal, and never where another program reads them.
WIDE = 10_000

PATIENCE_S = 2.0
"""What is done before that needs no word."""


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
    # Names of layers are no markup.
    status = Console(stderr=True, markup=False).status(Text(what))
    late = Timer(PATIENCE_S, status.start)
    late.daemon = True
    late.start()
    try:
        yield lambda step: status.update(Text(f"{what}: {step}"))
    finally:
        late.cancel()
        late.join()
        status.stop()
