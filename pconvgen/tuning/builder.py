"""Builds libraries of trials in a process of its own: a build that hangs or crashes ends that, and not the tuner.

TVM's popen_pool would not do: its process imports torch before anything of ours runs, and turns errors into tracebacks.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as Late
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

from pconvgen.devices.device import Model
from pconvgen.errors import PconvgenError
from pconvgen.records.record import Failure
from pconvgen.templates.choice import Choice
from pconvgen.tuning.child import attach
from pconvgen.tuning.task import Task

TIMEOUT_S = 60
"""After which a build is a failure; most take a tenth of a second."""
DEATHS = 3
"""Ends of the process in a row after which it is not the trials' fault."""


@dataclass(frozen=True, eq=False)
class Build:
    """One build that was started: what of, in which process pool, and its result."""

    key: str
    choice: Choice
    number: int
    pool: ProcessPoolExecutor
    library: Future[Model]


class Builder:
    """Builds one library after the other. Use it as a context, which ends its process.

    Parameters
    ----------
    tasks: by key.
    folder: where tasks and libraries go.
    """

    def __init__(self, tasks: Mapping[str, Task], folder: Path) -> None:
        self._folder = folder
        self._pool: ProcessPoolExecutor | None = None
        self._deaths = 0
        for key, task in tasks.items():
            (folder / f"{key}.task").write_bytes(pickle.dumps(task))

    def __enter__(self) -> Builder:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def start(self, key: str, choice: Choice, number: int) -> Build:
        """Begins to build a trial of a task; its number names the file. Builds end in the order of their starts."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=attach)
        library = self._pool.submit(_build, self._folder / f"{key}.task", choice, self._folder / f"{number}.so")
        return Build(key, choice, number, self._pool, library)

    def finish(self, build: Build) -> Model | Failure:
        """The library, or why there is none.

        Raises
        ------
        PconvgenError: one process after the other ends, whatever it builds.
        """
        try:
            made = build.library.result(TIMEOUT_S)
        except Late:
            self._end()
            return Failure("time-out", f"building takes more than {TIMEOUT_S} s")
        except (BrokenProcessPool, CancelledError) as error:
            if build.pool is not self._pool:
                # It was waiting when another one ended the process.
                return self.finish(self.start(build.key, build.choice, build.number))
            self._end()
            self._deaths += 1
            if self._deaths == DEATHS:
                raise PconvgenError(
                    "the process that builds ends by itself, whatever it builds",
                    found=f"{DEATHS} in a row: {error}",
                    remedy="free some memory; a script that calls tune needs `if __name__ == '__main__':`",
                ) from error
            return Failure("crash", f"the process that builds has ended: {error}")
        except PconvgenError as error:
            return Failure("link", str(error))
        except Exception as error:
            return Failure("build", f"{type(error).__name__}: {error}"[:500])
        self._deaths = 0
        return made

    def _end(self) -> None:
        """Ends the process, whatever it does; the next build starts another one."""
        pool, self._pool = self._pool, None
        if pool is not None:
            # Python 3.14 has kill_workers() for this.
            for process in list(getattr(pool, "_processes", {}).values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)


def _build(task: Path, choice: Choice, library: Path) -> Model:
    return _task(task).library(choice, library)


@lru_cache(maxsize=4)
def _task(path: Path) -> Task:
    loaded: Task = pickle.loads(path.read_bytes())
    return loaded
