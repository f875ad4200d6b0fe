"""Metrics that several settings share, from torchmetrics, batched over victims."""

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure


def psnr(rebuilt: Tensor, private: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of images (B, C, H, W) in [0, 1], one value an image (B,). Equal images give inf."""
    error = (rebuilt.clamp(0, 1) - private).square().flatten(1).mean(dim=1)
    return -10 * error.log10()


def ssim(rebuilt: Tensor, private: Tensor) -> Tensor:
    """Structural similarity of images (B, C, H, W) in [0, 1], one value in [-1, 1] an image (B,)."""
    return structural_similarity_index_measure(rebuilt.clamp(0, 1), private, data_range=1.0, reduction="none")


def pairwise_distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (A, B) between rows of a (A, D) and b (B, D)."""
    return torch.cdist(a.flatten(1), b.flatten(1))
