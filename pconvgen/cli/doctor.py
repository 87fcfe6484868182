"""pconvgen doctor: whether everything is here that compiling, running and measuring take."""

from __future__ import annotations


def command() -> int:
    """Check this installation, and say what to do about what is missing.

    Fails only when nothing would work; what single targets and devices lack is a warning.
    """
    from pconvgen.devices.doctor import checks
    from pconvgen.report.console import output, progress
    from pconvgen.report.tables import check_table

    with progress("checking"):
        found = checks()
    output().print(check_table(found))
    return 1 if any(check.status == "failure" for check in found) else 0
