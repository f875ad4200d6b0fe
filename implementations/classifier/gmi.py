r"""GMI: inversion in the latent space of a public generative prior.

Paper: "The Secret Revealer: Generative Model-Inversion Attacks Against Deep Neural Networks", Yuheng Zhang, Ruoxi Jia, Hengzhi
Pei, Wenxiao Wang, Bo Li, Dawn Song, CVPR 2020. https://arxiv.org/abs/1911.07135

Idea. Gradient descent on pixels fools a deep network without showing anything: almost every image that it calls a person is
noise. GMI first learns what pictures look like at all, by training a GAN on public pictures, and then searches only among
pictures that this GAN makes. A code z is moved until the target is sure of the class (identity loss) while the GAN's own
discriminator still finds the picture real (prior loss). What the target knows of the person steers a picture that stays a
face.

Mathematics. With generator $G$, discriminator $D$ and the target's probability $C_y$ of class $y$ (Sec. 3.2, Eq. 4):

$$\hat z = \arg\min_z\; L_{\mathrm{prior}}(z) + \lambda\, L_{\mathrm{id}}(z), \qquad L_{\mathrm{prior}}(z) = -D(G(z)),
\qquad L_{\mathrm{id}}(z) = -\log C_y(G(z)).$$

Deviations
1. The GAN is trained with hinge loss and spectral normalisation instead of a Wasserstein loss with gradient penalty: half the
   cost on a CPU, the same role.
2. No diversity loss in the GAN's training (Eq. 3): it needs the target's features during training and, in the official code,
   belongs to the variant with a blurred or masked picture, which is not implemented here.
3. Losses are summed over the batch, not averaged, so that the step does not depend on how many classes are attacked together;
   the paper's lambda of 100 and step of 0.02 (on a mean over 100 identities) become the same numbers on a sum with step 0.0002.
   Fewer steps with a larger learning rate replace 1,500 small ones.
4. Every class gets `per_class` independent reconstructions, all of them evaluated; of `restarts` each the one that the target
   scores highest is kept (paper: one reconstruction, best of 5).
5. The bench is small: among a thousand public people somebody resembles every victim, and `nearest_public`, which only looks
   them up by the target's scores, is taken for the victim about as often as GMI's pictures are. Attack accuracy alone cannot
   tell a reconstruction from a lookalike; `accuracy_open` and the pictures say more.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.priors import GanConfig, Prior, public_gan
from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, WhiteBox
from .setting import ClassifierSetting


@dataclass(frozen=True, kw_only=True)
class GmiConfig(Config):
    """Defaults are for 32-pixel pictures on a CPU."""

    space: str = "latent"  # latent: search among the prior's pictures; pixels: search all images (the ablation)
    start: str = "noise"  # pixels only, where to start: noise (uniform) or public-mean
    identity_weight: float = 100.0  # lambda, weight of the identity loss against the prior loss; paper: 100 (Sec. 4.1)
    lr: float = 0.001  # step of the search; paper: 0.02 on a mean over 100 identities, which is 0.0002 on our sum
    momentum: float = 0.9  # of Nesterov's method; paper: 0.9
    clip: float = 1.0  # codes are kept in [-clip, clip]; official code: 1
    pixel_lr: float = 0.02  # step on pixels (ablation), by Adam: plain gradient steps on pixels barely move
    steps: int = 80  # of the search; paper: 1500
    per_class: int = 2  # reconstructions of each class; paper: 1
    restarts: int = 2  # starts of each, the best by the target's score is kept; paper: 5
    prior_steps: int = 1200  # generator updates of the GAN on public pictures
    prior_width: int = 12  # channels of the GAN's finest layer
    prior_seed: int = 0  # seed of the GAN's training; apart from `seed` so that one prior serves all seeds

    def __post_init__(self):
        require(self.space in ("latent", "pixels"), f"space must be latent or pixels, not {self.space!r}")
        require(self.start in ("noise", "public-mean"), f"start must be noise or public-mean, not {self.start!r}")
        require(min(self.steps, self.per_class, self.restarts) >= 1, "steps, per_class and restarts must be at least 1")


def identity_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """-log C_y(G(z)) for logits (B, C) and labels (B,), one value a picture (Sec. 3.2)."""
    return F.cross_entropy(logits, labels, reduction="none")


def prior_loss(realism: Tensor) -> Tensor:
    """-D(G(z)) for discriminator scores (B,): small where the picture looks real (Sec. 3.2)."""
    return -realism


def total_loss(logits: Tensor, labels: Tensor, realism: Tensor, identity_weight: float) -> Tensor:
    """L_prior + lambda L_id, one value a picture (Eq. 4)."""
    return prior_loss(realism) + identity_weight * identity_loss(logits, labels)


def search(oracle: WhiteBox, prior: Prior, labels: Tensor, config: GmiConfig) -> tuple[Tensor, dict, list[Tensor]]:
    """Nesterov descent on codes z (B, Z), all classes and restarts at once; pictures (B, c, s, s), history, snapshots."""
    z = prior.sample(len(labels), config.generator(oracle.device)).clamp(-config.clip, config.clip).requires_grad_(True)
    optimizer = torch.optim.SGD([z], lr=config.lr, momentum=config.momentum, nesterov=True)
    history: dict[str, list[float]] = {"identity loss": [], "prior loss": []}
    snapshots = []
    for step in range(config.steps):
        images = prior.generator(z)
        logits, realism = oracle(images), prior.discriminator(images)
        loss = total_loss(logits, labels, realism, config.identity_weight).sum()
        (z.grad,) = torch.autograd.grad(loss, z)
        optimizer.step()
        with torch.no_grad():
            z.clamp_(-config.clip, config.clip)
        history["identity loss"].append(identity_loss(logits, labels).mean().item())
        history["prior loss"].append(prior_loss(realism).mean().item())
        if step in snapshot_steps(config.steps):
            snapshots.append(images.detach())
    return prior.generator(z).detach(), history, snapshots


def search_pixels(oracle: WhiteBox, start: Tensor, labels: Tensor, config: GmiConfig) -> tuple[Tensor, dict, list[Tensor]]:
    """The same search without the idea: every image is allowed, no discriminator. `start` is (B, c, s, s)."""
    x = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([x], lr=config.pixel_lr)
    history: dict[str, list[float]] = {"identity loss": []}
    snapshots = []
    for step in range(config.steps):
        logits = oracle(x)
        (x.grad,) = torch.autograd.grad(identity_loss(logits, labels).sum(), x)
        optimizer.step()
        with torch.no_grad():
            x.clamp_(0, 1)
        history["identity loss"].append(identity_loss(logits, labels).mean().item())
        if step in snapshot_steps(config.steps):
            snapshots.append(x.detach().clone())
    return x.detach(), history, snapshots


def snapshot_steps(steps: int, count: int = 6) -> set[int]:
    """About `count` steps, evenly spread, at which pictures are kept for the notebook."""
    return {round(i * (steps - 1) / max(1, count - 1)) for i in range(count)}


def attack(oracle: WhiteBox, knowledge: Knowledge, config: GmiConfig) -> Reconstruction:
    """Pictures (classes, per_class, c, s, s): the best restart of each, by the score of the target."""
    public, classes = knowledge.public_images, knowledge.num_classes
    labels = torch.arange(classes, device=oracle.device).repeat_interleave(config.per_class * config.restarts)
    notes = {}
    if config.space == "latent":
        options = GanConfig(steps=config.prior_steps, width=config.prior_width, seed=config.prior_seed)
        prior = public_gan(public, options)
        notes["prior_seconds"] = prior.seconds
        images, history, snapshots = search(oracle, prior, labels, config)
    else:
        shape = (len(labels), *public.shape[1:])
        start = torch.rand(shape, generator=config.generator(oracle.device), device=oracle.device)
        if config.start == "public-mean":
            start = public.mean(dim=0) + 0.02 * (start - 0.5)  # a little noise tells the restarts apart
        images, history, snapshots = search_pixels(oracle, start, labels, config)
    with torch.no_grad():
        scores = oracle(images).log_softmax(dim=1).gather(1, labels[:, None]).view(classes * config.per_class, config.restarts)
    best = scores.argmax(dim=1)  # (classes * per_class,)
    rows = torch.arange(len(best), device=oracle.device)

    def keep(pictures: Tensor) -> Tensor:
        grouped = pictures.view(len(best), config.restarts, *pictures.shape[1:])
        return grouped[rows, best].view(classes, config.per_class, *pictures.shape[1:])

    return Reconstruction(keep(images), history, [keep(snapshot) for snapshot in snapshots], notes)


EXPERIMENT = Experiment(
    paper="gmi",
    setting=ClassifierSetting,
    config=GmiConfig(),
    attack=attack,
    knowledge=("public-images", "num-classes"),
    ablations={
        "pixels_from_noise": Run(says="no prior: all images allowed, from noise", config={"space": "pixels"}),
    },
    variants={
        "pixels_from_mean": Run(
            says="no prior, from the public mean picture", config={"space": "pixels", "start": "public-mean"}
        ),
        "digits": Run(says="strong shift: digits 0-4 with a prior of digits 5-9", options={"data": "digits"}),
    },
    references={
        "fredrikson2015": Run(
            says="Fredrikson et al. (2015) on the same target", paper="fredrikson2015_confidence", config={"steps": 200}
        )
    },
    claims={
        "prior-beats-pixels": Claim(
            check=lambda method, runs: (
                method["accuracy_top1"] >= runs["random_latents"]["accuracy_top1"] + 0.5
                and method["accuracy_top1"] >= runs["pixels_from_noise"]["accuracy_top1"] + 0.4
            ),
            ablation="pixels_from_noise",
        ),
    },
    smoke={"steps": 2, "per_class": 1},
    paper_scale={"steps": 1500, "lr": 0.0002, "restarts": 5, "per_class": 1, "prior_steps": 60000, "prior_width": 64},
)
