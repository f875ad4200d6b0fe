"""A scenario of this setting: several networks that were trained on the same people are exposed together.

The target's model is the whole ensemble. To callers who know nothing of it, it is one network whose logits are the mean of its
members' log-probabilities; its `members` can be listened to. Members differ in architecture and seed; the first is the standard
target.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..experiment import require
from .networks import ARCHITECTURES
from .setting import ClassifierConfig, ClassifierSetting
from .victims import target_network


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig(ClassifierConfig):
    """The standard scenario with further targets."""

    further: tuple[str, ...] = ("resnet", "mlp")  # architectures of the members besides the standard target

    def __post_init__(self):
        super().__post_init__()
        require(len(self.further) >= 1, "further must name at least one more network")
        require(set(self.further) <= set(ARCHITECTURES), f"further: each one of {', '.join(ARCHITECTURES)}")


class Ensemble(nn.Module):
    """Networks with the same classes: pictures (B, c, s, s) to the mean of their log-probabilities (B, C)."""

    def __init__(self, members: list[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x).log_softmax(dim=1) for member in self.members]).mean(dim=0)


class EnsembleSetting(ClassifierSetting):
    """The standard scenario around an ensemble."""

    config_type = EnsembleConfig

    def train_target(self) -> nn.Module:
        c, data = self.config, self._all
        further = [
            target_network(
                data["images"], data["labels"], self.classes, architecture, c.epochs, c.label_smoothing, c.weight_decay, seed
            )
            for seed, architecture in enumerate(c.further, start=c.seed + 101)
        ]
        return Ensemble([super().train_target(), *further]).eval()
