"""A network of the adversary's own that describes pictures by features, learnt from public pictures without labels.

Instance discrimination (Chen et al., 2020): two random views of one picture should have features more alike than those of other
pictures. Kept apart from the attacks that use it so that its cache survives edits there.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.cache import cached_module
from ..common.progress import progress
from ..common.training import jitter, seeded_weights

MODULE = "implementations.classifier.embedder"


class Embedder(nn.Module):
    """Pictures (B, channels, size, size) in [0, 1] to features (B, F) of length 1. Unlike targets and evaluators."""

    def __init__(self, channels: int, size: int, features: int, width: int = 12):
        super().__init__()
        stages: list[nn.Module] = []
        last = channels
        for out in (width, 2 * width, 4 * width):
            stages += [nn.Conv2d(last, out, 4, 2, 1, bias=False), nn.BatchNorm2d(out), nn.LeakyReLU(0.1)]
            last = out
        self.stages = nn.Sequential(*stages, nn.Flatten(), nn.Linear(last * (size // 8) ** 2, features))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.stages(x * 2 - 1), dim=1)


def instance_loss(one: Tensor, two: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding each picture's other view among all other views; features (B, F) of length 1, one number."""
    both = torch.cat([one, two])  # (2 B, F)
    alike = (both @ both.T / temperature).fill_diagonal_(-torch.inf)
    return F.cross_entropy(alike, torch.arange(len(both), device=both.device).roll(len(one)))


def view(images: Tensor, random: torch.Generator) -> Tensor:
    """Shifted by up to three pixels, mirrored or not, lit otherwise: what does not change who it is."""
    flipped, bright, contrast = torch.rand(3, len(images), 1, 1, 1, generator=random, device=images.device)
    shown = jitter(images, random, 3)
    shown = torch.where(flipped < 0.5, shown.flip(3), shown)
    mean = shown.mean(dim=(1, 2, 3), keepdim=True)
    return (mean * (0.8 + 0.4 * bright) + (shown - mean) * (0.8 + 0.4 * contrast)).clamp(0, 1)


def own_embedder(
    images: Tensor, features: int, steps: int, seed: int, batch: int = 128, lr: float = 3e-3, temperature: float = 0.2
) -> Embedder:
    """Trained on public pictures (N, c, S, S) and frozen."""

    def make() -> Embedder:
        with seeded_weights(seed):
            return Embedder(images.shape[1], images.shape[-1], features)

    def train(network: nn.Module) -> None:
        random = torch.Generator(images.device).manual_seed(seed)
        optimizer = torch.optim.Adam(network.parameters(), lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        network.train()
        for _ in progress(range(steps), "training an embedding network on public pictures"):
            chosen = images[torch.randint(len(images), (batch,), generator=random, device=images.device)]
            loss = instance_loss(network(view(chosen, random)), network(view(chosen, random)), temperature)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    key = [images, features, steps, seed, batch, lr, temperature]
    return cached_module("embedder", MODULE, key, make, train, images.device).requires_grad_(False)
