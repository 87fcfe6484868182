"""Compiled models in Python: what run takes, threads that share one, and libraries that are loaded again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import SHAPE, Two, small

import pconvgen
from pconvgen.devices import get_device
from pconvgen.errors import PconvgenError, UsageError

pytestmark = pytest.mark.host

THREADS, RUNS = 8, 1000


@pytest.fixture(scope="module")
def compiled() -> pconvgen.CompiledModel:
    return pconvgen.compile(small(), example=(torch.zeros(SHAPE),))


def test_eight_threads_share_a_model(compiled: pconvgen.CompiledModel) -> None:
    """Each run has the answer of its own input, and keeps it while others run."""
    images = [np.full(SHAPE, index / THREADS, np.float32) for index in range(THREADS)]
    expected = [compiled.run(image)["output"] for image in images]
    assert not np.array_equal(expected[0], expected[1])
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda run: compiled.run(images[run % THREADS])["output"], range(RUNS)))
    for run, output in enumerate(found):
        np.testing.assert_array_equal(output, expected[run % THREADS])


def test_threads_that_come_first_load_it_once() -> None:
    model = pconvgen.compile(small(), example=(torch.zeros(SHAPE),))
    image = np.ones(SHAPE, np.float32)
    with ThreadPoolExecutor(THREADS) as pool:
        first, *others = pool.map(lambda _: model.run(image)["output"], range(THREADS))
    assert all(np.array_equal(first, other) for other in others)
    assert len(model._loaded) == 1


def test_run_takes_arrays_a_list_or_a_dict() -> None:
    model = pconvgen.compile(Two(), example=(torch.zeros(1, 4), torch.zeros(1, 4)))
    names = [name for name, _, _ in model.manifest.inputs]
    left, right = np.arange(4, dtype="float32")[None], np.ones((1, 4), "float32")
    expected = model.run(dict(zip(names, (left, right), strict=True)))
    ways: list[tuple[Any, ...]] = [(left, right), ([left, right],), ((left, right),), (left.tolist(), right.tolist())]
    for inputs in ways:
        for name, array in model.run(*inputs).items():
            np.testing.assert_array_equal(array, expected[name])
    for wrong in ((), (left,), (left, right, left), ([left],)):
        with pytest.raises(UsageError, match=r"another number of inputs.*expected 2: left, right"):
            model.run(*wrong)


def test_a_list_is_the_only_input_or_holds_it(compiled: pconvgen.CompiledModel) -> None:
    image = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    expected = compiled.run(image)["output"]
    for inputs in (image.tolist(), [image], (torch.from_numpy(image),), {"image": image}):
        np.testing.assert_array_equal(compiled.run(inputs)["output"], expected)


def test_a_library_is_loaded_again(compiled: pconvgen.CompiledModel, tmp_path: Path) -> None:
    image = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    path = compiled.export(tmp_path / "small.so")
    loaded = pconvgen.load(path)
    assert isinstance(loaded, pconvgen.CompiledModel)
    np.testing.assert_array_equal(loaded.run(image)["output"], compiled.run(image)["output"])
    assert loaded.decisions == compiled.decisions
    assert loaded.explain() == compiled.explain()
    assert loaded.export(tmp_path / "copy.so").read_bytes() == path.read_bytes()
    assert loaded.bench(image).median_ms > 0
    assert loaded.run(image, threads=1)["output"].shape == (1, 10)


def test_a_library_of_another_machine_is_emulated(tmp_path: Path) -> None:
    path = pconvgen.compile(small(), "cortex-a53", example=(torch.zeros(SHAPE),)).export(tmp_path / "arm.so")
    loaded = pconvgen.load(path)
    assert loaded.target.name == "cortex-a53"
    if reason := get_device("emulated").available():
        pytest.skip(reason)
    assert loaded.run(np.zeros(SHAPE, np.float32))["output"].shape == (1, 10)


def test_what_is_no_library_is_told(compiled: pconvgen.CompiledModel, tmp_path: Path) -> None:
    path = compiled.export(tmp_path / "small.so")
    data = path.read_bytes()
    (tmp_path / "other.so").write_bytes(b"\x7fELF" + bytes(100))
    (tmp_path / "cut.so").write_bytes(data[: data.rindex(b"}") + 1])
    with pytest.raises(PconvgenError, match=r"other\.so: no pconvgen manifest"):
        pconvgen.load(tmp_path / "other.so")
    with pytest.raises(PconvgenError, match=r"gone\.so: cannot be read"):
        pconvgen.load(tmp_path / "gone.so")
    with pytest.raises(PconvgenError, match=r"cut\.so: this library is cut short \(found \d+ bytes, expected \d+"):
        pconvgen.load(tmp_path / "cut.so")
