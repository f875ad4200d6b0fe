r"""Diff-MI: a diffusion model made for one target, and pictures rebuilt between its denoising and the target's opinion.

Paper: "Model Inversion Attacks Through Target-Specific Conditional Diffusion Models", Ouxiang Li, Yanbin Hao, Zhicai Wang, Bin
Zhu, Shuo Wang, Zaixi Zhang, Fuli Feng, arXiv 2024. https://arxiv.org/abs/2407.11424

Idea. GANs limit how real a reconstruction can look, and a search of their codes is biased. A conditional diffusion model takes
their place, and the target has its say in all of its making. For each class the public pictures that the target scores highest
get the class as pseudo-label, and the model is pre-trained on them. Then a few layers, the embeddings of the classes and the
middle of the network, are tuned until the target takes drawn pictures for their class, at every step of drawing. In the attack
a picture starts as noise and is moved by turns: a step that makes it probable for the diffusion model at falling noise levels,
and a step towards the class for the target, which may be no stronger than the first. Both uses of the target share a loss that
asks the logit of the class to beat the mean of the k next ones, not the largest alone, and holds features near those of the
public pictures.

Mathematics. With logits $l$ and features $\phi$ of the target, the mean features $\bar\phi_y$ of the public pictures of class
$y$, and the guided noise $\hat\epsilon = w\, \epsilon_\theta(x_t, t, y) - (w - 1)\, \epsilon_\theta(x_t, t, \varnothing)$:

$$L_{cls}(x, y) = -l_y(x) + \frac{1}{k} \sum_{j \in \mathrm{top}_k(l_{\ne y})} l_j(x)
+ \alpha\, \|\phi(x) - \bar\phi_y\|^2, \qquad
L_{prior}(x) = \|\hat\epsilon(\alpha_t x + \sigma_t \epsilon) - \epsilon\|^2.$$

Deviations
1. The abstract and the official code were at hand, the text was not: what is said of losses and steps is the code's.
2. A small network on 32 pixels that predicts the picture, with a cosine schedule (`common.diffusion`). Noise levels are those
   of the code's linear schedule of 1,000 steps, translated to it.
3. Tuning draws in 5 deterministic steps (official code: 10 of DPM-Solver++) and ends after `epochs` or, as there, once the
   target agrees with the share `threshold` of the drawn pictures.
4. The top k are 5 of 50 classes (official code: 20 of 1,000). Features weigh as in `lomma`, which attacks the same targets.
5. Public pictures are of another domain than the private ones, and of few people. With a thousand people photographed alike,
   the pictures that the classes get are so much like them that the pre-trained model makes recognisable ones by itself.
6. The official code ends with ten steps of an adversarial attack (PGD within an L2 ball) that make the target surer of what
   was found. Left out: they change the target's opinion and hardly what is seen.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from ..common.cache import cached
from ..common.diffusion import Denoiser, Diffusion, DiffusionConfig, conditional_diffusion, ddim, denoise, noised
from ..common.progress import progress
from ..common.training import in_batches
from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, WhiteBox, fingerprint
from .gmi import snapshot_steps
from .judging import recognised
from .lomma import Watched, feature_penalty
from .plg_mi import PlgMiConfig, augment, top_n_selection
from .setting import ClassifierSetting

Loss = Callable[[Tensor, Tensor], Tensor]  # pictures (B, c, s, s) in [0, 1], labels (B,) -> L_cls (B,)


@dataclass(frozen=True, kw_only=True)
class DiffMiConfig(Config):
    """Defaults are for 32-pixel pictures on a CPU."""

    diffusion: bool = True  # the attack steps by turns with the diffusion model; False: the target alone (an ablation)
    top_n: int = 30  # public pictures that each class gets as its own; official code: 30
    top_k: int = 5  # k, logits that the class's must beat on average; 1 is the plain margin; official code: 20 of 1000
    feature_weight: float = 5.0  # alpha, weight of the features; official code: 1
    epochs: int = 4  # of tuning, over all classes; 0 leaves the pre-trained model as it is; official code: at most 100
    threshold: float = 0.99  # share of drawn pictures that the target agrees on, at which tuning ends; official code: 0.99
    tune_batch: int = 10  # classes an update; official code: 4
    tune_draw_steps: int = 5  # of drawing in tuning; official code: 10
    tune_lr: float = 5e-4  # of Adam in tuning; official code: 0.0002
    guidance: float = 3.0  # w; official code: 3
    steps: int = 30  # of the reconstruction, 0 takes what the model draws from noise (a variant); official code: 30
    draw_steps: int = 16  # of drawing where nothing is reconstructed
    lr: float = 1.0  # of Adamax on pixels in [-1, 1]; official code: 1
    views: int = 4  # changed views of each picture that the target sees in a step; official code: 4
    bound: float = 1.25  # largest norm of the target's gradient in norms of the diffusion model's; official code: 1.25
    final_level: int = 100  # noise level, of 1000, from which the picture is drawn anew at the end; official code: 100
    final_steps: int = 4  # of that drawing; official code: 10
    per_class: int = 4  # pictures of each class; official code: 5
    prior_steps: int = 1000  # updates of pre-training; official code: 50000
    prior_width: int = 32  # channels of the finest layer
    prior_seed: int = 0  # seed of pre-training and tuning; apart from `seed` so that one model serves all seeds

    def __post_init__(self):
        counts = min(self.top_n, self.top_k, self.views, self.per_class, self.draw_steps)
        require(counts >= 1, "top_n, top_k, views, per_class and draw_steps must be at least 1")
        require(min(self.epochs, self.steps) >= 0, "epochs and steps must not be negative")
        require(self.guidance >= 1, f"guidance must be at least 1, not {self.guidance}")
        require(0 < self.final_level <= 1000, f"final_level must lie in 1 to 1000, not {self.final_level}")


def top_k_margin(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """-l_y + mean of the k largest other logits, (B,), for logits (B, C): the improved max-margin loss without features."""
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf).topk(min(k, logits.shape[1] - 1), dim=1).values
    return others.mean(dim=1) - own.squeeze(1)


def level(step: float) -> float:
    """The time of our cosine schedule with as much noise as step 1 to 1000 of the linear schedule of DDPM."""
    beta = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64, device="cpu")
    kept = (1 - beta[: round(step)]).prod().sqrt().item()  # alpha
    return math.acos(kept) / (math.pi / 2)


def noise_step(i: int, steps: int) -> float:
    """The noise level of reconstruction step i, falling from 1000 to about 200 in a line with a ripple; as in the code."""
    left = steps - i
    return (left / 1.5 + left / 3 * math.cos(3 / (10 * math.pi) * i)) / steps * 800 + 200


def class_features(target: Watched, chosen: Tensor, classes: int) -> Tensor:
    """Mean features (C, F) of the public pictures (C * n, c, s, s) that each class got, class by class."""
    with torch.no_grad():
        features = torch.cat([target(piece)[1] for piece in chosen.split(500)])
    return features.view(classes, -1, features.shape[1]).mean(dim=1)


def target_loss(target: Watched, phi: Tensor, config: DiffMiConfig) -> Loss:
    """L_cls as a function of pictures and labels, with the class's features phi (C, F)."""

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        logits, features = target(images)
        return top_k_margin(logits, labels, config.top_k) + config.feature_weight * feature_penalty(features, phi[labels])

    return loss


