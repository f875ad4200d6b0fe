"""Pictures from a user's folder, for the paper presets."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def missing_data(folder: Path | str, tree: str, found: str) -> FileNotFoundError:
    """The error for a folder that is not as expected: where, what was found, and the tree to put there."""
    return FileNotFoundError(f"{folder}: {found}. Expected:\n{tree}")


def read_picture(path: Path, size: int, channels: int = 3) -> Tensor:
    """One picture (channels, size, size) in [0, 1]: the largest central square, scaled."""
    with Image.open(path) as opened:
        pixels = pil_to_tensor(opened.convert("RGB" if channels == 3 else "L"))
    square = center_crop(pixels, [min(pixels.shape[1:])] * 2)
    return resize(square, [size, size], antialias=True).float() / 255


def read_pictures(folder: Path, size: int, device: torch.device | str, limit: int | None = None) -> Tensor:
    """All pictures below a folder in the order of their paths, (N, 3, size, size) in [0, 1]."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)[:limit]
    if not paths:
        raise missing_data(folder, "pictures (" + ", ".join(sorted(ENDINGS)) + ")", "no picture in it")
    return torch.stack([read_picture(path, size) for path in paths]).to(device)
