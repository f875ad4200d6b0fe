r"""LOMMA: the logit in place of cross-entropy, and further networks distilled from the target.

Paper: "Re-Thinking Model Inversion Attacks Against Deep Neural Networks", Ngoc-Bao Nguyen, Keshigeyan Chandrasegaran, Milad
Abdollahzadeh, Ngai-Man Cheung, CVPR 2023. https://arxiv.org/abs/2304.01669

Idea. Two faults of earlier attacks are mended, here those of GMI. First, cross-entropy is content once the other classes score
low: it stops pulling before the picture shows the class itself. The logit of the class, maximised alone, goes on pulling, and a
term that holds the penultimate features near those of public pictures keeps it from growing without bound. Second, a code
that is tuned to one network fits that network's quirks. Students of other architectures are distilled from the target's
answers on public pictures, and the code must please target and students alike: they share what the target knows of a person
and not its quirks.

Mathematics. With the penultimate features $p$, the last layer's weights $w_k$ of class $k$ and public features $p_{reg}$, the
identity loss and its sum over the target $M$ and students $M_i$ are

$$L_{LOM} = -p^\top w_k + \lambda\, \|p - p_{reg}\|_2^2, \qquad
L_{MA} = \gamma_t\, L(M) + \gamma_{aug} \sum_{i=1}^{N_{aug}} L(M_i).$$

Deviations
1. GMI's attack stands below (its hinge GAN, Nesterov's steps on a sum over the batch); the paper also mends KED-MI.
2. The feature p_reg is the mean over public pictures, as the official code computes it; the text draws it from a Gaussian
   with that mean. As in that code the penalty is a mean over features and looks at the target only.
3. The students are three small networks, taught with the target's probabilities on unchanged public pictures (paper:
   EfficientNet-B0, B1 and B2).
4. All reconstructions are evaluated, without a choice among restarts (official code: five of each class, likewise).
5. The feature penalty weighs five times as much as in the official configuration: the features of the small target are a
   thousand rectified numbers, of which the mean square is small. Far fewer steps.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..common.priors import GanConfig, Prior, public_gan
from ..common.training import in_batches
from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, WhiteBox
from .gmi import identity_loss, prior_loss, snapshot_steps
from .setting import ClassifierSetting
from .students import distilled


@dataclass(frozen=True, kw_only=True)
class LommaConfig(Config):
    """Defaults are for 32-pixel pictures on a CPU."""

    loss: str = "logit"  # identity loss: logit (L_LOM) or cross-entropy (the ablation)
    students: int = 3  # N_aug, networks distilled from the target, 0 to 3; paper: 3
    feature_weight: float = 5.0  # lambda of L_LOM, weight of the feature penalty; official configuration: 1
    identity_weight: float = 100.0  # weight of the identity loss against the prior loss, as in GMI; paper: 100
    lr: float = 0.0003  # step of the search; official code: 0.02 on a mean over 60 classes, which is this on our sum
    momentum: float = 0.9  # of Nesterov's method; official code: 0.9
    clip: float = 1.0  # codes are kept in [-clip, clip]; official code: 1
    steps: int = 60  # of the search; paper: 2400
    per_class: int = 2  # reconstructions of each class; official code: 5
    student_widths: tuple[int, ...] = (8, 12, 16)  # channels of each student's first layer
    student_epochs: int = 12  # of distillation on the public pictures; official configuration: 20
    prior_steps: int = 1200  # generator updates of the GAN on public pictures
    prior_width: int = 12  # channels of the GAN's finest layer
    prior_seed: int = 0  # seed of GAN and students; apart from `seed` so that they serve all seeds

    def __post_init__(self):
        require(self.loss in ("logit", "cross-entropy"), f"loss must be logit or cross-entropy, not {self.loss!r}")
        require(0 <= self.students <= len(self.student_widths), f"students must be 0 to {len(self.student_widths)}")
        require(min(self.steps, self.per_class) >= 1, "steps and per_class must be at least 1")
        require(self.feature_weight >= 0, f"feature_weight must not be negative, not {self.feature_weight}")


def logit_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """-p^T w_k, minus the logit of the class, for logits (B, C) and labels (B,): the first term of L_LOM."""
    return -logits.gather(1, labels[:, None]).squeeze(1)


def feature_penalty(features: Tensor, p_reg: Tensor) -> Tensor:
    """Mean square of p - p_reg, (B,), for penultimate features (B, F): the second term of L_LOM without its weight."""
    return (features - p_reg).square().mean(dim=1)


def augmented(losses: list[Tensor]) -> Tensor:
    """L_MA: gamma_t L(target) + gamma_aug sum_i L(student i) with equal weights 1 / (N_aug + 1), (B,)."""
    return torch.stack(losses).mean(dim=0)


class Watched:
    """The target with an eye on its penultimate layer: whatever enters its last linear layer."""

    def __init__(self, oracle: WhiteBox):
        self.oracle, self.seen = oracle, torch.empty(0, device=oracle.device)
        last = [module for module in oracle.model.modules() if isinstance(module, nn.Linear)][-1]
        last.register_forward_pre_hook(self.keep)

    def keep(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.seen = inputs[0].flatten(1)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C) and penultimate features (B, F)."""
        logits = self.oracle(x)
        return logits, self.seen


def objective(
    target: Watched, students: list[nn.Module], p_reg: Tensor, images: Tensor, labels: Tensor, config: LommaConfig
) -> tuple[Tensor, Tensor]:
    """The identity loss (B,), over all networks, and the target's confidence (B,)."""
    logits, features = target(images)
    loss = logit_loss if config.loss == "logit" else identity_loss
    value = augmented([loss(logits, labels), *(loss(student(images), labels) for student in students)])
    if config.loss == "logit":
        value = value + config.feature_weight * feature_penalty(features, p_reg)
    return value, logits.softmax(dim=1).gather(1, labels[:, None]).squeeze(1)