def tuned_layers(model: Denoiser) -> list[nn.Parameter]:
    """What tuning moves: the classes' embeddings and the convolutions in the middle of the network."""
    middle = [layer for block in model.middle for layer in (block.first, block.second)]
    return [model.label.weight, *(value for layer in middle for value in layer.parameters())]


def fine_tune(model: Denoiser, loss: Loss, agrees: Loss, config: DiffMiConfig) -> Denoiser:
    """Step 1, second half: a copy of the model, tuned until the target takes what it draws for the class.

    Every prediction of the picture on the way counts, each in two changed views.
    """
    model = copy.deepcopy(model)
    device = model.label.weight.device
    random = torch.Generator(device).manual_seed(config.prior_seed)
    moved = tuned_layers(model)
    for value in moved:
        value.requires_grad_(True)
    optimizer = torch.optim.AdamW(moved, config.tune_lr, weight_decay=0.0)
    for _ in progress(range(config.epochs), "tuning a diffusion model with the target"):
        agreed = []
        for labels in torch.randperm(model.classes, generator=random, device=device).split(config.tune_batch):
            noise = torch.randn(len(labels), *model.shape, generator=random, device=device)
            seen = ddim(model, noise, labels, config.tune_draw_steps, config.guidance)
            images, wanted = (torch.cat(seen) + 1) / 2, labels.repeat(len(seen))
            views = torch.cat([augment(images, random, PlgMiConfig()) for _ in range(2)])
            value = loss(views, wanted.repeat(2)).mean()
            for parameter, gradient in zip(moved, torch.autograd.grad(value, moved), strict=True):
                parameter.grad = gradient
            optimizer.step()
            agreed.append(agrees((seen[-1].detach() + 1) / 2, labels))
        if torch.cat(agreed).mean() >= config.threshold:
            break
    return model.requires_grad_(False)


