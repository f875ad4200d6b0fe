"""A scenario of this setting: pictures of the private people are seen with a hole, and the hole is to be filled.

`blurred_image` is (N, channels + 1, size, size): `masked` training pictures of every class in random order, black within the
hole, and a last channel that is 1 there. A reconstruction's `data` is (N, channels, size, size) in that order: whole pictures.
Who they show (`labels`) is granted to those attacks only that declare it.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..common.metrics import psnr
from ..common.plots import gallery
from ..experiment import Metric, Reconstruction, require
from ..threat_model import Knowledge
from .setting import ClassifierConfig, ClassifierSetting


@dataclass(frozen=True, kw_only=True)
class MaskedConfig(ClassifierConfig):
    """The standard scenario and what is hidden."""

    masked: int = 2  # training pictures of each class that are seen with a hole
    hole: float = 0.5  # side of the square hole in the middle, as a share of the picture's

    def __post_init__(self):
        super().__post_init__()
        require(1 <= self.masked <= self.images, f"masked must lie in 1 to {self.images}, not {self.masked}")
        require(0 < self.hole <= 1, f"hole must lie in (0, 1], not {self.hole}")


class MaskedSetting(ClassifierSetting):
    """The standard target; pictures with holes; metrics of the filled pictures, and how near they come to the true ones."""

    config_type = MaskedConfig
    metrics = {
        **ClassifierSetting.metrics,
        "psnr": Metric("mean peak signal-to-noise ratio of the filled picture to the very picture that was masked", "dB"),
    }

    @functools.cached_property
    def observed(self) -> tuple[Tensor, Tensor]:
        """Places among the training pictures of those that are seen with a hole, and whom they show, both (N,)."""
        labels = self._all["labels"]
        places = torch.cat([(labels == c).nonzero().flatten()[: self.config.masked] for c in range(self.classes)])
        order = torch.randperm(len(places), generator=self.config.generator(self.device, purpose=2), device=self.device)
        return places[order], labels[places[order]]

    @functools.cached_property
    def mask(self) -> Tensor:
        """1 in the hole, 0 elsewhere, (1, size, size)."""
        size = self.shape[-1]
        edge = round(size * (1 - self.config.hole) / 2)
        mask = torch.zeros(1, size, size, device=self.device)
        mask[:, edge : size - edge, edge : size - edge] = 1
        return mask

    def true_pictures(self) -> Tensor:
        """The pictures before they were masked, (N, c, s, s)."""
        return self._all["images"][self.observed[0]]

    def knowledge(self) -> Knowledge:
        true = self.true_pictures()
        seen = torch.cat([true * (1 - self.mask), self.mask.expand(len(true), -1, -1, -1)], dim=1)
        return Knowledge(
            public_images=self.public,
            num_classes=self.classes,
            image_shape=self.shape,
            blurred_image=seen,
            labels=self.observed[1],
        )

    def baselines(self) -> dict[str, Callable[[torch.Generator], Reconstruction]]:
        true, mask = self.true_pictures() * (1 - self.mask), self.mask

        def public_mean(_: torch.Generator) -> Reconstruction:
            """the hole filled with the mean of all public pictures"""
            return Reconstruction(true + mask * self.public.mean(dim=0))

        def nearest_public(_: torch.Generator) -> Reconstruction:
            """the hole filled from the public picture that is nearest outside the hole"""
            distances = torch.cdist(true.flatten(1), (self.public * (1 - mask)).flatten(1))
            return Reconstruction(true + mask * self.public[distances.argmin(dim=1)])

        return {"public_mean": public_mean, "nearest_public": nearest_public}

    def by_class(self, pictures: Tensor) -> Tensor:
        """Pictures (N, ...) in the order of observation to (classes, masked, ...)."""
        return pictures[self.observed[1].argsort(stable=True)].view(self.classes, -1, *pictures.shape[1:])

    def evaluate(self, reconstruction: Reconstruction) -> dict[str, float]:
        data, true = reconstruction.data, self.true_pictures()
        if data.shape != true.shape:
            raise ValueError(f"expected pictures {tuple(true.shape)}, not {tuple(data.shape)}")
        measured = super().evaluate(Reconstruction(self.by_class(data)))
        return {**measured, "psnr": psnr(data, true).mean().item()}

    def figure(self, reconstructions: Mapping[str, Reconstruction]) -> Figure:
        """Pictures before they were masked, what is seen of them, and what each method makes of it."""
        true = self.true_pictures()
        rows = {"private": true, "seen": true * (1 - self.mask)}
        rows |= {name.replace("_", " "): found.data for name, found in reconstructions.items() if len(found.data) == len(true)}
        return gallery(rows)
