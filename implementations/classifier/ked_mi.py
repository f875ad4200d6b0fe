r"""KED-MI: a generator that learns what the target looks for, and a distribution of codes for each class.

Paper: "Knowledge-Enriched Distributional Model Inversion Attacks", Si Chen, Mostafa Kahla, Ruoxi Jia, Guo-Jun Qi, ICCV 2021.
https://arxiv.org/abs/2010.04092

Idea. GMI's prior knows what public pictures look like, and nothing of the target. Here the discriminator has an output for each
of the target's classes: on public pictures it must repeat the soft labels that the target gives them, and it calls a picture
real as far as those outputs are large at all. The generator matches the discriminator's features, which therefore are the
features that the target tells its classes by, and an entropy term asks that its pictures be told apart well. The attack then
fits a normal distribution of codes to each class instead of one code: gradients pass through its samples by the
reparameterisation trick, so that what is found is good all around and gives many pictures of the class.

Mathematics. The discriminator's logits $l_k$ give $D(x) = Z / (Z + 1)$ with $Z = \sum_k e^{l_k(x)}$. With the target's soft
labels $T(x)$, features $f$ and entropy $H$ (Sec. 3.1):

$$L_D = -\mathbb E\Big[\sum_k T_k(x) \log p_D(k \mid x)\Big] - \tfrac12\, \mathbb E\big[\log D(x) + \log(1 - D(G(z)))\big],$$

$$L_G = \big\|\mathbb E f(x) - \mathbb E f(G(z))\big\|_1 + \lambda_h\, \mathbb E\, H(D(G(z))).$$

For each class a distribution of codes is fitted (Sec. 3.2):

$$\min_{\mu, \sigma}\; \mathbb E_{\epsilon \sim \mathcal N(0, I)}
\big[L_{prior}(\sigma \epsilon + \mu) + \lambda\, L_{id}(\sigma \epsilon + \mu)\big].$$

Deviations
1. The discriminator is smaller; its batches serve as labelled and as unlabelled pictures at once (both are public anyway), and
   it is updated once a step of the generator (official code: 5 times). Real features to match come from the batch that it was
   just updated on (official code: another one). Its convolutions are 4 pixels wide (5, the last 3), and likenesses within a
   batch are averaged (summed).
2. Adam's rates, moments and batches are those of `common.priors` (official code: one rate, moments 0.5 and 0.999, batches of
   64). Public pictures are shifted by up to one pixel in training, and the generator is an exponential moving average, both as
   there; the variant `general_prior` is trained on as many batches.
3. The entropy is a mean over the batch; the official code sums it (weight 0.0001, batch 64: 0.0064 on the mean).
4. In each step every class draws `per_class` codes (official code: one), so that the ablation `points`, which moves as many
   codes on their own, costs exactly as much. Both move by Adam (official code: points by Nesterov's method, clipped).
5. Public pictures are of another domain than the private ones. Where they are taken alike the GAN without labels does as well.
6. Fewer and larger steps, which would leave the official code's first variance (e, wider than the prior itself) nearly as it
   is; the distributions start narrower. All pictures drawn at the end are evaluated; none is selected.
"""

import copy
import dataclasses
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.cache import cached, content_hash
from ..common.priors import GanConfig, Generator, public_gan
from ..common.progress import progress
from ..common.training import jitter, seeded_weights
from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, WhiteBox, fingerprint
from .gmi import identity_loss, snapshot_steps
from .judging import recognised
from .setting import ClassifierSetting


