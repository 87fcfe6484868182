"""What libraries in C++ write on standard error is for those who look for a mistake, not for everybody."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Drops what TVM, LLVM and others write to the descriptor of standard error; what goes through Python arrives."""
    before = sys.stderr
    if before is None or sys.__stderr__ is None:  # closed: the descriptor may be any file's by now
        yield
        return
    saved = os.dup(2)
    with open(saved, "w", buffering=1, encoding=before.encoding, errors=before.errors) as ours:
        before.flush()
        # Something else, such as a test, may have put its own stream there.
        if before is sys.__stderr__:
            sys.stderr = ours
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            sys.stderr = before


def hand_on() -> None:
    """Gives the process that takes the place of this one its standard error back."""
    if sys.stderr is not None:
        os.dup2(sys.stderr.fileno(), 2)
