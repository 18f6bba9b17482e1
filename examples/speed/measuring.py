"""What the benchmarks share: the machine's record, a plain script's photos, a result's file."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from joblib import cpu_count
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms import v2

from alexkit.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

PREPROCESS = Preprocess()


def machine(device: str = "cpu") -> dict[str, Any]:
    """What figures were made on; ``device`` as ``--device`` takes it."""
    gpu = torch.cuda.is_available() and device != "cpu"
    return {
        "device": torch.cuda.get_device_name() if gpu else platform.processor() or "cpu",
        "cores": cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def usual(*places: v2.Transform) -> v2.Compose:
    """As one writes it by hand: ``places``, or torchvision's preset, choose the square."""
    return v2.Compose(
        [
            *(places or (v2.Resize(PREPROCESS.resize), v2.CenterCrop(PREPROCESS.crop))),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


class Photos(Dataset[torch.Tensor]):
    """Photos through torchvision's classification preset."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self.paths = paths
        self.transform = usual()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        with open(self.paths[i], "rb") as file:
            image: torch.Tensor = self.transform(Image.open(file).convert("RGB"))
        return image


def keep(result: dict[str, Any], path: Path | None) -> None:
    """Writes a result as JSON, where a file was named."""
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + "\n")
