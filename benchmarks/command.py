"""What the benchmarks' command lines have in common; nothing here imports TVM or torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pconvgen.errors import PconvgenError

RESULTS, FILTERED = Path("benchmarks/results"), Path("out")
"""Where files go after a full run, for what was measured in a folder for each core, see `benchmarks.cores`; and after
one of a part. From the repository's root."""


def parser(package: str, text: str) -> argparse.ArgumentParser:
    """The options of `python -m package`, which `text` describes; its lines stay as they are."""
    return argparse.ArgumentParser(
        prog=f"python -m {package}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def matches(names: Sequence[str], globs: Sequence[str] | None) -> bool:
    """Whether a shell pattern matches one of the names, in upper or lower case; None matches all."""
    return globs is None or any(fnmatch(name.lower(), glob.lower()) for name in names for glob in globs)


def progress_bar(console: Console) -> Progress:
    """A task's description, how many of its items are done, and for how long it has been at them."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console, transient=True)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Ends the process with a PconvgenError's line and exit code in place of a traceback."""
    try:
        yield
    except PconvgenError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


def require_kept(missed: int) -> None:
    """Ends the process with exit code 1 when promises were missed."""
    if missed:
        raise SystemExit(f"{missed} promises were missed")
