"""Setting `split` with portraits: a camera runs the first layers of a network that tells 50 people apart, a server the rest.

In place of crops the quick preset has rendered faces, which nobody owns; the public ones show other people. Public and private
pictures are alike then, as they are in the papers that learn to invert, while crops come from a handful of photographs.

Distances of pixels favour a blur where a method cannot know the place of a detail. Two more metrics look at that: how sharp a
reconstruction is, and how far from the private input for a network that no attack sees.
"""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common import faces
from ..common.cache import cached
from ..experiment import Metric, Reconstruction
from .networks import cut_after, trained_layers
from .setting import SplitConfig, SplitSetting

PEOPLE = 50  # that the network tells apart
PUBLIC_PEOPLE = 500  # other people, whom the adversary has pictures of
TEST_IMAGES = 500
EVALUATOR_CUT = {"cnn": "relu22", "lenet": "relu2"}  # the last layer whose activations are compared
EVALUATOR_SEED = 1_000_003  # added to the setting's seed


def fine_detail(images: Tensor) -> Tensor:
    """Root mean square of what a 3x3 mean takes away from pictures (B, C, S, S), (B,)."""
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return (images - blurred).square().flatten(1).mean(dim=1).sqrt()


class PortraitSetting(SplitSetting):
    """The same scenario with faces, judged by appearance as well."""

    metrics = SplitSetting.metrics | {
        "sharpness": Metric("fine detail relative to the private input's, mean; 1: as sharp, less: blurred, more: noisy"),
        "perceptual_error": Metric(
            "distance of an unseen network's activations from those of the private input, relative to their norm, mean",
            "",
            False,
        ),
    }

    def __init__(self, config: SplitConfig | None = None, device: torch.device | str = "cpu"):
        super().__init__(config, device)
        if (self.config.preset, self.config.data) == ("quick", "crops"):
            self.classes = PEOPLE

    def _crops(self) -> tuple[dict[str, Tensor], Tensor]:
        """Portraits in place of crops: pictures of PEOPLE in any order, and of PUBLIC_PEOPLE."""
        c = self.config
        count = c.images + TEST_IMAGES + c.victims

        def render() -> dict[str, Tensor]:
            g = c.generator(self.device)
            people = faces.sample_identities(PEOPLE, g, self.device)
            labels = torch.randint(0, PEOPLE, (count,), generator=g, device=self.device)
            images = faces.render(people[labels], faces.sample_nuisances(count, g, self.device))
            others = faces.sample_identities(PUBLIC_PEOPLE, g, self.device)
            which = torch.randint(0, PUBLIC_PEOPLE, (c.public_images,), generator=g, device=self.device)
            public = faces.render(others[which], faces.sample_nuisances(c.public_images, g, self.device))
            return {"images": images, "labels": labels, "public": public}

        key = [c.seed, count, c.public_images, PEOPLE, PUBLIC_PEOPLE]
        data = cached("portraits", "implementations.split.portraits", key, render, self.device)
        return self._parts(data["images"], data["labels"], c.images, TEST_IMAGES), data["public"]

    @functools.cached_property
    def evaluator(self) -> nn.Module:
        """First layers of a network of the target's architecture, trained from another seed."""
        c, data = self.config, self._data
        quick = c.preset == "quick"
        width, epochs = c.width or (16 if quick else 64), c.epochs or (10 if quick else 50)
        seed = c.seed + EVALUATOR_SEED
        layers = trained_layers(c.architecture, data["images"], data["labels"], self.classes, width, epochs, seed)
        return cut_after(layers, EVALUATOR_CUT[c.architecture]).client.eval()

    @torch.no_grad()
    def evaluate(self, reconstruction: Reconstruction) -> dict[str, float]:
        found = super().evaluate(reconstruction)
        rebuilt, private = reconstruction.data.clamp(0, 1), self.private["inputs"]
        seen, true = self.evaluator(rebuilt).flatten(1), self.evaluator(private).flatten(1)
        return found | {
            "sharpness": (fine_detail(rebuilt) / fine_detail(private)).mean().item(),
            "perceptual_error": ((seen - true).norm(dim=1) / true.norm(dim=1)).mean().item(),
        }
