"""A worker that stays: it has TVM imported, and forks for each request, so that a crash ends the fork only.

Importing takes longer than measuring a kernel does.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from pconvgen.devices.process import check_exit
from pconvgen.errors import PconvgenError

GRACE_S = 10
"""For the server to say that a fork has run out of time, before the server itself is taken to hang."""


class ForkServer:
    """Answers one request after the other; see `pconvgen.devices.worker`. Its process starts with the first, or before.

    Parameters
    ----------
    timeout_s: of one request.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts its process, where it does not run."""
        if self._process is None or self._process.poll() is not None:
            # A session of its own: Ctrl-C is for the caller, whose end this process sees by its closed input.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pconvgen.devices.worker", "--serve"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                start_new_session=True,
            )  # fmt: skip

    def answer(self, folder: Path, what: str, remedy: str) -> None:
        """Has the request in a folder answered.

        Raises
        ------
        PconvgenError: answering fails, crashes or does not end; the next request is answered nevertheless.
        """
        self.start()
        assert self._process is not None
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        # Whole seconds, as an alarm counts them.
        seconds = math.ceil(self._timeout_s)
        try:
            stdin.write(json.dumps({"folder": str(folder), "timeout_s": seconds}) + "\n")
            stdin.flush()
            ready, _, _ = select.select([stdout], [], [], seconds + GRACE_S)
            line = stdout.readline() if ready else ""
        except OSError:
            line = ""
        if not line:
            self.close()
            raise PconvgenError(f"{what} ended the process that starts it", remedy=remedy)
        if int(line) == -signal.SIGALRM:
            raise PconvgenError(f"{what} did not end", found=f"more than {self._timeout_s:g} s", remedy=remedy)
        check_exit(what, int(line), (folder / "printed.txt").read_text(errors="replace"), remedy)

    def close(self) -> None:
        """Ends the process with all that it has started."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
