r"""Ensemble inversion: one generator that must satisfy several networks trained on the same people.

Paper: "Reconstructing Training Data From Diverse ML Models by Ensemble Inversion", Qian Wang, Daniel Kurz, WACV 2022.
https://arxiv.org/abs/2111.03702

Idea. Many pictures satisfy one network without showing anybody: it has its own blind spots. Networks that were trained
differently on the same people have different ones, and what they have in common is the people. A generator is trained, with all
networks frozen, until every one of them sees the wanted person in its pictures. Two constraints sharpen these: predictions
close to one-hot, and a high activation of the wanted class. A discriminator that has seen similar public pictures can help,
but the attack also works without any pictures.

Mathematics. With models $M_1, \dots, M_N$, their logits $m_i = M_i(G(z, y))$ and an optional discriminator $D$,

$$L_G = \frac1N \sum_{i=1}^{N} \Big( \mathrm{CE}(m_i, y) - \lambda_{mr}\, m_{i,y} \Big) \;-\; \lambda_{aux}\, D(G(z, y)).$$

Deviations
1. The paper's text and code were not at hand: the abstract gives a generator constrained by an ensemble, sharp predictions,
   high activations and an auxiliary data set. The form of the terms and all their weights are our reading.
2. The generator takes the class as an input (conditional normalisation), so that every picture has its class; whether the
   paper's does was not checked.
3. With public pictures the generator goes on from a small hinge GAN of all of them, trained once, from which all classes
   start alike, and the discriminator goes on learning; without, the generator starts from random weights.
4. Reconstructions are plain samples of the averaged generator, all of them evaluated.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.conditional_gan import ConditionalGenerator, ProjectionDiscriminator, conditional_gan
from ..common.priors import GanConfig
from ..common.progress import progress
from ..common.training import jitter, seeded_weights
from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, WhiteBox
from .ensembles import EnsembleSetting
from .gmi import snapshot_steps
from .judging import recognised
from .lokt import for_classes

ALL = -1  # of the models


@dataclass(frozen=True, kw_only=True)
class EnsembleInversionConfig(Config):
    """Defaults are for 32-pixel pictures on a CPU; the paper's values were not at hand."""

    model: int = ALL  # which model the generator must satisfy: -1 for all (the paper's idea), or the place of one (ablation)
    auxiliary: str = "public"  # public: prior and discriminator of public pictures; none: no pictures at all
    response_weight: float = 0.02  # lambda_mr, of the wanted class's activation; 0 leaves it out
    class_weight: float = 2.0  # of the models' terms against the discriminator's, whose weight lambda_aux is 1
    lr: float = 3e-3  # of Adam for the generator
    judge_lr: float = 1e-3  # of Adam for the discriminator
    ema: float = 0.95  # decay of the moving average that becomes the generator
    steps: int = 120  # of the generator; in each one picture of every class
    per_class: int = 2  # samples of each class
    latent: int = 64  # size of the code of a generator that starts from nothing
    prior_steps: int = 1200  # generator updates of the GAN on public pictures
    prior_width: int = 12  # channels of the generator's finest layer
    prior_seed: int = 0  # seed of that GAN; apart from `seed` so that one serves all seeds

    def __post_init__(self):
        require(self.model >= ALL, f"model must be -1 or a place in the ensemble, not {self.model}")
        require(self.auxiliary in ("public", "none"), f"auxiliary must be public or none, not {self.auxiliary!r}")
        require(self.response_weight >= 0, f"response_weight must not be negative, not {self.response_weight}")
        require(0 <= self.ema < 1, f"ema must lie in [0, 1), not {self.ema}")
        require(min(self.steps, self.per_class) >= 1, "steps and per_class must be at least 1")


def inversion_loss(logits: Tensor, labels: Tensor, response_weight: float) -> Tensor:
    """Mean over models of cross-entropy minus lambda_mr times the wanted activation: logits (N, B, C) to losses (B,)."""
    wanted = labels.expand(len(logits), -1)  # (N, B)
    sharp = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(wanted)
    response = logits.gather(2, wanted[:, :, None]).squeeze(2)
    return (sharp - response_weight * response).mean(dim=0)


