r"""VMI: a distribution of styles is fitted for each class, which the target likes and which stays close to the prior.

Paper: "Variational Model Inversion Attacks", Kuan-Chieh Wang, Yan Fu, Ke Li, Ashish Khisti, Richard Zemel, Alireza Makhzani,
NeurIPS 2021. https://arxiv.org/abs/2201.10787

Idea. What the attacker wants of a class is not one picture but all the pictures that the class may look like: the posterior of
pictures given the class. VMI approximates it in the code space of a generator of public pictures. A distribution of codes is
trained so that the target takes samples for the class, while a divergence from the generator's own prior keeps the samples
natural and spread out: where a single point may sit on a quirk of the target, a distribution has to please it throughout. The
distribution is a normalising flow, one for each layer of a style-based generator, so that coarse and fine traits are fitted
apart.

Mathematics. For class $y$, layers $l = 1 \dots L$, flows $q_l$ on codes, the mapping $f$, synthesis $S$ and the target $p$:

$$\min_{q_1 \dots q_L}\; \mathbb E\big[-\log p\big(y \mid S(f(z_1), \dots, f(z_L))\big)\big]
+ \frac{\gamma}{L} \sum_{l=1}^{L} \mathrm{KL}\big(q_l \,\|\, \mathcal N(0, I)\big), \qquad z_l \sim q_l .$$

With $z = T(e)$ for normal noise $e$: $\mathrm{KL} = \mathbb E\big[\tfrac12 \|z\|^2 - \tfrac12 \|e\|^2\big] - \log |\det T|$.

Deviations
1. A small style-based generator of the public pictures with four layers stands for StyleGAN2-ADA with ten; all layers are
   fitted, as in the official script.
2. The flow is that of the official script in kind: activation normalisation, a fixed random permutation, additive coupling, and
   the same noise into the flows of all layers. It has fewer steps, one hidden layer, no multi-scale splits, and starts as the
   identity, so that $q$ starts as the prior.
3. All classes and layers are trained as one tensor, with Adam instead of SGD and far fewer steps.
4. The official code names the weight of the divergence lambda_kl and sets it to 0.001; $\gamma$ is the symbol used here.
5. `family="points"` is the comparison: as many points as pictures are asked for, each moved by the same objective, which for
   a single point is its likelihood and its prior density. `kl_weight=0` is the other ablation.
6. The text of the paper was not at hand: all of this is from the official code.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.style_gan import StyleGanConfig, StyleGenerator, style_gan
from ..common.training import in_batches, seeded_weights
from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, WhiteBox
from .gmi import identity_loss, snapshot_steps
from .judging import recognised
from .setting import ClassifierSetting


@dataclass(frozen=True, kw_only=True)
class VmiConfig(Config):
    """Defaults are for 32-pixel pictures on a CPU."""

    family: str = "flow"  # of the distributions: flow, or points (ablation)
    kl_weight: float = 0.01  # gamma, of the divergence from the prior; official script: 0.001
    flow_steps: int = 4  # K, coupling steps of each flow; official script: 10 in each of 3 scales
    hidden: int = 32  # width of the coupling networks; official code: 100
    lr: float = 0.01  # of Adam on the flows; official script: 0.0001 by SGD with momentum 0.9
    point_lr: float = 0.05  # of Adam on points (ablation)
    batch: int = 4  # samples of each class in each step; official code: 64
    steps: int = 120  # of training; official script: 31 epochs of 157 steps
    per_class: int = 4  # pictures of each class that are drawn in the end
    prior_steps: int = 1200  # generator updates of the GAN on public pictures
    prior_width: int = 12  # channels of the GAN's finest layer
    prior_seed: int = 0  # seed of the GAN's training; apart from `seed` so that one prior serves all seeds

    def __post_init__(self):
        require(self.family in ("flow", "points"), f"family must be flow or points, not {self.family!r}")
        require(self.kl_weight >= 0, f"kl_weight must not be negative, not {self.kl_weight}")
        counts = min(self.flow_steps, self.hidden, self.batch, self.steps, self.per_class)
        require(counts >= 1, "flow_steps, hidden, batch, steps and per_class must be at least 1")


class Flows(nn.Module):
    """M independent flows on codes of even size Z, their weights stacked: noise (M, B, Z) to codes (M, B, Z).

    Each step scales and shifts every coordinate (activation normalisation), shuffles, and adds to the second half of the
    coordinates a function of the first (additive coupling). All are the identity at first, but for the shuffling.
    """

    def __init__(self, flows: int, size: int, steps: int, hidden: int):
        super().__init__()
        require(size % 2 == 0, f"codes need an even size, not {size}")
        half = size // 2

        def weights(*shape: int, scale: float = 0.0) -> nn.ParameterList:
            return nn.ParameterList(nn.Parameter(scale * torch.randn(flows, *shape, device="cpu")) for _ in range(steps))

        self.log_scale, self.shift = weights(1, size), weights(1, size)
        self.into, self.bias = weights(half, hidden, scale=half**-0.5), weights(1, hidden)
        self.out = weights(hidden, half)
        self.register_buffer("order", torch.stack([torch.randperm(size, device="cpu") for _ in range(steps)]))

    def forward(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (M, B, Z) and log |det| (M,), which is the same for all noise: the couplings keep volume."""
        z = noise
        for k, order in enumerate(self.order):
            z = (z * self.log_scale[k].exp() + self.shift[k])[:, :, order]
            first, second = z.chunk(2, dim=2)
            added = F.elu(torch.baddbmm(self.bias[k], first, self.into[k])) @ self.out[k]
            z = torch.cat([first, second + added], dim=2)
        return z, sum(scale.sum(dim=(1, 2)) for scale in self.log_scale)


