"""The benchmark of pruning: its data, and what it calls a missed promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.pruning.accuracy import CASES, COMPARED, TRAINED
from benchmarks.pruning.accuracy import Outcome as Trained
from benchmarks.pruning.datasets import cifar10, digits, image_folder
from benchmarks.pruning.latency import SHARES
from benchmarks.pruning.latency import Outcome as Timed
from benchmarks.pruning.networks import NETWORKS
from benchmarks.pruning.promises import missed
from benchmarks.pruning.tables import accuracy_table, latency_table


@pytest.fixture
def trained():
    """Figures that keep all promises, with the least margin that is asked for."""
    return [
        Trained(network, seed, structure, density, 99.0, 90.0, 98.5, 10.0, 98.0, 98.5)
        for network in TRAINED
        for seed in (0, 1)
        for structure, density in CASES
    ]


@pytest.fixture
def timed():
    rows = [Timed("dense", 0, 2.0, 2.0, 99.0)]
    for share in SHARES:
        rows += [Timed(way, 0, 2.0 * share, 1.96 * share, 98.0) for way in ("ALCS", "uniform", "filter")]
    return rows


def test_what_is_promised_is_kept(trained, timed):
    assert missed(trained, timed, {"pattern, uniform": 0.9}) == []


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("admm", 98.4, "simd_block 0.25: 0.60 points below dense"),
        ("one_shot", 98.6, "ADMM is not better than one-shot"),
    ],
)
def test_accuracies_that_are_too_low_are_told(trained, timed, field, value, text):
    worse = [replace(row, **{field: value}) for row in trained]
    assert any(text in told for told in missed(worse, timed, {}))


@pytest.mark.parametrize("factor", [0.9, 1.06])
def test_budgets_that_are_missed_are_told(trained, timed, factor):
    timed[1] = Timed("ALCS", 0, 1.0, factor, 98.0)
    assert missed(trained, timed, {}) == [f"seed 0: {factor:.3f} of the budget, 0.95 to 1.05 asked"]


def test_an_allocation_that_is_worse_than_none_is_told(trained, timed):
    timed[1] = Timed("ALCS", 0, 1.0, 0.99, 97.9)
    assert missed(trained, timed, {}) == ["at 0.5 of the time: ALCS 97.90 %, uniform 98.00 %"]


def test_slow_projections_are_told(trained, timed):
    assert missed(trained, timed, {"pattern, uniform": 1.2}) == ["an ADMM step, pattern, uniform: 1.20 s"]


def test_tables_have_a_row_for_everything(trained, timed):
    assert accuracy_table(trained).row_count == len(TRAINED) * len(CASES) + sum(
        density == COMPARED for _, density in CASES
    )
    assert latency_table(timed).row_count == len(timed)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_take_images_of_any_size(name):
    assert NETWORKS[name](3, 7)(torch.zeros(2, 3, 32, 24)).shape == (2, 7)


def test_digits_are_split_by_class_and_by_seed():
    first, other = digits(0), digits(1)
    assert first.shape == (1, 8, 8)
    assert digits(0, 2).shape == (1, 16, 16)
    assert len(first.train[0]) + len(first.test[0]) == 1797
    for images, classes in (first.train, first.test):
        assert len(images) == len(classes)
        assert np.bincount(classes).min() >= 86
    assert not torch.equal(first.train[0], other.train[0])
    assert torch.equal(first.train[0], digits(0).train[0])
    assert sum(len(x) for x, _ in first.batches(64)) == len(first.train[0])


def test_cifar_is_read_from_its_binary_files(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (6, 4, 3073), dtype=np.uint8)
    rows[:, :, 0] %= 10
    for name, part in zip([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], rows, strict=True):
        part.tofile(tmp_path / f"{name}.bin")
    found = cifar10(tmp_path)
    assert found.shape == (3, 32, 32)
    assert (len(found.train[0]), len(found.test[0])) == (20, 4)
    np.testing.assert_array_equal(found.test[1], rows[5, :, 0])
    np.testing.assert_allclose(found.test[0][1, 2, 3, 4], rows[5, 1, 1 + 2 * 1024 + 3 * 32 + 4] / 64 - 2)
    (tmp_path / "test_batch.bin").unlink()
    with pytest.raises(SystemExit, match=r"lacks test_batch.bin"):
        cifar10(tmp_path)


def test_folders_of_images_are_read_when_they_are_needed(tmp_path):
    for part, count in (("train", 3), ("val", 1)):
        for index, name in enumerate(("cat", "dog")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (40, 20), (255 * index, 0, 0)).save(folder / f"{number}.png")
    found = image_folder(tmp_path, size=16)
    assert (found.shape, found.classes, found.steps(4)) == ((3, 16, 16), 2, 2)
    images, classes = next(iter(found.tests(8)))
    assert classes.tolist() == [0, 1]
    assert images[1, 0].unique().tolist() == [255 / 64 - 2]
    (tmp_path / "val" / "dog").rename(tmp_path / "val" / "wolf")
    with pytest.raises(SystemExit, match="different classes"):
        image_folder(tmp_path)
