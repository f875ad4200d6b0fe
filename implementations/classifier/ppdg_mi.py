r"""PPDG-MI: what a first round found tunes the generator, and a second round searches where that has made room.

Paper: "Pseudo-Private Data Guided Model Inversion Attacks", Xiong Peng, Bo Han, Feng Liu, Tongliang Liu, Mingyuan Zhou,
NeurIPS 2024. https://openreview.net/forum?id=pyqPUf36D2

Idea. A generator learnt from public pictures gives private people little density, so that a search among its pictures seldom
meets them. Yet what a first round of inversion finds already shows traits of the private data: it is pseudo-private. The best
of it, judged by the target on changed views of each picture, is taken as the goal of a short tuning. Each chosen picture gets
a pivot, the code in a dense region whose picture comes nearest to it, and the generator's weights are moved until the pivots
show the chosen pictures. The prior is now dense round them, and a second round that starts anew is likelier to draw the real
thing. The scheme stands on top of any generative attack; here that is GMI with LOMMA's logit loss.

Mathematics. With the target's probability $C_y$ of class $y$, random changes $T$ of a picture, features $\phi$, and generator
$G_\theta$ and discriminator $D$ of the public prior: the quality by which pseudo-private pictures $\hat x$ are chosen, their
pivots, and the tuned weights of the class are

$$q(\hat x) = \mathbb E_T\, C_y(T(\hat x)), \qquad
z' = \arg\min_z\; \|\phi(G_\theta(z)) - \phi(\hat x)\|^2 + \mu\, \mathrm{softplus}(-D(G_\theta(z))), \qquad
\theta_y = \arg\min_{\theta'} \sum_{\hat x} \|\phi(G_{\theta'}(z')) - \phi(\hat x)\|^2.$$

Deviations
1. Pointwise alignment (PPDG-PW in the official code) stands on GMI with the logit loss here; there it stands on Plug & Play
   attacks of StyleGAN, and small GANs are tuned adversarially on public and pseudo-private pictures together. A tuning of that
   kind, one generator for all classes, was tried first: it brought the prior's pictures nearer to private ones, but left the
   accuracy of the second round as it was.
2. Features are those of the prior's discriminator, each position normalised, together with the pixels; the paper's LPIPS needs
   pretrained weights.
3. A handful of reconstructions of each class in a round, not 100 or 1,000, and the better half of them is pseudo-private (5 of
   100 in the official PPDG-PW, half in its low-resolution code). All classes are tuned at once, each with weights of its own.
4. As there, the second round draws fresh codes, and all its pictures are evaluated.
5. Here it hardly matters which of the first round's pictures are taken, nor whether the discriminator has a say in the pivots
   (`any_pictures`, `no_discriminator`): tuning towards any of them does the work.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from ..common.priors import Discriminator, GanConfig, Generator, Prior, public_gan
from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, WhiteBox
from .gmi import prior_loss
from .lomma import LommaConfig, Watched, objective
from .plg_mi import PlgMiConfig, augment
from .setting import ClassifierSetting

Draw = Callable[[Tensor], Tensor]  # codes (C * K, Z), class by class -> pictures (C * K, c, s, s)


@dataclass(frozen=True, kw_only=True)
class PpdgMiConfig(Config):
    """Defaults are for 32-pixel pictures on a CPU."""

    rounds: int = 2  # searches; the generator is tuned between them; paper: 2
    chosen: str = "best"  # pseudo-private pictures: best (by quality) or any (an ablation)
    keep: float = 0.5  # share of a round's reconstructions that become pseudo-private; official PPDG-PW: 5 of 100
    views: int = 8  # changed views of each picture for its quality; official code: 100
    pivot_steps: int = 40  # of the search for pivots; official code: 300
    pivot_lr: float = 0.05  # of Adam on pivots, which start at the mean code; official code: 0.01
    realism: float = 0.1  # mu, weight of the discriminator in that search; official code: 0.1
    tune_steps: int = 25  # updates of the generator's weights, 0 leaves them as they were; official code: 150
    tune_lr: float = 5e-4  # of Adam on weights; official code: 0.0003
    feature_weight: float = 5.0  # lambda of the logit loss, as in `lomma`
    identity_weight: float = 100.0  # weight of the identity loss against the prior loss, as in GMI
    lr: float = 0.0003  # step of the search, as in `lomma`
    momentum: float = 0.9  # of Nesterov's method in the search
    clip: float = 1.0  # codes are kept in [-clip, clip]
    steps: int = 40  # of each round's search; official code: 70 for StyleGAN, 1200 for small GANs
    per_class: int = 4  # reconstructions of each class in each round; official code: 100 or 1000
    prior_steps: int = 1200  # generator updates of the GAN on public pictures
    prior_width: int = 12  # channels of the GAN's finest layer
    prior_seed: int = 0  # seed of the GAN's training; apart from `seed` so that one prior serves all seeds

    def __post_init__(self):
        require(self.chosen in ("best", "any"), f"chosen must be best or any, not {self.chosen!r}")
        require(0 < self.keep <= 1, f"keep must lie in (0, 1], not {self.keep}")
        require(self.tune_steps >= 0, f"tune_steps must not be negative, not {self.tune_steps}")
        counts = min(self.rounds, self.views, self.steps, self.per_class, self.pivot_steps)
        require(counts >= 1, "rounds, views, steps, per_class and pivot_steps must be at least 1")


@torch.no_grad()
def quality(oracle: WhiteBox, images: Tensor, labels: Tensor, random: torch.Generator, views: int) -> Tensor:
    """q: the target's mean probability of the class over changed views of each picture (B, c, s, s), (B,)."""
    changes = PlgMiConfig()  # crop, mirror, angle, light: the same ranges in both official codes
    seen = [oracle(augment(images, random, changes)).softmax(dim=1) for _ in range(views)]
    return torch.stack(seen).mean(dim=0).gather(1, labels[:, None]).squeeze(1)


