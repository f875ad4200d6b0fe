"""Networks distilled from a target on public pictures. Kept apart from the attack so that their cache survives edits there."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from .victims import trained

MODULE = "implementations.classifier.students"


class StudentCNN(nn.Module):
    """3x3 convolutions with max-pooling, leaky ReLU and a 64-wide feature layer: logits (B, C). Unlike target and evaluator."""

    def __init__(self, channels: int, size: int, classes: int, width: int):
        super().__init__()
        stages: list[nn.Module] = []
        last = channels
        for out in (width, 2 * width, 4 * width):
            stages += [nn.Conv2d(last, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.LeakyReLU(0.1), nn.MaxPool2d(2)]
            last = out
        features = nn.Linear(last * (size // 8) ** 2, 64, bias=False)
        self.stages = nn.Sequential(*stages, nn.Flatten(), features, nn.BatchNorm1d(64), nn.LeakyReLU(0.1))
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(x * 2 - 1))


def distillation_loss(logits: Tensor, taught: Tensor) -> Tensor:
    """KL(taught || student), mean over the batch, for logits (B, C) and the target's probabilities (B, C); temperature 1."""
    return F.kl_div(logits.log_softmax(dim=1), taught, reduction="batchmean")


def distilled(images: Tensor, taught: Tensor, widths: Sequence[int], epochs: int, seed: int) -> list[nn.Module]:
    """One student a width, trained on pictures (N, c, S, S) and the target's probabilities for them (N, C); frozen."""
    return [one_student(images, taught, width, epochs, seed + i).requires_grad_(False) for i, width in enumerate(widths)]


def one_student(images: Tensor, taught: Tensor, width: int, epochs: int, seed: int) -> nn.Module:
    return trained(
        f"student {width}",
        lambda: StudentCNN(images.shape[1], images.shape[-1], taught.shape[1], width),
        images,
        taught,
        epochs,
        seed,
        module=MODULE,
        lr=5e-3,
        loss=lambda network, x, y: distillation_loss(network(x), y),
    )