def soften(images: Tensor, random: torch.Generator) -> Tensor:
    """The changed views of the reconstruction (B, c, s, s): mirrored, lit otherwise, blurred, each for half of them."""

    def chance() -> Tensor:
        return torch.rand(len(images), 1, 1, 1, generator=random, device=images.device)

    images = torch.where(chance() < 0.5, images.flip(3), images)
    images = torch.where(chance() < 0.5, images * (0.8 + 0.4 * chance()), images)
    blurred = gaussian_blur(images, [5, 5], [1.5, 1.5])  # official code: 7 pixels and 3 at twice the size
    return torch.where(chance() < 0.5, blurred, images).clamp(0, 1)


def reconstruct(
    model: Denoiser, loss: Loss, labels: Tensor, random: torch.Generator, config: DiffMiConfig
) -> tuple[Tensor, dict[str, list[float]], list[Tensor]]:
    """Step 2, the iterative image reconstruction: pictures (B, c, s, s) in [0, 1], history, snapshots."""

    def normal() -> Tensor:
        return torch.randn(len(labels), *model.shape, generator=random, device=labels.device)

    x = normal().requires_grad_(True)  # in [-1, 1] in the end
    optimizer = torch.optim.Adamax([x], lr=config.lr)
    history: dict[str, list[float]] = {"prior loss": [], "target loss": []}
    snapshots, norm = [], None
    for i in range(config.steps):
        if config.diffusion:
            jump = torch.randint(-50, 51, (1,), generator=random, device=labels.device).item()
            now = level(min(1000, max(1, noise_step(i, config.steps) + jump)))
            t, eps = torch.full((len(labels),), now, device=labels.device), normal()
            prior = F.mse_loss(denoise(model, noised(x, t, eps), t, labels, config.guidance)[1], eps)
            (x.grad,) = torch.autograd.grad(prior, x)
            norm = x.grad.norm() if norm is None else 0.5 * norm + 0.5 * x.grad.norm()
            optimizer.step()
            history["prior loss"].append(prior.item())
        views = torch.cat([soften(((x + 1) / 2).clamp(0, 1), random) for _ in range(config.views)])
        value = loss(views, labels.repeat(config.views)).mean()
        (x.grad,) = torch.autograd.grad(value, x)
        if config.diffusion:
            torch.nn.utils.clip_grad_norm_([x], config.bound * norm.item())
        optimizer.step()
        history["target loss"].append(value.item())
        if i in snapshot_steps(config.steps):
            snapshots.append(((x.detach() + 1) / 2).clamp(0, 1))
    x = x.detach()
    if config.diffusion:
        last = level(config.final_level)
        with torch.no_grad():
            xt = noised(x, torch.full((len(labels),), last, device=labels.device), normal())
            x = ddim(model, xt, labels, config.final_steps, config.guidance, last)[-1]
    return ((x + 1) / 2).clamp(0, 1), history, snapshots