def select(images: Tensor, scores: Tensor, keep: float) -> Tensor:
    """The share `keep`, at least one, of each class's pictures (C, K, c, s, s) with the highest scores (C, K)."""
    count = max(1, round(keep * images.shape[1]))
    best = scores.topk(count, dim=1).indices  # (C, k)
    return images[torch.arange(len(images), device=images.device)[:, None], best]


def features(discriminator: Discriminator, x: Tensor) -> Tensor:
    """phi: activations of the discriminator's layers, each position of unit length, and pixels, (B, F).

    Scaled so that a squared distance is a sum over layers of means over positions, as that of LPIPS.
    """
    h, found = x * 2 - 1, [x.flatten(1) / (x[0].numel() ** 0.5)]
    for layer in discriminator.stages:
        h = layer(h)
        if isinstance(layer, nn.LeakyReLU):
            found.append(F.normalize(h, dim=1).flatten(1) / (h[0, 0].numel() ** 0.5))
    return torch.cat(found, dim=1)


def distance(discriminator: Discriminator, x: Tensor, y: Tensor) -> Tensor:
    """||phi(x) - phi(y)||^2, (B,), picture by picture: the pointwise measure."""
    return (features(discriminator, x) - features(discriminator, y)).square().sum(dim=1)


def find_pivots(prior: Prior, pseudo: Tensor, random: torch.Generator, config: PpdgMiConfig) -> Tensor:
    """z' (B, Z), from the mean code on: codes of realistic pictures near the pseudo-private ones (B, c, s, s) (Eq. 6)."""
    z = (0.05 * prior.sample(len(pseudo), random)).requires_grad_(True)
    optimizer = torch.optim.Adam([z], lr=config.pivot_lr)
    for _ in range(config.pivot_steps):
        images = prior.generator(z)
        unreal = F.softplus(-prior.discriminator(images))
        loss = distance(prior.discriminator, images, pseudo) + config.realism * unreal
        (z.grad,) = torch.autograd.grad(loss.sum(), z)
        optimizer.step()
    return z.detach()


def drawn_by(generator: Generator, weights: dict[str, Tensor], codes: Tensor) -> Tensor:
    """Pictures (C * K, c, s, s) of codes (C * K, Z) by C generators, whose weights are stacked (C, ...)."""
    classes = len(next(iter(weights.values())))
    buffers = dict(generator.named_buffers())

    def one(own: dict[str, Tensor], z: Tensor) -> Tensor:
        return functional_call(generator, (own, buffers), (z,))

    return vmap(one)(weights, codes.view(classes, -1, codes.shape[1])).flatten(0, 1)


def tune(prior: Prior, pseudo: Tensor, pivots: Tensor, config: PpdgMiConfig) -> tuple[dict[str, Tensor], list[float]]:
    """theta_y (Eq. 7): the generator's weights for each class, stacked (C, ...), after tuning; the mean distance of every step.

    `pseudo` (C, k, c, s, s) are the pictures that the pivots (C * k, Z) shall show. The prior itself stays as it is.
    """
    classes, goals = len(pseudo), pseudo.flatten(0, 1)
    weights = {name: value.detach().expand(classes, *value.shape).clone() for name, value in prior.generator.named_parameters()}
    optimizer = torch.optim.Adam(weights.values(), lr=config.tune_lr)
    losses = []
    for _ in range(config.tune_steps):
        for value in weights.values():
            value.requires_grad_(True)
        apart = distance(prior.discriminator, drawn_by(prior.generator, weights, pivots), goals)
        gradients = torch.autograd.grad(apart.sum(), list(weights.values()))
        for value, gradient in zip(weights.values(), gradients, strict=True):
            value.grad = gradient
        optimizer.step()
        losses.append(apart.mean().item())
    return {name: value.detach() for name, value in weights.items()}, losses


