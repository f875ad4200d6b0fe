"""Setting `classifier`, an explained answer: a service returns scores and a map of what counted, and somebody sees both.

One private picture of each person, which the target was not trained on, is sent to the target; the adversary holds the answer,
scores and explanation, and may send pictures of its own. Besides the setting's metrics, reconstructions are compared with the
very picture that was sent.

A reconstruction's `data` is (classes, 1, channels, size, size) in [0, 1]: the picture behind each observed answer.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..common.metrics import ssim
from ..common.training import in_batches
from ..experiment import Metric, Reconstruction, require
from ..threat_model import Explanations, Target
from .explainers import EXPLAINERS
from .setting import ClassifierConfig, ClassifierSetting


@dataclass(frozen=True, kw_only=True)
class ExplanationConfig(ClassifierConfig):
    """Data, target and the kind of explanation."""

    explanation: str = "gradient"  # gradient, gradient_times_input or grad_cam

    def __post_init__(self):
        super().__post_init__()
        known = ", ".join(EXPLAINERS)
        require(self.explanation in EXPLAINERS, f"explanation must be one of {known}, not {self.explanation!r}")
        require(self.architecture == "cnn", f"explanations are made for architecture cnn, not {self.architecture!r}")


class ObservedExplanations(Explanations):
    """The oracle together with the answers that were overheard: `observed` is scores (V, C) and explanations (V, 1, s, s)."""

    def __init__(self, ask, observed: tuple[Tensor, Tensor], device: torch.device | str, budget: int | None = None):
        super().__init__(ask, device, budget)
        self.observed = tuple(part.detach().to(device).clone() for part in observed)


class ExplanationSetting(ClassifierSetting):
    """Answers with explanations, one of a private picture of each person."""

    config_type = ExplanationConfig
    headline = "identified"
    metrics = {
        "identified": Metric("share of reconstructions that are nearest to the true picture among all observed, in pixels"),
        "mse": Metric("mean squared error a pixel between reconstruction and the picture that was sent", "", False),
        "ssim": Metric("mean structural similarity of reconstruction and the picture that was sent"),
        **ClassifierSetting.metrics,
    }

    def __init__(self, config: ExplanationConfig | None = None, device: torch.device | str = "cpu"):
        super().__init__(config, device)
        labels = self.private["test_labels"]
        first = [int((labels == c).nonzero()[0].item()) for c in range(self.classes)]
        self.private["observed_images"] = self.private["test_images"][first]

    @cached_property
    def target(self) -> Target:
        network, explain = self.train_target(), EXPLAINERS[self.config.explanation]

        def ask(x: Tensor) -> tuple[Tensor, Tensor]:
            return in_batches(network, x).softmax(dim=1), torch.cat([explain(network, part) for part in x.split(500)])

        observed = ask(self._all["observed_images"])
        return Target(
            network,
            {"explanations": lambda **options: ObservedExplanations(ask, observed, self.device, **options)},
        )

    @torch.no_grad()
    def evaluate(self, reconstruction: Reconstruction) -> dict[str, float]:
        measured = super().evaluate(reconstruction)
        true, images = self.private["observed_images"], reconstruction.data[:, 0].clamp(0, 1)
        nearest = torch.cdist(images.flatten(1), true.flatten(1)).argmin(dim=1)
        own = {
            "identified": (nearest == torch.arange(self.classes, device=self.device)).float().mean().item(),
            "mse": (images - true).square().mean().item(),
            "ssim": ssim(images, true).mean().item(),
        }
        return own | measured

    def baselines(self):
        named = super().baselines()
        return {"public_mean": named["public_mean"], "nearest_public": self.nearest_scores}

    def nearest_scores(self, _: torch.Generator) -> Reconstruction:
        """for each observed answer, the public picture whose scores are nearest"""
        oracle = self.target.grant("explanations")
        distances = torch.cdist(oracle.observed[0].log(), oracle(self.public)[0].log())
        return Reconstruction(self.public[distances.argmin(dim=1)][:, None])

    def figure(self, reconstructions):
        """The pictures that were sent, their explanations, and what each method makes of the answers."""
        from ..common.plots import gallery

        rows = {"private": self.private["observed_images"], "explanation": self.target.grant("explanations").observed[1].abs()}
        return gallery(rows | {name.replace("_", " "): found.data[:, 0] for name, found in reconstructions.items()})
