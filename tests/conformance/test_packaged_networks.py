"""Networks of packages, dense and pruned, on this machine and for ARM, against onnxruntime or PyTorch.

They are downloaded: `make test-long` installs what packages.txt lists, and nothing of it is kept in the tree.
"""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from packaged import NETWORKS, Packaged, letters
from torch import nn

import pconvgen
from pconvgen.devices import get_device
from pconvgen.errors import PconvgenError
from pconvgen.sparsify import Recipe, sparsify, sparsify_file

pytestmark = pytest.mark.long

DENSITY = 0.3
TOLERANCE = 1e-4
"""Of the largest value of an output."""
SMALL = 1e-3
"""The least of these: onnxruntime's sigmoid is off by 3e-8 near 0."""
WORSE = 4
"""How many times PyTorch's own error in float32 is allowed, where that is more: some networks magnify rounding."""
MOST_S = 900
"""For one network: several times what the largest one takes on a busy machine."""
PACKAGES = Path(__file__).parent / "packages.txt"
Arrays = dict[str, np.ndarray]
Expected = list[tuple[np.ndarray, float]]
"""Of each output what it should be, and the error that is allowed."""


@pytest.fixture(autouse=True)
def ends() -> Iterator[None]:
    """Fails a test that hangs."""

    def late(*_: object) -> None:
        pytest.fail(f"it did not end in {MOST_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(MOST_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@lru_cache
def pinned() -> dict[str, str]:
    """Versions by package."""
    lines = [line for line in PACKAGES.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def folder_of(row: Packaged) -> Path:
    """Where the package is installed; skips the test where it is not, or another version is."""
    expected = pinned()[row.package]
    try:
        found = metadata.version(row.package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{row.package} is not installed: pip install --no-deps -r {PACKAGES.name}")
    if found != expected:
        pytest.skip(f"{row.package} is {found}, the test is for {expected}")
    spec = importlib.util.find_spec(row.package.replace("-", "_"))
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def values(row: Packaged) -> Arrays:
    """Letters, or numbers between 0 and 1, as pixels and samples are."""
    if row.reads:
        return {name: letters(shape) for name, shape in row.inputs.items()}
    generator = np.random.default_rng(0)
    return {name: generator.random(shape, dtype=np.float32) for name, shape in row.inputs.items()}


def network(row: Packaged, structure: str | None, folder: Path) -> tuple[pconvgen.frontend.Imported, Arrays, Expected]:
    """As the compiler takes it, with inputs and what its judge makes of them; pruned unless the structure is None."""
    source = row.build(folder_of(row))
    given = values(row)
    if isinstance(source, Path):
        if structure is not None:
            pruned = folder / source.name
            sparsify_file(source, pruned, Recipe(structure, DENSITY))
            source = pruned
        session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
        expected = [(output, TOLERANCE) for output in session.run(None, given)]
        return pconvgen.load_model(source, dict(row.inputs)), given, expected
    if structure is not None:
        sparsify(source, structure, DENSITY)
    example = tuple(torch.from_numpy(array) for array in given.values())
    exact = outputs(deepcopy(source).double(), *(tensor.double() for tensor in example))
    own = outputs(source, *example)
    expected = [
        (wanted, max(TOLERANCE, WORSE * error(found, wanted))) for found, wanted in zip(own, exact, strict=True)
    ]
    return pconvgen.load_model(source, example=example), given, expected


def outputs(model: nn.Module, *example: torch.Tensor) -> list[np.ndarray]:
    """What a module returns, without what is None."""
    with torch.no_grad():
        found = model(*example)
    parts = (found,) if isinstance(found, torch.Tensor) else found
    return [part.numpy() for part in parts if part is not None]


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest error, relative to the largest value."""
    return float(np.abs(found.astype(np.float64) - wanted).max() / max(np.abs(wanted).max(), SMALL))


def check(found: Arrays, expected: Expected) -> None:
    """Whether all outputs are as close as is promised."""
    assert len(found) == len(expected)
    for (name, values), (wanted, allowed) in zip(found.items(), expected, strict=True):
        assert values.shape == wanted.shape, name
        assert error(values, wanted) <= allowed, f"{name}: {error(values, wanted):.1e}, allowed {allowed:.1e}"


@pytest.mark.parametrize("pruned", [False, True], ids=["dense", "pruned"])
@pytest.mark.parametrize("name", [name for name, row in NETWORKS.items() if not row.refused])
def test_a_network_of_a_package_is_right(name: str, pruned: bool, tmp_path: Path) -> None:
    row = NETWORKS[name]
    imported, given, expected = network(row, row.structure if pruned else None, tmp_path)
    check(pconvgen.compile(imported).run(given), expected)


@pytest.mark.parametrize("name", [name for name, row in NETWORKS.items() if row.refused])
def test_a_network_that_is_not_taken_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(PconvgenError, match=NETWORKS[name].refused):
        network(NETWORKS[name], None, tmp_path)


@pytest.mark.cross
@pytest.mark.parametrize("name", [name for name, row in NETWORKS.items() if row.arm])
def test_a_small_one_is_right_for_arm(name: str, tmp_path: Path) -> None:
    device = get_device("emulated")
    if reason := device.available():
        pytest.skip(reason)
    row = NETWORKS[name]
    imported, given, expected = network(row, row.structure, tmp_path)
    compiled = pconvgen.compile(imported, "android-arm64")
    model = compiled.manifest.model(compiled.export(tmp_path / "network.so"))
    check(device.run(model, given), expected)