def search(
    draw: Draw, prior: Prior, target: Watched, p_reg: Tensor, labels: Tensor, random: torch.Generator, config: PpdgMiConfig
) -> tuple[Tensor, dict[str, list[float]]]:
    """One round of the attack below: Nesterov descent on fresh codes with the logit loss; pictures (B, c, s, s), history."""
    base = LommaConfig(students=0, feature_weight=config.feature_weight)
    z = prior.sample(len(labels), random).clamp(-config.clip, config.clip).requires_grad_(True)
    optimizer = torch.optim.SGD([z], lr=config.lr, momentum=config.momentum, nesterov=True)
    history: dict[str, list[float]] = {"identity loss": [], "target confidence": []}
    for _ in range(config.steps):
        images = draw(z)
        value, confidence = objective(target, [], p_reg, images, labels, base)
        loss = config.identity_weight * value + prior_loss(prior.discriminator(images))
        (z.grad,) = torch.autograd.grad(loss.sum(), z)
        optimizer.step()
        with torch.no_grad():
            z.clamp_(-config.clip, config.clip)
        history["identity loss"].append(value.mean().item())
        history["target confidence"].append(confidence.mean().item())
    with torch.no_grad():
        return draw(z), history


def attack(oracle: WhiteBox, knowledge: Knowledge, config: PpdgMiConfig) -> Reconstruction:
    """Pictures (classes, per_class, c, s, s) of the last round; the snapshots are each round's and the pseudo-private ones."""
    public, classes = knowledge.public_images, knowledge.num_classes
    random, target = config.generator(oracle.device), Watched(oracle)
    with torch.no_grad():
        p_reg = torch.cat([target(piece)[1] for piece in public.split(500)]).mean(dim=0)  # (F,)
    prior = public_gan(public, GanConfig(steps=config.prior_steps, width=config.prior_width, seed=config.prior_seed))
    labels = torch.arange(classes, device=oracle.device).repeat_interleave(config.per_class)
    history: dict[str, list[float]] = {"tuning distance": []}
    snapshots, notes = [], {"prior_seconds": prior.seconds}
    draw: Draw = prior.generator
    for number in range(1, config.rounds + 1):
        images, curves = search(draw, prior, target, p_reg, labels, random, config)
        history = {name: history.get(name, []) + curves.get(name, []) for name in {**history, **curves}}
        by_class = images.view(classes, config.per_class, *images.shape[1:])
        scores = quality(oracle, images, labels, random, config.views).view(classes, config.per_class)
        notes[f"quality_{number}"] = scores.mean().item()
        snapshots.append(by_class)
        if number < config.rounds:
            chance = torch.rand(scores.shape, generator=random, device=oracle.device)
            pseudo = select(by_class, scores if config.chosen == "best" else chance, config.keep)
            pivots = find_pivots(prior, pseudo.flatten(0, 1), random, config)
            weights, losses = tune(prior, pseudo, pivots, config)
            draw = partial(drawn_by, prior.generator, weights)
            history["tuning distance"] += losses
            snapshots.append(pseudo)
    return Reconstruction(by_class, history, snapshots, notes)


EXPERIMENT = Experiment(
    paper="ppdg_mi",
    setting=ClassifierSetting,
    config=PpdgMiConfig(),
    attack=attack,
    knowledge=("public-images", "num-classes"),
    ablations={
        "untuned": Run(says="a second round as long in the generator as it was", config={"tune_steps": 0}),
        "any_pictures": Run(says="pseudo-private pictures taken at random from the first round", config={"chosen": "any"}),
        "no_discriminator": Run(says="pivots found without the discriminator's say", config={"realism": 0.0}),
    },
    variants={"one_round": Run(says="a single round: the attack below", config={"rounds": 1})},
    claims={
        "tuning-raises-accuracy": Claim(
            check=lambda method, runs: (
                method["accuracy_open"] >= runs["untuned"]["accuracy_open"] + 0.03
                and method["feature_distance"] <= runs["untuned"]["feature_distance"] - 0.1
            ),
            ablation="untuned",
        ),
    },
    smoke={"steps": 2, "per_class": 2, "views": 1, "pivot_steps": 1, "tune_steps": 1},
    paper_scale={
        "steps": 1200,
        "per_class": 100,
        "keep": 0.05,
        "views": 100,
        "pivot_steps": 300,
        "pivot_lr": 0.01,
        "tune_steps": 150,
        "tune_lr": 0.0003,
        "prior_steps": 60000,
        "prior_width": 64,
    },
)