def search(
    target: Watched, students: list[nn.Module], p_reg: Tensor, prior: Prior, labels: Tensor, config: LommaConfig
) -> tuple[Tensor, dict, list[Tensor]]:
    """GMI's Nesterov descent on codes z (B, Z) with the objective above; pictures (B, c, s, s), history, snapshots."""
    random = config.generator(labels.device)
    z = prior.sample(len(labels), random).clamp(-config.clip, config.clip).requires_grad_(True)
    optimizer = torch.optim.SGD([z], lr=config.lr, momentum=config.momentum, nesterov=True)
    history: dict[str, list[float]] = {"identity loss": [], "gradient norm": [], "target confidence": []}
    snapshots = []
    for step in range(config.steps):
        images = prior.generator(z)
        value, confidence = objective(target, students, p_reg, images, labels, config)
        loss = config.identity_weight * value + prior_loss(prior.discriminator(images))
        (z.grad,) = torch.autograd.grad(loss.sum(), z)
        history["identity loss"].append(value.mean().item())
        history["gradient norm"].append(z.grad.norm(dim=1).mean().item())
        history["target confidence"].append(confidence.mean().item())
        optimizer.step()
        with torch.no_grad():
            z.clamp_(-config.clip, config.clip)
        if step in snapshot_steps(config.steps):
            snapshots.append(images.detach())
    return prior.generator(z).detach(), history, snapshots


def attack(oracle: WhiteBox, knowledge: Knowledge, config: LommaConfig) -> Reconstruction:
    """Pictures (classes, per_class, c, s, s)."""
    public, classes = knowledge.public_images, knowledge.num_classes
    target = Watched(oracle)
    with torch.no_grad():
        answers = [target(piece) for piece in public.split(500)]
    taught = torch.cat([logits for logits, _ in answers]).softmax(dim=1)  # (N, C)
    p_reg = torch.cat([features for _, features in answers]).mean(dim=0)  # (F,)
    widths = config.student_widths[: config.students]
    students = distilled(public, taught, widths, config.student_epochs, config.prior_seed)
    options = GanConfig(steps=config.prior_steps, width=config.prior_width, seed=config.prior_seed)
    prior = public_gan(public, options)
    labels = torch.arange(classes, device=oracle.device).repeat_interleave(config.per_class)
    images, history, snapshots = search(target, students, p_reg, prior, labels, config)
    agreement = [(in_batches(one, public).argmax(dim=1) == taught.argmax(dim=1)).float().mean().item() for one in students]
    notes = {"prior_seconds": prior.seconds, "students_agree": sum(agreement) / max(1, len(agreement))}

    def by_class(pictures: Tensor) -> Tensor:
        return pictures.view(classes, config.per_class, *pictures.shape[1:])

    return Reconstruction(by_class(images), history, [by_class(snapshot) for snapshot in snapshots], notes)


EXPERIMENT = Experiment(
    paper="lomma",
    setting=ClassifierSetting,
    config=LommaConfig(),
    attack=attack,
    knowledge=("public-images", "num-classes"),
    ablations={
        "cross_entropy": Run(says="the first remedy taken out: cross-entropy, with students", config={"loss": "cross-entropy"}),
        "one_model": Run(says="the second remedy taken out: the logit of the target alone", config={"students": 0}),
        "neither": Run(
            says="both taken out: GMI's loss with the same prior, steps and starts",
            config={"loss": "cross-entropy", "students": 0},
        ),
    },
    claims={
        "logit-beats-cross-entropy": Claim(
            check=lambda method, runs: (
                method["accuracy_open"] >= runs["cross_entropy"]["accuracy_open"] + 0.08
                and method["feature_distance"] <= runs["cross_entropy"]["feature_distance"] - 0.6
            ),
            ablation="cross_entropy",
        ),
        "students-raise-accuracy-of-gmi": Claim(
            check=lambda method, runs: (
                method["accuracy_open"] >= runs["neither"]["accuracy_open"] + 0.02
                and method["feature_distance"] <= runs["neither"]["feature_distance"] - 0.4
            ),
            ablation="neither",
            run="cross_entropy",
        ),
        "students-beat-one-model": Claim(
            check=lambda method, runs: (
                method["accuracy_open"] >= runs["one_model"]["accuracy_open"]
                and method["feature_distance"] <= runs["one_model"]["feature_distance"] - 0.15
            ),
            ablation="one_model",
            not_reproduced=(
                "On top of the logit objective the students add little here. Pictures come somewhat closer to private ones and "
                "more of them are right among the 50 classes, but where the evaluator may answer a stranger they are taken for "
                "the person no more often than with the target alone: the logit objective has taken most of the gain already. "
                "The students agree with the target on five of six public pictures only. The claim held on the two seeds on "
                "which its margins were chosen, and does not on those reported."
            ),
        ),
        "both-remedies-raise-accuracy": Claim(
            check=lambda method, runs: (
                method["accuracy_open"] >= runs["neither"]["accuracy_open"] + 0.12
                and method["accuracy_top1"] >= runs["neither"]["accuracy_top1"] + 0.05
            ),
            ablation="neither",
        ),
    },
    smoke={"steps": 2, "per_class": 1, "student_epochs": 1},
    paper_scale={
        "steps": 2400,
        "per_class": 5,
        "feature_weight": 1.0,
        "student_epochs": 20,
        "student_widths": (32, 48, 64),
        "prior_steps": 60000,
        "prior_width": 64,
    },
)
