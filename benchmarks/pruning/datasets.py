"""Images to train on: scikit-learn's digits, which come with it; CIFAR-10 and folders of images for who has them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

Batch = tuple[torch.Tensor, torch.Tensor]
CIFAR = "cifar-10-batches-bin"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True, eq=False)
class Images:
    """Images in memory, float32 NCHW, and their classes.

    Attributes
    ----------
    train, test: each (images, classes).
    classes: how many there are.
    """

    train: Batch
    test: Batch
    classes: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image, CHW."""
        return tuple(self.train[0].shape[1:])

    def steps(self, size: int) -> int:
        """Batches of an epoch."""
        return -(-len(self.train[0]) // size)

    def batches(self, size: int) -> Iterator[Batch]:
        """An epoch, in torch's random order."""
        images, classes = self.train
        for chosen in torch.randperm(len(images)).split(size):
            yield images[chosen], classes[chosen]

    def tests(self, size: int) -> Iterator[Batch]:
        """What accuracy is measured on."""
        yield from zip(self.test[0].split(size), self.test[1].split(size), strict=True)


def digits(seed: int, scale: int = 1) -> Images:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, a half to train on and a half to test, by class.

    A half, because with fewer tests accuracies would be known to half a point only.

    Parameters
    ----------
    seed: of the split.
    scale: how many times larger images become.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    found = load_digits()
    images = torch.tensor(found.images[:, None] / 8 - 1, dtype=torch.float32)
    if scale > 1:
        images = functional.interpolate(images, scale_factor=scale, mode="bilinear")
    parts = train_test_split(
        images, torch.tensor(found.target), test_size=0.5, stratify=found.target, random_state=seed
    )
    return Images((parts[0], parts[2]), (parts[1], parts[3]), 10)


def cifar10(folder: Path) -> Images:
    """CIFAR-10 in its binary version, unpacked in `folder`."""
    root = folder / CIFAR if (folder / CIFAR).is_dir() else folder
    files = [root / f"data_batch_{i}.bin" for i in range(1, 6)] + [root / "test_batch.bin"]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        sys.exit(f"{root} lacks {', '.join(missing)}: unpack the binary version of CIFAR-10 there")
    rows = [np.fromfile(path, np.uint8).reshape(-1, 3073) for path in files]

    def part(found: np.ndarray) -> Batch:
        images = torch.from_numpy(found[:, 1:].reshape(-1, 3, 32, 32)).float() / 64 - 2
        return images, torch.from_numpy(found[:, 0].astype(np.int64))

    return Images(part(np.concatenate(rows[:5])), part(rows[5]), 10)


class Folder(Dataset):
    """A folder with a folder of images for each class, as ImageNet's: resized, and cropped to a square."""

    def __init__(self, folder: Path, size: int) -> None:
        self.names = sorted(path.name for path in folder.iterdir() if path.is_dir())
        self._size = size
        self._files = [
            (path, index)
            for index, name in enumerate(self.names)
            for path in sorted((folder / name).rglob("*"))
            if path.suffix.lower() in SUFFIXES
        ]
        if not self._files:
            sys.exit(f"{folder} has no folders with images ({', '.join(SUFFIXES)})")

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image, ImageOps

        path, label = self._files[index]
        with Image.open(path) as image:
            pixels = np.asarray(ImageOps.fit(image.convert("RGB"), (self._size, self._size)))
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() / 64 - 2, label


@dataclass(frozen=True, eq=False)
class Folders:
    """Images that are read when they are needed, from `train` and `val` of a folder.

    Attributes
    ----------
    train, test: the images.
    """

    train: Folder
    test: Folder

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.train.names)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image, CHW."""
        return tuple(self.train[0][0].shape)

    def steps(self, size: int) -> int:
        """Batches of an epoch."""
        return -(-len(self.train) // size)

    def batches(self, size: int) -> Iterator[Batch]:
        """An epoch, in torch's random order."""
        yield from DataLoader(self.train, size, shuffle=True, num_workers=2)

    def tests(self, size: int) -> Iterator[Batch]:
        """What accuracy is measured on."""
        yield from DataLoader(self.test, size, num_workers=2)


def image_folder(folder: Path, size: int = 64) -> Folders:
    """ImageNet, or whatever lies in folders like it."""
    found = Folders(Folder(folder / "train", size), Folder(folder / "val", size))
    if found.train.names != found.test.names:
        sys.exit(f"{folder}: train and val have different classes")
    return found
