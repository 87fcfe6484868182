"""What is told of a node that cannot be imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pconvgen.bugs import bug, ours
from pconvgen.errors import PconvgenError, UnsupportedError, last_line
from pconvgen.frontend.origins import Origin
from pconvgen.tvm_compat.relax import abandon


def not_imported(error: Exception, origin: Origin, source: str, remedy: str) -> PconvgenError:
    """The error for a node whose converter raised `error`.

    Converters of ours raise UnsupportedError for what they refuse; anything else out of them is a bug.
    """
    if isinstance(error, PconvgenError):
        return error
    if ours(error) and not isinstance(error, UnsupportedError):
        return bug(error, file=source, layer=origin.layer, operator=origin.operator)
    return PconvgenError(
        f"TVM cannot import this {origin.operator}",
        file=source,
        layer=origin.layer,
        found=last_line(error),
        remedy=remedy,
    )


@contextmanager
def importing(builder: Callable[[], Any], source: str, remedy: str) -> Iterator[None]:
    """Around TVM's importer, which makes its block builder anew: what it raises becomes a PconvgenError."""
    try:
        yield
    except PconvgenError:
        abandon(builder())
        raise
    except Exception as error:
        abandon(builder())
        raise PconvgenError(
            "TVM cannot import this model", file=source, found=last_line(error), remedy=remedy
        ) from error
