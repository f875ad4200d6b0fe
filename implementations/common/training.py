"""Plain supervised training of small networks, seeded and with a progress display."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .progress import progress


@contextlib.contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Networks built inside draw their first weights from this seed, on the CPU; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def jitter(x: Tensor, generator: torch.Generator, shift: int = 2) -> Tensor:
    """Each picture of a batch (B, C, H, W) shifted by up to `shift` pixels, edges repeated."""
    padded = F.pad(x, (shift,) * 4, mode="replicate")
    height, width = x.shape[-2:]
    offsets = torch.randint(0, 2 * shift + 1, (2, len(x)), generator=generator, device=x.device)
    rows = offsets[0][:, None] + torch.arange(height, device=x.device)
    columns = offsets[1][:, None] + torch.arange(width, device=x.device)
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def train_classifier(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    epochs: int,
    name: str,
    batch: int = 64,
    lr: float = 2e-3,
    augment: bool = True,
    label_smoothing: float = 0.0,
    weight_decay: float = 5e-4,
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None,
) -> None:
    """Trains in place with AdamW and a one-cycle schedule on images (N, C, H, W) in [0, 1] and labels (N,).

    `loss(network, x, y)` replaces the cross-entropy where a defense has its own.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=weight_decay)
    steps = epochs * -(-len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    network.train()
    for _ in progress(range(epochs), f"training {name}"):
        order = torch.randperm(len(images), generator=generator, device=images.device)
        for chosen in order.split(batch):
            x, y = images[chosen], labels[chosen]
            x = jitter(x, generator) if augment else x
            value = loss(network, x, y) if loss else F.cross_entropy(network(x), y, label_smoothing=label_smoothing)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
    network.eval()


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], x: Tensor, size: int = 500) -> Tensor:
    """`function` over a long batch in pieces of at most `size`, results joined."""
    return torch.cat([function(piece) for piece in x.split(size)])


def accuracy(network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> float:
    """Share of images whose arg-max class is their label."""
    return (in_batches(network, images).argmax(dim=1) == labels).float().mean().item()
