"""What notebooks show of an attack besides its own run: the private pictures, which no attack sees, and a defense at work."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..common.plots import gallery
from ..common.training import in_batches
from ..experiment import Experiment, Reconstruction
from ..registry import find
from .setting import ClassifierSetting


@torch.no_grad()
def nearest_private(setting: ClassifierSetting, images: Tensor) -> Tensor:
    """For one picture of each class, (C, c, s, s), the nearest private picture of that class in the first evaluator's features.

    This is the nearness that the metric feature_distance is the mean of.
    """
    private, labels = setting.private["images"], setting.private["labels"]
    features = in_batches(setting.evaluator.features, images.clamp(0, 1))
    distances = torch.cdist(features, in_batches(setting.evaluator.features, private))
    classes = torch.arange(setting.classes, device=images.device)
    distances[classes[:, None] != labels] = torch.inf
    return private[distances.argmin(dim=1)]


def beside_private(setting: ClassifierSetting, reconstruction: Reconstruction) -> Figure:
    """The first reconstruction of each class, the nearest private picture of the class, and the mean of the class."""
    found, private, labels = reconstruction.data[:, 0], setting.private["images"], setting.private["labels"]
    means = torch.stack([private[labels == label].mean(dim=0) for label in range(setting.classes)])
    return gallery({"reconstruction": found, "nearest private picture": nearest_private(setting, found), "private mean": means})


def against_defense(
    experiment: Experiment, setting: ClassifierSetting, defense: str
) -> tuple[ClassifierSetting, Reconstruction]:
    """The scenario with its target defended by another paper's method, and what the attack rebuilds there."""
    found = find(defense)
    defended = setting.with_target(found.defend(setting, found.config))
    return defended, experiment.attack(*experiment.observe(defended), experiment.config)
