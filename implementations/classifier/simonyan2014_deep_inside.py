r"""Class model visualisation: the picture with the highest score of a class, kept small. The root of the gradient attacks.

Paper: "Deep Inside Convolutional Networks: Visualising Image Classification Models and Saliency Maps", Karen Simonyan, Andrea
Vedaldi, Andrew Zisserman, ICLR Workshop 2014. https://arxiv.org/abs/1312.6034

Idea. What does a network think a class looks like? Ascend the score of the class with respect to the picture, starting from
nothing, and subtract a multiple of its squared norm so that only what raises the score is drawn. The score is the unnormalised
one, before the softmax: a probability is also raised by lowering the scores of all other classes, and it saturates, while the
score stays with the class. The paper wants to understand networks and has no private data in view; here the picture is judged
as if it were an attack, by a network that never saw the target.

Mathematics. With $S_c(I)$ the score of class $c$ for picture $I$ before the softmax (Eq. 1):

$$\hat I = \arg\max_I\; S_c(I) - \lambda\, \|I\|_2^2.$$

Deviations
1. The zero picture is mid-grey, the zero of inputs scaled to [-1, 1]; a picture I is optimised in those units and given to the
   target as (I + 1) / 2. The paper's zero is the mean of the training pictures, added back for display: private data here.
2. No bounds during the search; the result is clipped to [0, 1] at the end to be a picture.
3. Gradient ascent with momentum, by torch.optim.SGD; the paper says only that the picture is optimised by back-propagation and
   states neither step nor lambda. Of four values of lambda tried here (0.003 to 0.1) the one is kept at which about nine tenths
   of the values end within the range of pictures; it also was the best recognised on this target.
4. The search starts from one point and has no randomness: all seeds give the same result, so that no seed was left untouched by
   that choice.
5. All classes in one batch. Only class models; the paper's saliency maps explain one picture and rebuild nothing.
6. The pictures look like coloured noise with a trace of hair and face. That another network recognises many of them says that
   the patterns carry over, not that a person would know the face.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, WhiteBox
from .setting import ClassifierSetting


@dataclass(frozen=True, kw_only=True)
class DeepInsideConfig(Config):
    """Defaults are for 32-pixel pictures on a CPU; the paper states no values."""

    objective: str = "score"  # score: S_c before the softmax (paper, Eq. 1); probability: P_c after it (the ablation)
    penalty: float = 0.03  # lambda, weight of the squared norm of the picture; paper: not stated
    lr: float = 1.0  # step of gradient ascent; paper: not stated
    momentum: float = 0.9  # of gradient ascent; paper: not stated
    steps: int = 100  # of gradient ascent; paper: not stated
    start: float = 0.0  # standard deviation of noise added to the zero picture, in units of [-1, 1]; paper: 0

    def __post_init__(self):
        require(self.objective in OBJECTIVES, f"objective must be one of {', '.join(OBJECTIVES)}, not {self.objective!r}")
        require(self.penalty >= 0 and self.start >= 0, "penalty and start must be at least 0")
        require(self.lr > 0 and self.steps >= 1, "lr must be positive and steps at least 1")


def class_score(logits: Tensor, labels: Tensor) -> Tensor:
    """S_c(I), the unnormalised score: (B, C) and (B,) to (B,) (Eq. 1)."""
    return logits.gather(1, labels[:, None]).squeeze(1)


def class_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """P_c = exp S_c / sum_k exp S_k, which the paper advises against: (B, C) and (B,) to (B,) (Sec. 2)."""
    return class_score(logits.softmax(dim=1), labels)


OBJECTIVES = {"score": class_score, "probability": class_probability}


def objective(value: Tensor, picture: Tensor, penalty: float) -> Tensor:
    """S_c(I) - lambda |I|_2^2, to be maximised: values (B,) and pictures I (B, c, s, s) around zero to (B,) (Eq. 1)."""
    return value - penalty * picture.square().flatten(1).sum(dim=1)


def attack(oracle: WhiteBox, knowledge: Knowledge, config: DeepInsideConfig) -> Reconstruction:
    """One picture a class, (classes, 1, c, s, s)."""
    labels = torch.arange(knowledge.num_classes, device=oracle.device)
    shape = (len(labels), *knowledge.image_shape)
    noise = torch.randn(shape, generator=config.generator(oracle.device), device=oracle.device)
    picture = (config.start * noise).requires_grad_(True)  # I, around zero
    optimizer = torch.optim.SGD([picture], config.lr, config.momentum, maximize=True)
    history: dict[str, list[float]] = {"score": [], "probability": [], "norm": []}
    snapshots = []
    for step in range(config.steps):
        logits = oracle((picture + 1) / 2)
        value = OBJECTIVES[config.objective](logits, labels)
        (picture.grad,) = torch.autograd.grad(objective(value, picture, config.penalty).sum(), picture)
        history["score"].append(class_score(logits, labels).mean().item())
        history["probability"].append(class_probability(logits, labels).mean().item())
        history["norm"].append(picture.detach().flatten(1).norm(dim=1).mean().item())
        optimizer.step()
        if (step + 1) % max(1, config.steps // 5) == 0:
            snapshots.append(shown(picture))
    with torch.no_grad():
        logits = oracle((picture + 1) / 2)
    notes = {
        "score": class_score(logits, labels).mean().item(),
        "probability": class_probability(logits, labels).mean().item(),
        "clipped": (picture.detach().abs() > 1).float().mean().item(),
    }
    return Reconstruction(shown(picture), history, snapshots, notes)


def shown(picture: Tensor) -> Tensor:
    """I (B, c, s, s) around zero as pictures (B, 1, c, s, s) in [0, 1]."""
    return ((picture.detach() + 1) / 2).clamp(0, 1)[:, None]


EXPERIMENT = Experiment(
    paper="simonyan2014_deep_inside",
    setting=ClassifierSetting,
    config=DeepInsideConfig(),
    attack=attack,
    knowledge=("num-classes", "image-shape"),
    baselines=("public_mean", "nearest_public"),
    ablations={
        "probability": Run(says="ascends the probability, all else equal", config={"objective": "probability"}),
        "no_penalty": Run(says="ascends the score without the penalty", config={"penalty": 0.0}),
    },
    variants={
        "probability_light": Run(
            says="ascends the probability with a penalty that suits its range",
            config={"objective": "probability", "penalty": 0.0003},
        ),
    },
    claims={
        "score-shows-more-than-probability": Claim(
            check=lambda method, runs: all(
                method["accuracy_top1"] >= runs[name]["accuracy_top1"] + 0.2 for name in ("probability", "probability_light")
            ),
            ablation="probability",
        ),
        "penalty-keeps-the-picture": Claim(
            check=lambda method, runs: (
                method["accuracy_top1"] >= runs["no_penalty"]["accuracy_top1"] + 0.1
                and method["note_clipped"] <= 0.5 * runs["no_penalty"]["note_clipped"]
            ),
            ablation="no_penalty",
        ),
    },
    smoke={"steps": 2},
    paper_scale={"steps": 500},
)
