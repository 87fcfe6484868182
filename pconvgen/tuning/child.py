"""How a process that builds begins. This module imports neither TVM nor torch: it decides whether they are."""

from __future__ import annotations

import ctypes
import signal
import sys
from contextlib import suppress


def attach() -> None:
    """Ctrl-C is for the process that waits for this one, which ends with it.

    TVM comes without torch, which nothing here needs and which takes two seconds to import.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError, AttributeError):  # Linux has prctl
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
