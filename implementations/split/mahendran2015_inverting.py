r"""Descent on the image until its features are the given ones, with a prior on natural images: the root of white-box inversion.

Paper: "Understanding Deep Image Representations by Inverting Them", Aravindh Mahendran, Andrea Vedaldi, CVPR 2015.
https://arxiv.org/abs/1412.0035

Idea. What does a representation keep of an image? Start from noise and descend until the image's representation is the given
one. Most images that fit are noise, so two weak priors speak for natural ones: a high power of the pixel values, which keeps
them in range, and a power of the total variation, which allows for edges but not for speckle. All terms are relative to the
norms of representation and image, so that they keep their weight from one representation to the next. Several starts show what
the representation leaves open. The paper wants to understand networks and has no private data in view; a server that holds the
activations and the layers that made them can do the same to somebody else's picture.

Mathematics. With the representation $\Phi$, the given $\Phi_0 = \Phi(\sigma x_0)$, and $\sigma$ the mean norm of natural
images without their mean, so that $x$ has about unit norm:

$$x^* = \arg\min_x E(x), \qquad E(x) = \frac{\|\Phi(\sigma x) - \Phi_0\|_2^2}{\|\Phi_0\|_2^2}
+ \lambda_\alpha \|x\|_\alpha^\alpha + \lambda_{V^\beta} R_{V^\beta}(x),$$

$$R_{V^\beta}(x) = \sum_{i,j} \big((x_{i,j+1} - x_{ij})^2 + (x_{i+1,j} - x_{ij})^2\big)^{\beta/2}, \qquad
\mu_{t+1} = m\,\mu_t - \eta_t \nabla E(x_t), \quad x_{t+1} = x_t + \mu_{t+1}.$$

Deviations
1. The formulas and values are those of the official code (aravindhm/deep-goggle, core/invert_nn.m and
   experiments/experiment_cnn.m), rewritten in the normalised units above; that they are also the printed ones is our reading.
2. Mid-grey stands for the mean of natural images; sigma follows from the root mean square of their values in the code
   (x0_sigma.mat: 0.27 of the range). The adversary then needs no image of its own.
3. lambda_alpha grows with the square of the number of values: the term weighs as much here as with images of 227 pixels.
   The weights of the total variation are somewhat smaller than the code's, since neighbours differ more in small images,
   and grow with depth as there. Steps are half the code's size, where its own make some images diverge, and more of them; after
   the last convolution they are smaller still.
4. Each image is normalised by its own norms; the code divides by those of all restarts together. All inputs and restarts are
   one batch, and each is descended for itself.
5. Of several restarts the one with the smallest E is returned; the paper shows them side by side. Their spread is noted.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.progress import progress
from ..experiment import Claim, Config, Experiment, Metrics, Reconstruction, Run, require
from ..threat_model import Features, Knowledge
from .he2019_collaborative import shuffled_weights
from .setting import SplitSetting

REFERENCE_VALUES = 227 * 227 * 3  # values of the images for which the code's lambda_alpha was set


@dataclass(frozen=True, kw_only=True)
class InvertingConfig(Config):
    """Weights are in the normalised units of the docstring; lambda's values in the code are twice these."""

    alpha: float = 6.0  # power of the norm of the values (code: 6)
    alpha_weight: float = 2.16e8  # lambda_alpha for 227-pixel images, scaled to ours (code: 4e-10 sigma^4)
    beta: float = 2.0  # power of the gradient's length in the total variation (code: 2)
    tv_weight: float = 0.15  # lambda_V (code: 0.5 for its layers up to 6, 5 up to 12, 50 above)
    deviation: float = 0.27  # root mean square of natural images without their mean, in pixel values; gives sigma
    restarts: int = 2  # starts from noise for each input (code: 4)
    steps: int = 1000  # descent steps (code: 400)
    lr: float = 0.002  # eta, step of the first quarter, a tenth of it for half of the steps, then a hundredth (code: 0.004)
    momentum: float = 0.9  # m (code: 0.9)
    weights: str = "granted"  # granted, or shuffled: each layer's weights change places (ablation)

    def __post_init__(self):
        require(self.alpha > 1 and self.beta >= 1, "alpha must be above 1 and beta at least 1")
        require(min(self.alpha_weight, self.tv_weight) >= 0, "alpha_weight and tv_weight must be at least 0")
        require(min(self.deviation, self.lr) > 0, "deviation and lr must be above 0")
        require(0 <= self.momentum < 1, "momentum must lie in [0, 1)")
        require(min(self.restarts, self.steps) >= 1, "restarts and steps must be at least 1")
        require(self.weights in ("granted", "shuffled"), f"weights must be granted or shuffled, not {self.weights!r}")


# --- the objective, one value an image ----------------------------------------------------------------------------------


def feature_loss(sent: Tensor, given: Tensor) -> Tensor:
    """||Phi - Phi_0||^2 / ||Phi_0||^2 for representations (B, ...), (B,)."""
    return (sent - given).square().flatten(1).sum(dim=1) / given.square().flatten(1).sum(dim=1)


def alpha_norm(x: Tensor, alpha: float) -> Tensor:
    """||x||_alpha^alpha of images (B, C, H, W), (B,)."""
    return x.abs().pow(alpha).flatten(1).sum(dim=1)


def total_variation(x: Tensor, beta: float) -> Tensor:
    """R_V^beta of images (B, C, H, W), summed over channels, (B,). Differences across the border count as 0.

    Below beta = 2 it has no derivative where both differences are 0; 0 is taken.
    """
    down = F.pad(x[:, :, 1:] - x[:, :, :-1], (0, 0, 0, 1))
    right = F.pad(x[..., 1:] - x[..., :-1], (0, 1))
    squared = down.square() + right.square()
    flat = squared == 0
    return squared.masked_fill(flat, 1).pow(beta / 2).masked_fill(flat, 0).flatten(1).sum(dim=1)