class Listened:
    """The ensemble with an ear on its members: one call, one query, the logits of every chosen member."""

    def __init__(self, oracle: WhiteBox, model: int):
        self.oracle = oracle
        self.heard: list[Tensor] = []
        members = list(oracle.model.members)
        for member in members if model == ALL else [members[model]]:
            member.register_forward_hook(self.keep)

    def keep(self, _: nn.Module, __: tuple, logits: Tensor) -> None:
        self.heard.append(logits)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, B, C) of pictures x."""
        self.heard = []
        self.oracle(x)
        return torch.stack(self.heard)


def start(
    public: Tensor | None, shape: tuple[int, ...], classes: int, config: EnsembleInversionConfig, device: torch.device
) -> tuple[ConditionalGenerator, ProjectionDiscriminator | None, float]:
    """The generator before it meets the models; with public pictures its discriminator and the seconds of their training."""
    with seeded_weights(config.seed):
        generator = ConditionalGenerator(config.latent, classes, shape[0], shape[1], config.prior_width).to(device)
    if public is None:
        return generator.train(), None, 0.0
    options = GanConfig(steps=config.prior_steps, width=config.prior_width, seed=config.prior_seed)
    prior = conditional_gan(public, torch.zeros(len(public), dtype=torch.int64, device=device), 1, options)
    generator = for_classes(prior.generator, classes, shape, config.prior_width)
    return generator.train(), prior.discriminator.requires_grad_(True).train(), prior.seconds


def discriminator_step(
    discriminator: nn.Module, optimizer: torch.optim.Optimizer, fake: Tensor, public: Tensor, random: torch.Generator
) -> None:
    """One step of the hinge loss that tells public pictures from generated ones."""
    chosen = torch.randint(len(public), (len(fake),), generator=random, device=fake.device)
    real, same = jitter(public[chosen], random, 1), torch.zeros(len(fake), dtype=torch.int64, device=fake.device)
    loss = F.relu(1 - discriminator(real, same)).mean() + F.relu(1 + discriminator(fake.detach(), same)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def attack(oracle: WhiteBox, knowledge: Knowledge, config: EnsembleInversionConfig) -> Reconstruction:
    """Pictures (classes, per_class, c, s, s): samples of the generator that the models trained."""
    classes, shape, device = knowledge.num_classes, knowledge.image_shape, oracle.device
    public = knowledge.public_images if config.auxiliary == "public" else None
    models, random = Listened(oracle, config.model), config.generator(device)
    generator, discriminator, seconds = start(public, shape, classes, config, device)
    average = copy.deepcopy(generator)
    optimizer = torch.optim.Adam(generator.parameters(), config.lr, betas=(0.0, 0.9))
    if discriminator:
        judging = torch.optim.Adam(discriminator.parameters(), config.judge_lr, betas=(0.0, 0.9))
    labels = torch.arange(classes, device=device)
    shown = torch.randn(classes * config.per_class, generator.latent, generator=random, device=device)
    shown_labels = labels.repeat_interleave(config.per_class)
    history: dict[str, list[float]] = {"models' loss": [], "models that see the class": []}
    snapshots = []

    def sample() -> Tensor:
        with torch.no_grad():
            return average.eval()(shown, shown_labels).view(classes, config.per_class, *shape)

    for step in progress(range(config.steps), "training a generator against the ensemble"):
        images = generator(torch.randn(classes, generator.latent, generator=random, device=device), labels)
        logits = models(images)  # (N, B, C)
        value = inversion_loss(logits, labels, config.response_weight).mean()
        loss = config.class_weight * value
        if discriminator:
            loss = loss - discriminator(images, torch.zeros_like(labels)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if discriminator:
            discriminator_step(discriminator, judging, images, public, random)
        with torch.no_grad():
            for kept, new in zip(average.parameters(), generator.parameters(), strict=True):
                kept.lerp_(new, 1 - config.ema)
            for kept, new in zip(average.buffers(), generator.buffers(), strict=True):
                kept.copy_(new)
        history["models' loss"].append(value.item())
        history["models that see the class"].append((logits.argmax(dim=2) == labels).float().mean().item())
        if step in snapshot_steps(config.steps):
            snapshots.append(sample())
    return Reconstruction(sample(), history, snapshots, {"prior_seconds": seconds})


EXPERIMENT = Experiment(
    paper="ensemble_inversion",
    setting=EnsembleSetting,
    config=EnsembleInversionConfig(),
    attack=attack,
    knowledge=("num-classes", "image-shape", "public-images"),
    ablations={
        "one_model": Run(says="the standard target alone", config={"model": 0}),
        "one_model_without_pictures": Run(
            says="the standard target alone, no public pictures", config={"model": 0, "auxiliary": "none"}
        ),
        "without_pictures": Run(says="the whole ensemble, no public pictures", config={"auxiliary": "none"}),
    },
    variants={
        "second_model": Run(says="the second model (resnet) alone", config={"model": 1}),
        "third_model": Run(says="the third model (mlp) alone", config={"model": 2}),
        "no_response_term": Run(says="cross-entropy alone, without the activation", config={"response_weight": 0.0}),
    },
    claims={
        "ensemble-beats-single": Claim(
            check=lambda method, runs: all(
                recognised(method) >= recognised(runs[alone]) + 0.05 for alone in ("one_model", "second_model", "third_model")
            ),
            ablation="one_model",
        ),
        "ensemble-helps-without-data": Claim(
            check=lambda method, runs: recognised(method) >= recognised(runs["one_model_without_pictures"]) + 0.08,
            ablation="one_model_without_pictures",
            run="without_pictures",
        ),
        "auxiliary-data-improves": Claim(
            check=lambda method, runs: recognised(method) >= recognised(runs["without_pictures"]) + 0.1,
            ablation="without_pictures",
        ),
    },
    smoke={"steps": 2, "per_class": 1, "prior_steps": 2},
    paper_scale={"steps": 30000, "prior_steps": 60000, "prior_width": 64, "latent": 128},
)