@dataclass(frozen=True, kw_only=True)
class KedMiConfig(Config):
    """Defaults are for 32-pixel pictures on a CPU."""

    prior: str = "inversion"  # inversion: the paper's GAN with the target's labels; general: GMI's, without (a variant)
    recovery: str = "distribution"  # distribution: of codes for each class; point: single codes (ablation)
    start: str = "noise"  # point only, where codes start: noise (standard normal) or centre (the zero code)
    identity_weight: float = 100.0  # lambda, weight of the identity loss against the prior loss; paper: 100
    start_log_variance: float = -1.0  # of each distribution, whose mean starts at 0; official code: 1, over 40 times the steps
    lr: float = 0.1  # of Adam on means and log-variances, or on codes; paper: 0.02
    steps: int = 60  # of the search; official code: 2400
    per_class: int = 4  # codes drawn of each class in each step, and pictures in the end; official code: 1, and 5
    label_weight: float = 1.0  # of the target's soft labels in the discriminator's loss; official code: 1; 0: none
    entropy_weight: float = 0.0064  # lambda_h, of the mean entropy of generated pictures; official code: 0.0064
    judge_steps: int = 1  # updates of the discriminator for each of the generator; official code: 5
    kernels: int = 16  # minibatch discrimination: numbers of similarities; official code: 64
    prior_steps: int = 1200  # generator updates of the GAN on public pictures
    prior_width: int = 12  # channels of the GAN's finest layer
    prior_seed: int = 0  # seed of the GAN's training; apart from `seed` so that one prior serves all seeds

    def __post_init__(self):
        require(self.prior in ("inversion", "general"), f"prior must be inversion or general, not {self.prior!r}")
        require(self.recovery in ("distribution", "point"), f"recovery must be distribution or point, not {self.recovery!r}")
        require(self.start in ("noise", "centre"), f"start must be noise or centre, not {self.start!r}")
        require(min(self.steps, self.per_class, self.kernels) >= 1, "steps, per_class and kernels must be at least 1")


# --- the inversion-specific GAN ------------------------------------------------------------------------------------------


def soft_label_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy (B,) of the discriminator's logits (B, C) against the target's soft labels (B, C), which sum to 1."""
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1)


def log_real(logits: Tensor) -> Tensor:
    """log D(x) (B,) with D(x) = Z / (Z + 1) and Z the sum of exponential logits (B, C): class C + 1, "fake", has logit 0."""
    return F.logsigmoid(logits.logsumexp(dim=1))


def log_fake(logits: Tensor) -> Tensor:
    """log (1 - D(x)), (B,)."""
    return F.logsigmoid(-logits.logsumexp(dim=1))


def discriminator_loss(real: Tensor, fake: Tensor, soft_labels: Tensor, label_weight: float = 1.0) -> Tensor:
    """Labels on real pictures, and real against fake, each half (logits (B, C)): the loss of D in Sec. 3.1."""
    told_apart = -0.5 * (log_real(real) + log_fake(fake))
    return (label_weight * soft_label_loss(real, soft_labels) + told_apart).mean()


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats (B,) of the discriminator's classes: small where a picture is told apart from all others."""
    return -(logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1)


def feature_matching(real: Tensor, fake: Tensor) -> Tensor:
    """Mean absolute difference of the mean features of real and generated pictures, each (B, F)."""
    return (real.mean(dim=0) - fake.mean(dim=0)).abs().mean()


def generator_loss(real_features: Tensor, fake_features: Tensor, fake_logits: Tensor, entropy_weight: float) -> Tensor:
    """Feature matching plus lambda_h times entropy: the loss of G in Sec. 3.1."""
    return feature_matching(real_features, fake_features) + entropy_weight * entropy(fake_logits).mean()


class LabelDiscriminator(nn.Module):
    """Pictures (B, c, s, s) in [0, 1] to logits (B, C) of the target's classes, with minibatch discrimination."""

    def __init__(self, classes: int, channels: int, size: int, width: int, kernels: int):
        super().__init__()
        stages: list[nn.Module] = []
        before, after = channels, 2 * width
        while size > 4:
            stages += [nn.Conv2d(before, after, 4, 2, 1), nn.InstanceNorm2d(after, affine=True), nn.LeakyReLU(0.2)]
            before, after, size = after, min(2 * after, 8 * width), size // 2
        self.body, self.kernels = nn.Sequential(*stages, nn.Flatten()), kernels
        self.likeness = nn.Linear(before * 16, kernels * 8, bias=False)
        self.head = nn.Linear(before * 16 + kernels, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x * 2 - 1)  # (B, F)

    def classify(self, features: Tensor) -> Tensor:
        rows = self.likeness(features).view(len(features), self.kernels, -1)  # (B, K, 8)
        near = torch.exp(-(rows[:, None] - rows[None]).abs().sum(dim=3)).sum(dim=1) - 1  # (B, K), itself not counted
        return self.head(torch.cat([features, near / max(1, len(features) - 1)], dim=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x))