def attack(oracle: WhiteBox, knowledge: Knowledge, config: DiffMiConfig) -> Reconstruction:
    """Pictures (classes, per_class, c, s, s)."""
    public, classes, device = knowledge.public_images, knowledge.num_classes, oracle.device
    target = Watched(oracle)
    chosen, pseudo = top_n_selection(in_batches(lambda x: oracle(x).log_softmax(dim=1), public), config.top_n)
    options = DiffusionConfig(steps=config.prior_steps, width=config.prior_width, seed=config.prior_seed)
    prior = conditional_diffusion(public[chosen], pseudo, classes, options)
    loss = target_loss(target, class_features(target, public[chosen], classes), config)
    model, seconds = prior.model, prior.seconds

    def agrees(images: Tensor, labels: Tensor) -> Tensor:
        return (oracle(images).argmax(dim=1) == labels).float()

    if config.epochs:
        key = [config.top_n, config.top_k, config.feature_weight, config.epochs, config.threshold, config.tune_batch]
        key += [config.tune_draw_steps, config.tune_lr, config.guidance, config.prior_seed]
        key += [fingerprint(oracle.model), fingerprint(model)]

        def build() -> dict[str, Tensor]:
            start = time.perf_counter()
            tuned = dict(fine_tune(prior.model, loss, agrees, config).state_dict())
            return {**tuned, "seconds": torch.tensor([time.perf_counter() - start], device=device)}

        state = cached("diff-mi", __name__, key, build, device)
        seconds += state.pop("seconds").item()
        model = copy.deepcopy(model)
        model.load_state_dict(state)
    labels = torch.arange(classes, device=device).repeat_interleave(config.per_class)
    random = config.generator(device)
    if config.steps:
        images, history, snapshots = reconstruct(model, loss, labels, random, config)
    else:
        images, history, snapshots = Diffusion(model, 0.0).sample(labels, random, config.draw_steps, config.guidance), {}, []

    def by_class(pictures: Tensor) -> Tensor:
        return pictures.view(classes, config.per_class, *pictures.shape[1:])

    return Reconstruction(by_class(images), history, [by_class(one) for one in snapshots], {"prior_seconds": seconds})


EXPERIMENT = Experiment(
    paper="diff_mi",
    setting=ClassifierSetting,
    options={"public_domain": "shifted", "public_identities": 300},
    config=DiffMiConfig(),
    attack=attack,
    knowledge=("public-images", "num-classes"),
    ablations={
        "pretrained_only": Run(says="the diffusion model is not tuned with the target", config={"epochs": 0}),
        "hard_margin": Run(says="the largest other logit in place of the mean of k", config={"top_k": 1}),
        "target_alone": Run(
            says="pixels moved by the target alone, without the diffusion model, in small steps that it needs then",
            config={"diffusion": False, "lr": 0.05},
        ),
        "drawn_pretrained": Run(
            says="what the diffusion model draws without tuning and without reconstruction", config={"epochs": 0, "steps": 0}
        ),
    },
    variants={"drawn": Run(says="what the tuned diffusion model draws, without reconstruction", config={"steps": 0})},
    references={"plg_mi": Run(says="PLG-MI: a conditional GAN on the same pseudo-labels", paper="plg_mi")},
    claims={
        "tuning-makes-the-model-specific": Claim(
            check=lambda method, runs: recognised(method) >= recognised(runs["drawn_pretrained"]) + 0.05,
            ablation="drawn_pretrained",
            run="drawn",
        ),
        "tuning-raises-accuracy": Claim(
            check=lambda method, runs: recognised(method) >= recognised(runs["pretrained_only"]) + 0.02,
            ablation="pretrained_only",
        ),
        "top-k-margin-beats-hard-margin": Claim(
            check=lambda method, runs: recognised(method) >= recognised(runs["hard_margin"]) + 0.02,
            ablation="hard_margin",
        ),
        "diffusion-keeps-fidelity": Claim(
            check=lambda method, runs: (
                method["fid"] <= 0.95 * runs["plg_mi"]["fid"] and recognised(method) >= recognised(runs["plg_mi"]) - 0.05
            ),
            ablation="target_alone",
        ),
    },
    smoke={"steps": 2, "per_class": 1, "views": 1, "prior_steps": 2, "epochs": 1, "tune_draw_steps": 2, "final_steps": 1},
    paper_scale={
        "prior_steps": 50000,
        "prior_width": 128,
        "top_k": 20,
        "feature_weight": 1.0,
        "epochs": 100,
        "tune_batch": 4,
        "tune_draw_steps": 10,
        "tune_lr": 0.0002,
        "final_steps": 10,
        "per_class": 5,
    },
)