def kl_to_prior(noise: Tensor, z: Tensor, log_det: Tensor) -> Tensor:
    """KL(q || N(0, I)) from samples z = T(noise), both (M, B, Z), and log |det T| (M,): one value a flow (M,)."""
    return (z.square() - noise.square()).sum(dim=2).mean(dim=1) / 2 - log_det


def variational_loss(nll: Tensor, kl: Tensor, kl_weight: float) -> Tensor:
    """E[-log p(y | x)] + gamma mean over layers of KL, from (C, B) and (C, L): one value a class (C,)."""
    return nll.mean(dim=1) + kl_weight * kl.mean(dim=1)


def pictures(generator: StyleGenerator, z: Tensor) -> Tensor:
    """Codes (C, L, B, Z), one for each layer, to pictures (C * B, c, s, s)."""
    return generator.synthesis(generator.mapping(z).transpose(1, 2).flatten(0, 1))


class Family(nn.Module):
    """The distribution of each class: flows, or points with the density of the prior as their divergence."""

    def __init__(self, classes: int, layers: int, latent: int, config: VmiConfig):
        super().__init__()
        self.classes, self.layers = classes, layers
        self.flows = Flows(classes * layers, latent, config.flow_steps, config.hidden)

    def forward(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Noise (C, B, Z), the same for all layers, to codes (C, L, B, Z) and divergences (C, L)."""
        shared = noise.repeat_interleave(self.layers, dim=0)  # (C * L, B, Z)
        z, log_det = self.flows(shared)
        kl = kl_to_prior(shared, z, log_det).view(self.classes, self.layers)
        return z.view(self.classes, self.layers, *z.shape[1:]), kl


class Points(nn.Module):
    """The ablation: free codes (C, L, B, Z), one start for all layers. The divergence lacks the entropy."""

    def __init__(self, start: Tensor, layers: int):
        super().__init__()
        self.z = nn.Parameter(start[:, None].repeat(1, layers, 1, 1))

    def forward(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        return self.z, self.z.square().sum(dim=3).mean(dim=2) / 2


def attack(oracle: WhiteBox, knowledge: Knowledge, config: VmiConfig) -> Reconstruction:
    """Pictures (classes, per_class, c, s, s): samples of the fitted distributions, all of them."""
    public, classes = knowledge.public_images, knowledge.num_classes
    random = config.generator(oracle.device)
    prior = style_gan(public, StyleGanConfig(steps=config.prior_steps, width=config.prior_width, seed=config.prior_seed))
    generator = prior.generator

    def noise(count: int) -> Tensor:
        return prior.sample(classes * count, random).view(classes, count, -1)

    last = noise(config.per_class)  # fixed, to watch the same samples change
    if config.family == "flow":
        with seeded_weights(config.seed):
            family = Family(classes, generator.layers, generator.latent, config).to(oracle.device)
    else:
        family = Points(last, generator.layers)
    optimizer = torch.optim.Adam(family.parameters(), lr=config.lr if config.family == "flow" else config.point_lr)
    history: dict[str, list[float]] = {"negative log-likelihood": [], "divergence": []}
    snapshots = []

    @torch.no_grad()
    def shown() -> Tensor:
        return in_batches(lambda z: pictures(generator, z), family(last)[0], 50).view(classes, -1, *public.shape[1:])

    for step in range(config.steps):
        z, kl = family(noise(config.batch))
        labels = torch.arange(classes, device=oracle.device).repeat_interleave(z.shape[2])
        nll = identity_loss(oracle(pictures(generator, z)), labels).view(classes, -1)
        loss = variational_loss(nll, kl, config.kl_weight).sum()  # classes have weights of their own
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history["negative log-likelihood"].append(nll.mean().item())
        history["divergence"].append(kl.mean().item())
        if step in snapshot_steps(config.steps):
            snapshots.append(shown())
    return Reconstruction(shown(), history, snapshots, {"prior_seconds": prior.seconds, "divergence": kl.mean().item()})


EXPERIMENT = Experiment(
    paper="vmi",
    setting=ClassifierSetting,
    config=VmiConfig(),
    attack=attack,
    knowledge=("public-images", "num-classes"),
    ablations={
        "points": Run(says="points in place of distributions, moved by the same objective", config={"family": "points"}),
        "no_divergence": Run(says="flows without the divergence from the prior", config={"kl_weight": 0.0}),
    },
    references={"gmi": Run(says="GMI: points in the code space of a plain GAN", paper="gmi", config={"per_class": 4})},
    claims={
        "diverse-and-accurate": Claim(
            check=lambda method, runs: (
                recognised(method) >= recognised(runs["points"]) + 0.04
                and method["diversity"] >= runs["points"]["diversity"] + 0.2
            ),
            ablation="points",
            not_reproduced=(
                "Samples of the distributions are taken for the right person about as often as points or more often, but they "
                "differ less from each other: points start at as many codes of the prior as pictures are asked for and stay "
                "apart, while a flow spreads out from one centre. That held for weights of the divergence from 0.01 to 0.1 and "
                "with twice the steps and samples (diversity 6.4 to 8.0 against 9.5 to 9.9, on one seed). The divergence was "
                "worked out by hand in tests and flow and loss compared with the official script, which takes forty times "
                "the steps and sixteen times the samples. Judged by strangers too (accuracy_open), points are ahead."
            ),
        ),
        "divergence-keeps-samples-diverse": Claim(
            check=lambda method, runs: method["diversity"] >= runs["no_divergence"]["diversity"] + 0.5,
            ablation="no_divergence",
        ),
    },
    smoke={"steps": 2, "per_class": 1, "batch": 1, "prior_steps": 2},
    paper_scale={
        "kl_weight": 0.001,
        "flow_steps": 30,
        "hidden": 100,
        "lr": 0.0001,
        "batch": 64,
        "steps": 4867,
        "per_class": 100,
        "prior_steps": 60000,
        "prior_width": 64,
    },
)
