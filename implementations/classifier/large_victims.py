"""Targets and evaluators of the paper preset: large networks, trained with mixed precision on one GPU or several."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..common.large_training import Plan, cached_large_module, place, train_large
from ..common.training import seeded_weights
from .large_networks import build_large

MODULE = "implementations.classifier.large_victims"


def large_network(
    images: Tensor,
    labels: Tensor,
    classes: int,
    architecture: str,
    epochs: int,
    label_smoothing: float,
    weight_decay: float,
    seed: int,
    options: Mapping[str, Any],
) -> nn.Module:
    """A trained network for pictures (N, C, S, S) in [0, 1] and labels (N,); `options` are further fields of `Plan`."""
    world = place()[1]
    recipe = {"optimizer": "adamw", "lr": 3e-4} if architecture == "vit_b_16" else {}  # transformers do poorly with plain SGD
    plan = Plan(
        epochs=epochs,
        label_smoothing=label_smoothing,
        weight_decay=weight_decay,
        mirror=images.shape[1] == 3,  # digits must not be mirrored
        batch=min(64, len(images)) // world * world,  # to be shared evenly
        **recipe,
        **options,
    )

    def make() -> nn.Module:
        with seeded_weights(seed):
            return build_large(architecture, images.shape[1], images.shape[-1], classes)

    def train(network: nn.Module) -> None:
        train_large(network, images, labels, plan, seed, architecture)

    return cached_large_module(
        architecture.replace("_", "-"), MODULE, [images, labels, classes, plan, seed], make, train, images.device
    )
