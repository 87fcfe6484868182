"""What was learned of devices, in the user's cache: for each target and class of devices its records and a model.

The folder is `pconvgen/devices` in $XDG_CACHE_HOME, else in ~/.cache. Its files can be copied to other machines.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pconvgen.errors import PconvgenError
from pconvgen.files import user_cache
from pconvgen.records.describe import describe_target
from pconvgen.records.record import target_key
from pconvgen.values.target import Target


def folder() -> Path:
    """Where calibrations are kept, whether or not it exists."""
    return user_cache() / "devices"


def make_folder() -> None:
    """Makes that folder where there is none. Raises PconvgenError when it cannot be made."""
    try:
        folder().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PconvgenError(
            "the cache cannot be written",
            file=folder(),
            found=error.strerror,
            remedy="set XDG_CACHE_HOME to a folder that can be written",
        ) from error


def kept_model(target: Target, device_class: str) -> Path:
    """The file of the model of a target on a class of devices, whether or not it exists; its records are beside it,
    with the suffix .jsonl."""
    digest = hashlib.sha1(device_class.encode()).hexdigest()[:8]
    return folder() / f"{_stem(target)}-{digest}.json"


def kept_trials(target: Target, device_class: str) -> Path:
    """The file of what compiling has measured for a target on a class of devices, whether or not it exists."""
    return kept_model(target, device_class).with_suffix(".trials.jsonl")


def kept_models(target: Target) -> list[Path]:
    """The models of a target on any devices, the latest first."""
    found = folder().glob(f"{_stem(target)}-*.json")
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def _stem(target: Target) -> str:
    digest = hashlib.sha1(target_key(describe_target(target)).encode()).hexdigest()[:8]
    return f"{target.core.isa.name}-{target.cpu}-{digest}"