def step_size(step: int, config: InvertingConfig) -> float:
    """eta_t: three stages, a quarter, a half and a quarter of the steps, each with a tenth of the step before."""
    return config.lr * (1.0 if step < config.steps // 4 else 0.1 if step < 3 * config.steps // 4 else 0.01)


# --- the attack ----------------------------------------------------------------------------------------------------------


def attack(oracle: Features, knowledge: Knowledge, config: InvertingConfig) -> Reconstruction:
    """One picture for each observed activation, (V, C, S, S) in [0, 1]."""
    generator = config.generator(oracle.device)
    client, observed, shape = oracle.client, oracle.observed, tuple(knowledge.image_shape)
    if config.weights == "shuffled":
        client = shuffled_weights(client, generator)
    count, starts = len(observed), config.restarts
    given = observed.repeat_interleave(starts, dim=0)  # (V R, ...)
    values = torch.Size(shape).numel()
    sigma = config.deviation * values**0.5
    alpha_weight = config.alpha_weight * (values / REFERENCE_VALUES) ** 2

    x = torch.randn((count * starts, *shape), generator=generator, device=oracle.device) / values**0.5  # about unit norm
    momentum = torch.zeros_like(x)
    history: dict[str, list[float]] = {"features": [], "alpha norm": [], "total variation": []}
    trajectory, last = [], 0.0
    for step in progress(range(config.steps), "inverting the representation"):
        x.requires_grad_(True)
        terms = {
            "features": feature_loss(client(0.5 + sigma * x), given),
            "alpha norm": alpha_weight * alpha_norm(x, config.alpha),
            "total variation": config.tv_weight * total_variation(x, config.beta),
        }
        energy = sum(terms.values())  # E(x) of each image, (V R,)
        (gradient,) = torch.autograd.grad(energy.sum(), x)
        lr = step_size(step, config)
        if lr != last:  # what was gathered with larger steps would overshoot
            momentum, last = torch.zeros_like(x), lr
        momentum = config.momentum * momentum - lr * gradient
        x = x.detach() + momentum
        for name, term in terms.items():
            history[name].append(term.mean().item())
        if step in (0, config.steps // 16, config.steps // 4):
            trajectory.append((0.5 + sigma * x[::starts]).clamp(0, 1))

    images = (0.5 + sigma * x).clamp(0, 1).view(count, starts, *shape)
    best = energy.detach().nan_to_num(nan=torch.inf).view(count, starts).argmin(dim=1)  # not a start that diverged
    spread = images.std(dim=1, correction=0).square().mean().sqrt().item()
    return Reconstruction(images[torch.arange(count, device=x.device), best], history, trajectory, {"spread": spread})


# --- what is measured ---------------------------------------------------------------------------------------------------


def best_baseline(runs: Mapping[str, Metrics]) -> float:
    """The highest mean PSNR, in dB, that needs no attack."""
    return max(runs[name]["psnr"] for name in ("public_mean", "nearest_public", "noise"))


def prior_is_needed(method: Metrics, runs: Mapping[str, Metrics]) -> bool:
    """Clearly better than the representation alone, in both measures."""
    return method["psnr"] >= runs["no_prior"]["psnr"] + 2 and method["ssim"] >= runs["no_prior"]["ssim"] + 0.15


def layers_keep_the_picture(method: Metrics, runs: Mapping[str, Metrics]) -> bool:
    """Nearly exact after the first activation; in the middle recognisable and well above what needs no attack."""
    middle = method["psnr"] >= best_baseline(runs) + 1.5 and method["recognizable"] >= 0.8
    return middle and runs["shallow_cut"]["psnr"] >= 25


def deeper_leaves_more_open(method: Metrics, runs: Mapping[str, Metrics]) -> bool:
    """From cut to cut, restarts end farther apart and farther from the original."""
    shallow, deep = runs["shallow_cut"], runs["deep_cut"]
    spread = 2 * shallow["note_spread"] <= method["note_spread"] <= deep["note_spread"] / 1.2
    return spread and shallow["psnr"] - 5 >= method["psnr"] >= deep["psnr"] + 2


EXPERIMENT = Experiment(
    paper="mahendran2015_inverting",
    setting=SplitSetting,
    config=InvertingConfig(),
    attack=attack,
    knowledge=("image-shape", "client-weights"),
    grant={"client": "weights"},
    ablations={
        "no_prior": Run(
            says="the representation alone, from the same noise with as many steps",
            config={"tv_weight": 0.0, "alpha_weight": 0.0},
        ),
        "wrong_client": Run(
            says="the client's weights change places: right layers, no knowledge", config={"weights": "shuffled"}
        ),
    },
    variants={
        "no_variation": Run(says="the norm of the values as the only prior", config={"tv_weight": 0.0}),
        "shallow_cut": Run(
            says="a cut after the first activation: less prior", config={"tv_weight": 0.05}, options={"cut": "relu11"}
        ),
        "deep_cut": Run(
            says="a cut after the last convolution: more prior, smaller steps",
            config={"tv_weight": 0.3, "lr": 0.0005},
            options={"cut": "relu32"},
        ),
    },
    claims={
        "prior-is-needed": Claim(check=prior_is_needed, ablation="no_prior"),
        "layers-keep-the-picture": Claim(check=layers_keep_the_picture, ablation="wrong_client"),
        "deeper-leaves-more-open": Claim(check=deeper_leaves_more_open, ablation="wrong_client"),
    },
    smoke={"steps": 4, "restarts": 2},
    paper_scale={"lr": 0.004},
)
