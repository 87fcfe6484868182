"""Builds libraries of trials in a process of its own: a build that hangs or crashes ends that, and not the tuner."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as Late
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

from pconvgen.devices.device import Model
from pconvgen.errors import PconvgenError
from pconvgen.schedules.default import Choice
from pconvgen.tuning.record import Failure
from pconvgen.tuning.task import Task

TIMEOUT_S = 60
"""After which a build is a failure; most take a tenth of a second."""


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
        for key, task in tasks.items():
            (folder / f"{key}.task").write_bytes(pickle.dumps(task))

    def __enter__(self) -> Builder:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def start(self, key: str, choice: Choice, number: int) -> Future[Model]:
        """Begins to build a trial of a task; its number names the file."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        return self._pool.submit(_build, self._folder / f"{key}.task", choice, self._folder / f"{number}.so")

    def finish(self, build: Future[Model]) -> Model | Failure:
        """The library, or why there is none."""
        try:
            return build.result(TIMEOUT_S)
        except Late:
            self._end()
            return Failure("time-out", f"building takes more than {TIMEOUT_S} s")
        except BrokenProcessPool as error:
            self._end()
            return Failure("crash", f"the process that builds has ended: {error}")
        except PconvgenError as error:
            return Failure("link", str(error))
        except Exception as error:
            return Failure("build", f"{type(error).__name__}: {error}"[:500])

    def _end(self) -> None:
        """Ends the process, whatever it does; the next build starts another one."""
        pool, self._pool = self._pool, None
        if pool is not None:
            for process in list(getattr(pool, "_processes", {}).values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)


def _build(task: Path, choice: Choice, library: Path) -> Model:
    return _task(task).library(choice, library)


@lru_cache(maxsize=4)
def _task(path: Path) -> Task:
    loaded: Task = pickle.loads(path.read_bytes())
    return loaded
