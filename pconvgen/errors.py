"""Errors that a user can act on: where, what was found, what was expected, what to do."""

from __future__ import annotations

REPORT = "report it with the model, the command, pconvgen's and TVM's versions, and the traceback that --debug shows"
"""What somebody can do about a mistake of ours."""


class PconvgenError(Exception):
    """A failure with its remedy. The command line prints it as one line and exits with `exit_code`.

    Parameters
    ----------
    message: what went wrong, one short clause.
    file, layer: where, when known.
    found, expected: what was seen and what would have been right.
    remedy: what the user can do about it.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        file: object = None,
        layer: str | None = None,
        found: object = None,
        expected: object = None,
        remedy: str | None = None,
    ) -> None:
        self.message = message
        self.file = None if file is None else str(file)
        self.layer = layer
        self.found = None if found is None else str(found)
        self.expected = None if expected is None else str(expected)
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.file, self.layer and f"layer {self.layer}") if part)
        text = f"{where}: {self.message}" if where else self.message
        details = [f"{label} {value}" for label, value in (("found", self.found), ("expected", self.expected)) if value]
        if details:
            text += f" ({', '.join(details)})"
        if self.remedy:
            text += f"; {self.remedy}"
        return " ".join(text.split())


class CompilerBugError(PconvgenError):
    """A mistake of ours: no change of the request is known to help, and a report does."""


class UnsupportedError(Exception):
    """A converter refuses an operator, and says what of it; importers add file, layer and operator."""


class UsageError(PconvgenError):
    """The request itself is wrong: an unknown name, a shape that does not parse, a missing option."""

    exit_code = 2


class DeviceLostError(PconvgenError):
    """A device cannot be reached any more; what ran there is not to blame."""


class PconvgenWarning(UserWarning):
    """Something that a user should know and that stops nothing. The command line prints it as one line."""


def last_line(error: BaseException) -> str:
    """The last meaningful line of an exception's message, without a traceback, at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
