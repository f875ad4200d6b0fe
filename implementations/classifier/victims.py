"""How this setting's targets and evaluators are trained. Kept apart so that their cache survives edits elsewhere."""

import torch
from torch import Tensor, nn

from ..common.cache import cached_module
from ..common.training import seeded_weights, train_classifier
from .networks import EvaluatorCNN, build

MODULE = "implementations.classifier.victims"


def target_network(
    images: Tensor,
    labels: Tensor,
    classes: int,
    architecture: str,
    epochs: int,
    label_smoothing: float,
    weight_decay: float,
    seed: int,
) -> nn.Module:
    """A trained target for pictures (N, C, S, S) in [0, 1] and labels (N,)."""

    def make() -> nn.Module:
        with seeded_weights(seed):
            return build(architecture, images.shape[1], images.shape[-1], classes)

    def train(network: nn.Module) -> None:
        generator = torch.Generator(images.device).manual_seed(seed)
        train_classifier(
            network,
            images,
            labels,
            generator,
            epochs,
            f"the target ({architecture})",
            label_smoothing=label_smoothing,
            weight_decay=weight_decay,
        )

    key = [images, labels, classes, architecture, epochs, label_smoothing, weight_decay, seed]
    return cached_module(f"target-{architecture}", MODULE, key, make, train, images.device)


def evaluator_network(images: Tensor, labels: Tensor, classes: int, epochs: int, seed: int) -> EvaluatorCNN:
    """A trained evaluator: other architecture, other pictures, other seed than the target's."""

    def make() -> nn.Module:
        with seeded_weights(seed):
            return EvaluatorCNN(images.shape[1], images.shape[-1], classes)

    def train(network: nn.Module) -> None:
        generator = torch.Generator(images.device).manual_seed(seed)
        train_classifier(network, images, labels, generator, epochs, "the evaluator", lr=1.5e-3)

    return cached_module("evaluator", MODULE, [images, labels, classes, epochs, seed], make, train, images.device)
