r"""DLG: rebuild a client's picture and label by making dummy data that give the same gradient.

Paper: "Deep Leakage from Gradients", Ligeng Zhu, Zhijian Liu, Song Han, NeurIPS 2019. https://arxiv.org/abs/1906.08935

Idea. In federated learning a client sends the gradient of its loss, not its data. The gradient depends on the data, though,
and the server can compute gradients too. So start from dummy pictures and dummy labels, compute the gradient that they give,
and move both until it equals the one observed. No prior on pictures, no other data, no statistics are needed: where the
gradient determines the data, matching it is enough, and the result is right to the pixel. Labels are searched for together
with the pictures, as logits of a soft label.

Mathematics. For the observed gradient $\nabla W$ of the model's weights, dummy data $x'$ and dummy labels $y'$ solve (Eq. 4)

$$x'^*, y'^* = \arg\min_{x', y'} \left\| \frac{\partial \ell(F(x', W), y')}{\partial W} - \nabla W \right\|^2.$$

Deviations
1. The authors' code takes every full quasi-Newton step; on these crops some searches then end farther from the observed
   gradient than they began. Here a strong-Wolfe line search chooses the step; the run `as_published` shows the other way.
2. A search starts from a picture of one random colour with little noise in place of standard normal noise. Gradients say least
   about the finest detail, so noise at the start stays in the result for hundreds of steps.
3. Each client has two random starts, the authors' code has one. After 40 evaluations only the one with the smaller distance
   goes on.
4. The distance is divided by the squared norm of the observed gradient: the same minimum, and one tolerance for all clients.
5. Weights of LeNet are uniform in [-0.5, 0.5] as in the authors' code, which also sets channels, strides and sigmoids. The
   paper's ResNet-56 and language model are not rebuilt here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..experiment import Claim, Experiment, Reconstruction, Run, require
from ..threat_model import Gradients, Knowledge
from .matching import MatchingConfig, match
from .networks import Update
from .setting import GradientSetting


@dataclass(frozen=True, kw_only=True)
class DLGConfig(MatchingConfig):
    """What is matched and how labels are found; the solver's fields are inherited."""

    labels: str = "joint"  # joint (searched for with the picture, the paper's way) or guessed (random and fixed: ablation)
    compare: str = "entries"  # entries of the gradients (the paper's way) or norms of each parameter's gradient (ablation)

    def __post_init__(self):
        super().__post_init__()
        require(self.labels in ("joint", "guessed"), f"labels must be joint or guessed, not {self.labels!r}")
        require(self.compare in COMPARISONS, f"compare must be one of {', '.join(COMPARISONS)}, not {self.compare!r}")


def gradient_distance(found: Update, observed: Mapping[str, Tensor]) -> Tensor:
    """||grad W' - grad W||^2 for each client, (V,): Eq. (4) and line 4 of Algorithm 1, summed over all parameters."""
    return sum((found[name] - seen).square().flatten(1).sum(dim=1) for name, seen in observed.items())


def norm_distance(found: Update, observed: Mapping[str, Tensor]) -> Tensor:
    """Squared difference of the norms of each parameter's gradient, (V,): how large the gradient is, not where it points."""
    norms = ((found[name].flatten(1).norm(dim=1), seen.flatten(1).norm(dim=1)) for name, seen in observed.items())
    return sum((a - b).square() for a, b in norms)


COMPARISONS = {"entries": gradient_distance, "norms": norm_distance}


def attack(oracle: Gradients, knowledge: Knowledge, config: DLGConfig) -> Reconstruction:
    """Dummy data and dummy labels whose gradient is the observed one, for all clients at once (Algorithm 1)."""
    generator = config.generator(oracle.device)
    batch, classes = knowledge.batch_size, knowledge.num_classes
    shape = (batch, *knowledge.image_shape)
    labels = None
    if config.labels == "guessed":
        clients = len(next(iter(oracle.update.values())))
        labels = torch.randint(classes, (clients, batch), generator=generator, device=oracle.device)
    return match(oracle, COMPARISONS[config.compare], config, shape, generator, labels, classes)


EXPERIMENT = Experiment(
    paper="dlg",
    setting=GradientSetting,
    config=DLGConfig(),
    attack=attack,
    knowledge=("image-shape", "num-classes", "batch-size"),
    ablations={
        "norms_only": Run(says="only the norm of each parameter's gradient is matched", config={"compare": "norms"}),
        "guessed_label": Run(
            says="the label is guessed and stays fixed; only the picture is searched for", config={"labels": "guessed"}
        ),
    },
    variants={
        "as_published": Run(
            says="one start from normal noise, every full step taken, as in the authors' code",
            config={"start": "normal", "starts": 1, "line_search": False},
        ),
        "pruned": Run(
            says="clients set the smallest 30 % of each tensor's entries to zero; half the evaluations",
            options={"prune": 0.3},
            config={"evaluations": 300},
        ),
        "noisy": Run(
            says="clients add Gaussian noise of variance 0.01 to every entry; half the evaluations",
            options={"noise_variance": 1e-2},
            config={"evaluations": 300},
        ),
    },
    claims={
        "pixel-wise-recovery": Claim(
            check=lambda method, runs: (
                method["psnr"] >= 25
                and method["psnr"] >= runs["nearest_public"]["psnr"] + 10
                and method["worse_than_grey"] <= 0.1
            ),
            ablation="norms_only",
        ),
        "label-found-with-picture": Claim(
            check=lambda method, runs: method["label_accuracy"] >= 0.9 and method["psnr"] >= 25,
            ablation="guessed_label",
        ),
    },
    smoke={"evaluations": 6, "race": 3},
    paper_scale={"evaluations": 6000, "tolerance": 0.0},
)
