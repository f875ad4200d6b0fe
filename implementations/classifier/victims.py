"""How this setting's networks are trained: targets, both evaluators, the reader of identity parameters.

Kept apart from the setting so that their cache survives edits there.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.cache import cached_module
from ..common.training import seeded_weights, train_classifier
from .networks import LARGE, EvaluatorCNN, IdentityReader, build

MODULE = "implementations.classifier.victims"


def trained(
    name: str,
    make: Callable[[], nn.Module],
    images: Tensor,
    taught: Tensor,
    epochs: int,
    seed: int,
    key: Any = (),
    module: str = MODULE,
    **options: Any,
) -> nn.Module:
    """`make()` trained on pictures (N, C, S, S) in [0, 1] and what they are taught (N, ...): seeded, cached, evaluation mode.

    `key` is what `make` and `options` (of `train_classifier`) depend on, besides the module's code.
    """

    def seeded() -> nn.Module:
        with seeded_weights(seed):
            return make()

    def train(network: nn.Module) -> None:
        train_classifier(network, images, taught, torch.Generator(images.device).manual_seed(seed), epochs, name, **options)

    return cached_module(name.replace(" ", "-"), module, [images, taught, epochs, seed, key], seeded, train, images.device)


def target_network(
    images: Tensor,
    labels: Tensor,
    classes: int,
    architecture: str,
    epochs: int,
    label_smoothing: float,
    weight_decay: float,
    seed: int,
    plan: Mapping[str, Any] = MappingProxyType({}),
) -> nn.Module:
    """A trained target for pictures (N, C, S, S) in [0, 1] and labels (N,); `plan` counts for large networks only."""
    if architecture in LARGE:
        from .large_victims import large_network

        return large_network(images, labels, classes, architecture, epochs, label_smoothing, weight_decay, seed, plan)
    return trained(
        f"target {architecture}",
        lambda: build(architecture, images.shape[1], images.shape[-1], classes),
        images,
        labels,
        epochs,
        seed,
        [classes, label_smoothing, weight_decay],
        label_smoothing=label_smoothing,
        weight_decay=weight_decay,
    )


def evaluator_network(
    images: Tensor, labels: Tensor, classes: int, epochs: int, seed: int, kind: type[nn.Module] = EvaluatorCNN
) -> nn.Module:
    """A trained evaluator of a kind: other architecture, other pictures, other seed than the target's."""
    name = "evaluator" if kind is EvaluatorCNN else "second evaluator"
    return trained(
        name, lambda: kind(images.shape[1], images.shape[-1], classes), images, labels, epochs, seed, classes, lr=1.5e-3
    )


def identity_reader(images: Tensor, parameters: Tensor, epochs: int, seed: int) -> IdentityReader:
    """Reads identity parameters (N, P) in [0, 1] off pictures (N, C, S, S), by least mean absolute error."""
    return trained(
        "identity reader",
        lambda: IdentityReader(images.shape[1], images.shape[-1], parameters.shape[1]),
        images,
        parameters,
        epochs,
        seed,
        lr=3e-3,
        loss=lambda network, x, y: F.l1_loss(network(x), y),
    )
