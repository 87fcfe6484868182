"""What is told of a node that cannot be imported."""

from __future__ import annotations

from pconvgen.bugs import bug, ours
from pconvgen.errors import PconvgenError
from pconvgen.frontend.origins import Origin
from pconvgen.frontend.spec import last_line


def not_imported(error: Exception, origin: Origin, source: str, remedy: str) -> PconvgenError:
    """The error for a node whose converter raised `error`.

    Converters of ours raise NotImplementedError for what they refuse; anything else out of them is a bug.
    """
    if isinstance(error, PconvgenError):
        return error
    if ours(error) and not isinstance(error, NotImplementedError):
        return bug(error, file=source, layer=origin.layer, operator=origin.operator)
    return PconvgenError(
        f"TVM cannot import this {origin.operator}",
        file=source,
        layer=origin.layer,
        found=last_line(error),
        remedy=remedy,
    )