def inversion_gan(oracle: WhiteBox, images: Tensor, classes: int, config: KedMiConfig) -> tuple[nn.ModuleDict, float]:
    """{generator, discriminator} trained on public pictures (N, c, s, s) and the target's labels, and its seconds; cached."""
    options = GanConfig(steps=config.prior_steps, width=config.prior_width, seed=config.prior_seed)
    channels, size, device = images.shape[1], images.shape[-1], images.device
    with seeded_weights(options.seed):
        generator = Generator(options.latent, channels, size, options.width)
        discriminator = LabelDiscriminator(classes, channels, size, options.width, config.kernels)
    networks = nn.ModuleDict({"generator": generator, "discriminator": discriminator}).to(device)

    def build() -> dict[str, Tensor]:
        start = time.perf_counter()
        trained = train_inversion_gan(networks, oracle, images, options, config)
        return {**trained, "seconds": torch.tensor([time.perf_counter() - start], device=device)}

    own = [config.label_weight, config.entropy_weight, config.kernels, config.judge_steps]
    key = [dataclasses.asdict(options), own, classes, content_hash(images), fingerprint(oracle.model)]
    state = cached(f"inversion-gan-{size}px", __name__, key, build, device)
    seconds = state.pop("seconds").item()
    networks.load_state_dict(state)
    return networks.eval().requires_grad_(False), seconds


def train_inversion_gan(
    networks: nn.ModuleDict, oracle: WhiteBox, images: Tensor, options: GanConfig, config: KedMiConfig
) -> dict[str, Tensor]:
    """State of {generator (averaged), discriminator} after training: both losses above, by turns."""
    random = torch.Generator(images.device).manual_seed(options.seed)
    make, judge = networks["generator"], networks["discriminator"]
    average = copy.deepcopy(make)
    optimizer_g = torch.optim.Adam(make.parameters(), options.lr_generator, betas=(0.0, 0.99))
    optimizer_d = torch.optim.Adam(judge.parameters(), options.lr_discriminator, betas=(0.0, 0.99))
    networks.train()
    for step in progress(range(options.steps), "training a GAN on public pictures and the target's labels"):
        fade = min(1.0, 2.0 * (1 - step / options.steps))
        for group, lr in ((optimizer_g, options.lr_generator), (optimizer_d, options.lr_discriminator)):
            group.param_groups[0]["lr"] = lr * fade
        codes = torch.randn(config.judge_steps + 1, options.batch, options.latent, generator=random, device=images.device)
        for drawn in codes[1:]:
            chosen = torch.randint(len(images), (options.batch,), generator=random, device=images.device)
            real = jitter(images[chosen], random, 1)
            with torch.no_grad():
                soft_labels, fake = oracle(real).softmax(dim=1), make(drawn)
            loss_d = discriminator_loss(judge(real), judge(fake), soft_labels, config.label_weight)
            optimizer_d.zero_grad()
            loss_d.backward()
            optimizer_d.step()
        with torch.no_grad():
            wanted = judge.features(real)
        features = judge.features(make(codes[0]))
        loss_g = generator_loss(wanted, features, judge.classify(features), config.entropy_weight)
        optimizer_g.zero_grad()
        loss_g.backward()
        optimizer_g.step()
        with torch.no_grad():
            for kept, new in zip(average.parameters(), make.parameters(), strict=True):
                kept.lerp_(new, 1 - options.ema)
            for kept, new in zip(average.buffers(), make.buffers(), strict=True):
                kept.copy_(new)
    networks["generator"] = average
    return dict(networks.state_dict())


# --- distributional recovery -----------------------------------------------------------------------------------------------


