r"""Gradient descent on the confidence of a class (MI-Face): the attack that all others start from.

Paper: "Model Inversion Attacks that Exploit Confidence Information and Basic Countermeasures", Matt Fredrikson, Somesh Jha,
Thomas Ristenpart, ACM CCS 2015. https://doi.org/10.1145/2810103.2813677

Idea. A classifier that returns how sure it is tells which way to change an image so that it becomes surer. Starting from
nothing, follow the gradient of the confidence in one person's name; the image that ends up with full confidence looks like the
person, because for a simple model the direction of "more like this class" is the average difference of that person from all
others. The paper's countermeasure follows: rounded confidences have no gradient.

Mathematics. With $f_y(x)$ the confidence that $x$ shows person $y$, Algorithm 1 descends the cost

$$c(x) = 1 - f_y(x) + a(x), \qquad x \leftarrow \mathrm{Process}\big(x - \lambda\,\nabla c(x)\big),$$

with $a = 0$ here, until the cost is small or has stopped falling.

Deviations
1. Gradients come from white-box access. The paper also estimates them from confidences by finite differences.
2. The auxiliary term of the cost is 0, as in the paper's experiments on faces, and the denoising `Process` between steps, which
   belongs to its auto-encoder model, is the projection to [0, 1].
3. All classes are inverted in one batch; each stops for itself.
4. The softmax regression is trained with strong weight decay, which makes its weights smooth enough to be seen at 32 pixels in
   colour; the paper's pictures are grey and aligned.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, WhiteBox
from .setting import ClassifierSetting


@dataclass(frozen=True, kw_only=True)
class ConfidenceConfig(Config):
    """Algorithm 1 of the paper with its letters."""

    start: str = "zero"  # zero (mid-grey: the zero of inputs scaled to [-1, 1]; paper: the zero vector) or noise (uniform)
    steps: int = 1000  # alpha, largest number of descent steps; paper: 5000
    patience: int = 100  # beta, steps without a lower cost before a class stops; paper: 100
    enough: float = 0.99  # gamma, confidence at which a class stops; paper: 0.99
    lr: float = 0.1  # lambda, step of gradient descent; paper: 0.1
    decimals: int = -1  # the target rounds confidences to this many decimals (countermeasure, Sec. 6); -1 means it does not

    def __post_init__(self):
        require(self.start in ("zero", "noise"), f"start must be zero or noise, not {self.start!r}")
        require(0 < self.enough <= 1, f"enough must lie in (0, 1], not {self.enough}")
        require(min(self.steps, self.patience) >= 1, "steps and patience must be at least 1")


def confidence(logits: Tensor, labels: Tensor, decimals: int = -1) -> Tensor:
    """The target's confidence (B,) in each label, rounded if it rounds; rounding has zero gradient almost everywhere."""
    chosen = logits.softmax(dim=1).gather(1, labels[:, None]).squeeze(1)
    return chosen if decimals < 0 else chosen.round(decimals=decimals)


def cost(logits: Tensor, labels: Tensor, decimals: int = -1) -> Tensor:
    """c(x) = 1 - f_label(x), (B,) (Algorithm 1, line 2)."""
    return 1 - confidence(logits, labels, decimals)


def attack(oracle: WhiteBox, knowledge: Knowledge, config: ConfidenceConfig) -> Reconstruction:
    """One picture a class, (classes, 1, c, s, s): the point of lowest cost on the way."""
    labels = torch.arange(knowledge.num_classes, device=oracle.device)
    shape = (len(labels), *knowledge.image_shape)
    x = torch.full(shape, 0.5, device=oracle.device)
    if config.start == "noise":
        x = torch.rand(shape, generator=config.generator(oracle.device), device=oracle.device)
    best, best_cost = x.clone(), torch.full((len(labels),), torch.inf, device=oracle.device)
    waited = torch.zeros_like(best_cost)
    history: dict[str, list[float]] = {"cost": []}
    for _ in range(config.steps):
        x.requires_grad_(True)
        value = cost(oracle(x), labels, config.decimals)  # (C,)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        value, x = value.detach(), x.detach()
        better = value < best_cost
        best = torch.where(better[:, None, None, None], x, best)
        best_cost = torch.where(better, value, best_cost)
        waited = torch.where(better, 0.0, waited + 1)
        running = (best_cost > 1 - config.enough) & (waited < config.patience)
        history["cost"].append(best_cost.mean().item())
        if not running.any():
            break
        step = config.lr * gradient * running[:, None, None, None]
        x = (x - step).clamp(0, 1)
    return Reconstruction(best[:, None], history, notes={"steps": float(len(history["cost"]))})


EXPERIMENT = Experiment(
    paper="fredrikson2015_confidence",
    setting=ClassifierSetting,
    config=ConfidenceConfig(),
    attack=attack,
    knowledge=("num-classes", "image-shape"),
    options={"architecture": "softmax", "weight_decay": 8.0, "epochs": 30},
    baselines=("public_mean", "nearest_public"),
    ablations={"rounded": Run(says="confidences rounded to one decimal: no gradient to follow", config={"decimals": 1})},
    variants={
        "deep_target": Run(
            says="the same attack on a convolutional network",
            options={"architecture": "cnn", "weight_decay": 5e-4, "epochs": 12},
            config={"steps": 200},
        )
    },
    claims={
        "confidence-reveals-class": Claim(
            check=lambda method, runs: method["accuracy_top1"] >= runs["public_mean"]["accuracy_top1"] + 0.2,
            ablation="rounded",
        ),
    },
    smoke={"steps": 3},
    paper_scale={"steps": 5000},
)
