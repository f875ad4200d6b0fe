"""A scenario of this setting: a student learns from the target with the reconstructions as its only pictures of private people.

Papers on learning without the original data judge inverted pictures by what they teach. Here the owner of the private pictures
measures it: `student_accuracy` is a student's accuracy on new pictures of the private people. The student is a small
convolutional network that starts from nothing, or the head of a vision transformer that has learnt on the public people; the
latter sees only those patches of a reconstruction that are not black.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.training import accuracy, in_batches, seeded_weights, train_classifier
from ..experiment import Metric, Reconstruction, require
from .networks import SmallViT
from .patches import visible_patches, watched_patches
from .setting import ClassifierConfig, ClassifierSetting
from .students import StudentCNN
from .victims import trained


@dataclass(frozen=True, kw_only=True)
class DataFreeConfig(ClassifierConfig):
    """The standard scenario and how its students are taught."""

    student: str = "cnn"  # cnn: a network from nothing; vit: the head of a transformer that knows the public people
    student_width: int = 12  # channels of the first layer of a cnn, a quarter of the width of a vit
    student_steps: int = 300  # updates of the student, whatever the number of reconstructions
    student_temperature: float = 4.0  # softens target's and student's scores alike
    student_depth: int = 2  # blocks of a vit
    student_epochs: int = 8  # of a vit's earlier training on public people

    def __post_init__(self):
        super().__post_init__()
        require(self.student in ("cnn", "vit"), f"student must be cnn or vit, not {self.student!r}")
        labelled = self.data == "faces" and self.preset == "quick"
        require(self.student == "cnn" or labelled, "a vit needs public people with labels to learn before: student must be cnn")


def transfer_loss(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """KL(target || student) of scores softened by the temperature, times its square; mean over logits (B, C) and (B, C)."""
    soft = (taught / temperature).softmax(dim=1)
    return temperature**2 * F.kl_div((logits / temperature).log_softmax(dim=1), soft, reduction="batchmean")


def teach(images: Tensor, taught: Tensor, width: int, steps: int, temperature: float, seed: int) -> nn.Module:
    """A convolutional student taught on pictures (N, c, s, s) with a target's logits for them (N, C); frozen, not cached."""
    with seeded_weights(seed):
        student = StudentCNN(images.shape[1], images.shape[-1], taught.shape[1], width).to(images.device)
    train_classifier(
        student,
        images,
        taught,
        torch.Generator(images.device).manual_seed(seed),
        max(1, round(steps / -(-len(images) // 64))),
        "a student without data",
        lr=5e-3,
        loss=lambda network, x, y: transfer_loss(network(x), y, temperature),
    )
    return student.requires_grad_(False)


def teach_head(features: Tensor, taught: Tensor, steps: int, temperature: float) -> nn.Linear:
    """A linear head from nothing, taught on features (N, F) with a target's logits (N, C); all of them in every update."""
    head = nn.Linear(features.shape[1], taught.shape[1], device=features.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        transfer_loss(head(features), taught, temperature).backward()
        optimizer.step()
    return head.requires_grad_(False)


@torch.no_grad()
def seen(model: nn.Module, images: Tensor, part: str) -> Tensor:
    """`features` or `forward` of a network for pictures (N, c, s, s); a transformer leaves black patches out."""
    if not isinstance(model, SmallViT):
        return in_batches(getattr(model, part), images)
    with watched_patches(model) as watch:
        watch.kept = visible_patches(images, model.patch)
        return getattr(model, part)(images)


class DataFreeSetting(ClassifierSetting):
    """The standard scenario, with one more question to a reconstruction: what does a student learn from it?"""

    config_type = DataFreeConfig
    metrics = {
        **ClassifierSetting.metrics,
        "student_accuracy": Metric(
            "accuracy on new pictures of the private people of a student that the target taught on the reconstructions alone"
        ),
    }

    @functools.cached_property
    def pretrained(self) -> SmallViT:
        """A transformer that tells the public people apart."""
        c, people = self.config, len(self.public) // self.config.public_images
        labels = torch.arange(people, device=self.device).repeat_interleave(c.public_images)
        channels, size, _ = self.shape
        sizes = {"width": 4 * c.student_width, "depth": c.student_depth}
        return trained(
            "student vit",
            lambda: SmallViT(channels, size, people, **sizes),
            self.public,
            labels,
            c.student_epochs,
            c.seed + 29,
            [people, sizes],
        )

    def evaluate(self, reconstruction: Reconstruction) -> dict[str, float]:
        measured, c = super().evaluate(reconstruction), self.config
        images, (new, labels) = reconstruction.data.detach().flatten(0, 1).clamp(0, 1), self.new_pictures
        taught = seen(self.target.model, images, "forward")
        if c.student == "cnn":
            student = teach(images, taught, c.student_width, c.student_steps, c.student_temperature, c.seed + 23)
            measured["student_accuracy"] = accuracy(student, new, labels)
        else:
            head = teach_head(seen(self.pretrained, images, "features"), taught, c.student_steps, c.student_temperature)
            measured["student_accuracy"] = accuracy(head, in_batches(self.pretrained.features, new), labels)
        return measured

    @property
    def new_pictures(self) -> tuple[Tensor, Tensor]:
        """Pictures of the private people that no network here was trained on, and who they show."""
        return self._all["test_images"], self._all["test_labels"]