def reparameterise(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """Codes (C, K, Z) of normal distributions (C, Z), from standard normal noise (C, K, Z): gradients reach both (Sec. 3.2)."""
    return mean[:, None] + (0.5 * log_variance)[:, None].exp() * noise


def attack(oracle: WhiteBox, knowledge: Knowledge, config: KedMiConfig) -> Reconstruction:
    """Pictures (classes, per_class, c, s, s), drawn from the distributions that were found."""
    public, classes, device = knowledge.public_images, knowledge.num_classes, oracle.device
    random = config.generator(device)
    if config.prior == "inversion":
        networks, seconds = inversion_gan(oracle, public, classes, config)
        generator, judge = networks["generator"], networks["discriminator"]

        def prior_loss(images: Tensor) -> Tensor:
            return -log_real(judge(images))
    else:
        prior = public_gan(public, GanConfig(steps=config.prior_steps, width=config.prior_width, seed=config.prior_seed))
        generator, judge, seconds = prior.generator, prior.discriminator, prior.seconds

        def prior_loss(images: Tensor) -> Tensor:
            return -judge(images)  # GMI's

    labels = torch.arange(classes, device=device).repeat_interleave(config.per_class)
    shape = (classes, config.per_class, generator.latent)
    if config.recovery == "distribution":
        mean = torch.zeros(classes, generator.latent, device=device, requires_grad=True)
        log_variance = torch.full_like(mean, config.start_log_variance, requires_grad=True)
        moving = [mean, log_variance]
    else:
        start = torch.randn(shape, generator=random, device=device)
        moving = [(start if config.start == "noise" else torch.zeros_like(start)).requires_grad_(True)]

    def draw() -> Tensor:
        """Codes (C * K, Z): fresh samples of each distribution, or the points."""
        if config.recovery == "point":
            return moving[0].flatten(0, 1)
        return reparameterise(*moving, torch.randn(shape, generator=random, device=device)).flatten(0, 1)

    optimizer = torch.optim.Adam(moving, lr=config.lr)
    history: dict[str, list[float]] = {"identity loss": [], "prior loss": []}
    snapshots = []
    for step in range(config.steps):
        images = generator(draw())
        realism, identity = prior_loss(images), identity_loss(oracle(images), labels)
        optimizer.zero_grad()
        (realism + config.identity_weight * identity).mean().backward()
        optimizer.step()
        history["identity loss"].append(identity.mean().item())
        history["prior loss"].append(realism.mean().item())
        if step in snapshot_steps(config.steps):
            snapshots.append(images.detach().view(*shape[:2], *images.shape[1:]))
    notes = {"prior_seconds": seconds}
    if config.recovery == "distribution":
        notes["deviation"] = (0.5 * moving[1]).exp().mean().item()
    with torch.no_grad():
        images = generator(draw())
    return Reconstruction(images.view(*shape[:2], *images.shape[1:]), history, snapshots, notes)


EXPERIMENT = Experiment(
    paper="ked_mi",
    setting=ClassifierSetting,
    options={"public_domain": "shifted"},
    config=KedMiConfig(),
    attack=attack,
    knowledge=("public-images", "num-classes"),
    ablations={
        "no_labels": Run(
            says="the same GAN without the target: no soft labels, no entropy",
            config={"label_weight": 0.0, "entropy_weight": 0.0},
        ),
        "points": Run(says="as many single codes, each moved for itself", config={"recovery": "point"}),
    },
    variants={
        "general_prior": Run(says="GMI's prior: another GAN, which knows nothing of the target", config={"prior": "general"}),
        "general_prior_narrow": Run(
            says="GMI's prior with the start that suits it better: narrower distributions",
            config={"prior": "general", "start_log_variance": -2.0},
        ),
        "points_from_centre": Run(
            says="a single code from where the distribution starts: its mean without its spread",
            config={"recovery": "point", "start": "centre", "per_class": 1},
        ),
    },
    claims={
        "target-labels-improve-the-prior": Claim(
            check=lambda method, runs: method["accuracy_open"] >= runs["no_labels"]["accuracy_open"] + 0.05,
            ablation="no_labels",
        ),
        "distribution-beats-point": Claim(
            check=lambda method, runs: recognised(method) >= recognised(runs["points"]) + 0.04,
            ablation="points",
        ),
    },
    smoke={"steps": 2, "per_class": 2, "prior_steps": 2},
    paper_scale={"steps": 2400, "lr": 0.02, "kernels": 64, "prior_steps": 60000, "prior_width": 64},
)
