r"""LOKT: the target's labels taught to surrogates by way of a generator, then a white-box attack on the surrogates.

Paper: "Label-Only Model Inversion Attacks via Knowledge Transfer", Ngoc-Bao Nguyen, Keshigeyan Chandrasegaran, Milad
Abdollahzadeh, Ngai-Man Cheung, NeurIPS 2023. https://arxiv.org/abs/2310.19342

Idea. A target that only names classes has no gradient to follow. LOKT moves what it knows into networks that have one. A
conditional GAN is trained on public pictures whose discriminator also names classes. Which class a generated picture shows is
not taken from the code that it was made of, as in an ordinary ACGAN, but asked of the target. The classifier thereby learns
the target's decisions, the generator learns from the classifier what each class looks like, and so makes the pictures on which
the classifier has most to learn. Further surrogates are taught on pictures of the finished generator, labelled by the target.
An advanced white-box attack (here that of PLG-MI) then inverts the surrogates; the target isn't asked again.

Mathematics. With generator $G$, discriminator $D$, classifier $C$ on the same body as $D$, target $T$ and
$\hat y = T(G(z, y))$, the T-ACGAN minimises

$$L_{D,C} = L_{\mathrm{adv}}(D) + \alpha\, \mathrm{CE}\big(C(G(z, y)), \hat y\big), \qquad
L_G = L_{\mathrm{adv}}(G) + \alpha\, \mathrm{CE}\big(C(G(z, y)), y\big).$$

On $x = G(z, y)$ a surrogate $S$ minimises the mean of $\mathrm{CE}(S(x), \hat y)$ and of the same on augmented $x$, and codes
minimise the mean of $-S_{i,y}(G(z, y)) + \max_{j \ne y} S_{i,j}(G(z, y))$ over surrogates $S_i$.

Deviations
1. The paper's text was not at hand; losses, order of updates and values are those of the official code.
2. Hinge loss, spectral normalisation and an averaged generator instead of binary cross-entropy: the small networks that
   PLG-MI uses here. The first phase without class loss (1,000 of 20,000 steps there) is that GAN, trained with a single class
   and cached, from which all classes start alike. It asks the target nothing. The second phase is run for each attack.
3. Far fewer steps and queries (official code: 5 x 128 labels in each of 19,000 steps, then 500 pictures a class), larger
   learning rates, two small networks as surrogates (official code: up to three DenseNets).
4. Every surrogate learns for a fixed number of passes with AdamW and a one-cycle schedule (official code: SGD, cosine).
5. The variant `public_pictures`, where the target labels as many public pictures in place of generated ones, is ours: on this
   bench, with public pictures of a thousand people taken like the private ones, it does better than the T-ACGAN.
6. The paper inverts surrogates because they beat the T-ACGAN's own classifier; here both do equally well (`classifier_alone`).
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.conditional_gan import ConditionalGenerator, ProjectionDiscriminator, conditional_gan
from ..common.priors import GanConfig
from ..common.progress import progress
from ..common.training import in_batches, jitter, seeded_weights, train_classifier
from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, LabelOnly
from .gmi import snapshot_steps
from .judging import recognised
from .plg_mi import PlgMiConfig, augment, max_margin_loss
from .setting import ClassifierSetting
from .students import StudentCNN

VIEWS = PlgMiConfig()  # crops, turns, light and mirroring as in PLG-MI, which the official code takes over


@dataclass(frozen=True, kw_only=True)
class LoktConfig(Config):
    """Defaults are for 32-pixel pictures on a CPU."""

    asks_about: str = "generated"  # pictures that the target labels: generated, or public (a variant)
    answers: str = "kept"  # the target's labels: kept, or shuffled within each batch, which transfers nothing (ablation)
    attacked: str = "surrogates"  # what the white-box attack inverts: surrogates (paper: S), or classifier (C on D's body)
    alpha: float = 1.5  # weight of the class losses in the T-ACGAN; official code: 1.5
    gan_steps: int = 200  # of the T-ACGAN with class losses; official code: 19000
    discriminator_steps: int = 1  # updates of discriminator and classifier for each of the generator; official code: 5
    batch: int = 56  # pictures a step, each one a query; official code: 128
    gan_lr: float = 2e-3  # of Adam in the T-ACGAN; official code: 0.0002
    ema: float = 0.98  # decay of the moving average that becomes the generator
    samples: int = 60  # pictures of each class that the surrogates learn from, each one a query; official code: 500
    surrogate_widths: tuple[int, ...] = (8, 12)  # channels of each surrogate's first layer; official code: three DenseNets
    surrogate_epochs: int = 5  # passes over those pictures; official code: about 200 passes of 30000 pictures
    lr: float = 0.1  # of Adam on codes; official code: 0.1
    steps: int = 30  # of the search; official code: 600
    views: int = 2  # augmented views of each picture in each step of the search; official code: 2
    per_class: int = 2  # codes searched for each class, and pictures in the end; official code: 5
    prior_steps: int = 1200  # generator updates before the class losses set in; official code: 1000 to 6000
    prior_width: int = 12  # channels of the GAN's finest layer
    prior_seed: int = 0  # seed of that first phase; apart from `seed` so that one serves all seeds

    def __post_init__(self):
        require(self.asks_about in ("generated", "public"), f"asks_about: generated or public, not {self.asks_about!r}")
        require(self.answers in ("kept", "shuffled"), f"answers must be kept or shuffled, not {self.answers!r}")
        require(self.attacked in ("surrogates", "classifier"), f"attacked: surrogates or classifier, not {self.attacked!r}")
        require(self.alpha >= 0, f"alpha must not be negative, not {self.alpha}")
        require(0 <= self.ema < 1, f"ema must lie in [0, 1), not {self.ema}")
        require(len(self.surrogate_widths) >= 1, "surrogate_widths must name at least one network")
        counts = (self.gan_steps, self.discriminator_steps, self.batch, self.samples, self.surrogate_epochs, self.steps)
        require(min(*counts, self.views, self.per_class) >= 1, "counts must be at least 1")


def discriminator_loss(real: Tensor, fake: Tensor, class_logits: Tensor, answers: Tensor, alpha: float) -> Tensor:
    """L_{D,C}: hinge loss of realism scores (B,) plus alpha times the classifier's cross-entropy with the target's labels."""
    adversarial = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    return adversarial + alpha * F.cross_entropy(class_logits, answers)


def generator_loss(fake: Tensor, class_logits: Tensor, wanted: Tensor, alpha: float) -> Tensor:
    """L_G: minus the realism (B,) plus alpha times the classifier's cross-entropy with the class that was asked for."""
    return -fake.mean() + alpha * F.cross_entropy(class_logits, wanted)


def surrogate_loss(network: nn.Module, x: Tensor, answers: Tensor, random: torch.Generator) -> Tensor:
    """Cross-entropy with the target's labels, half on pictures as they are, half on augmented ones."""
    plain, changed = (F.cross_entropy(network(view), answers) for view in (x, augment(x, random, VIEWS)))
    return (plain + changed) / 2


class Judge(nn.Module):
    """D and C on one body: pictures (B, c, s, s) to realism (B,) and class logits (B, K)."""

    def __init__(self, trained: ProjectionDiscriminator, classes: int):
        super().__init__()
        self.trained = trained  # of a single class: its projection is one more linear view of realism
        self.classes = nn.Linear(trained.real.in_features, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trained.stages(x * 2 - 1)  # (B, F, 4, 4)
        realism = self.trained.real(h.flatten(1)).squeeze(1) + h.sum(dim=(2, 3)) @ self.trained.classes.weight[0]
        return realism, self.classes(h.flatten(1))


def for_classes(single: ConditionalGenerator, classes: int, shape: tuple[int, ...], width: int) -> ConditionalGenerator:
    """The generator with a gain and shift for each of `classes` classes, which all start alike."""
    generator = ConditionalGenerator(single.latent, classes, shape[0], shape[1], width).to(single.project.weight.device)
    by_class = (".gain.weight", ".shift.weight")
    state = {name: v.expand(classes, -1) if name.endswith(by_class) else v for name, v in single.state_dict().items()}
    generator.load_state_dict(state)
    return generator


class Asker:
    """The target's labels for a batch of pictures, as the configuration hands them on."""

    def __init__(self, oracle: LabelOnly, config: LoktConfig, random: torch.Generator):
        self.oracle, self.config, self.random = oracle, config, random

    def __call__(self, pictures: Tensor) -> Tensor:
        answers = self.oracle(pictures)
        if self.config.answers == "kept":
            return answers
        return answers[torch.randperm(len(answers), generator=self.random, device=answers.device)]


def train_tacgan(
    make: ConditionalGenerator, judge: Judge, public: Tensor, ask: Asker, config: LoktConfig, random: torch.Generator
) -> tuple[ConditionalGenerator, dict[str, list[float]]]:
    """Trains both in place; the averaged generator and, by step, how often target and classifier name the wanted class."""
    average, device, codes = copy.deepcopy(make), public.device, (config.batch, make.latent)
    optimizer_g = torch.optim.Adam(make.parameters(), config.gan_lr, betas=(0.0, 0.9))
    optimizer_d = torch.optim.Adam(judge.parameters(), config.gan_lr, betas=(0.0, 0.9))
    history: dict[str, list[float]] = {"target names the wanted class": [], "classifier agrees with the target": []}

    def draw() -> tuple[Tensor, Tensor]:
        wanted = torch.randint(make.classes, (config.batch,), generator=random, device=device)
        return make(torch.randn(codes, generator=random, device=device), wanted), wanted

    for _ in progress(range(config.gan_steps), "training the T-ACGAN"):
        fake, wanted = draw()
        loss = generator_loss(*judge(fake), wanted, config.alpha)
        optimizer_g.zero_grad()
        loss.backward()
        optimizer_g.step()
        for _ in range(config.discriminator_steps):
            with torch.no_grad():
                fake, wanted = draw()
            chosen = torch.randint(len(public), (config.batch,), generator=random, device=device)
            real = jitter(public[chosen], random, 1)
            (real_score, real_classes), (fake_score, fake_classes) = judge(real), judge(fake)
            generated = config.asks_about == "generated"
            answers, named = ask(fake if generated else real), fake_classes if generated else real_classes
            loss = discriminator_loss(real_score, fake_score, named, answers, config.alpha)
            optimizer_d.zero_grad()
            loss.backward()
            optimizer_d.step()
        if generated:
            history["target names the wanted class"].append((answers == wanted).float().mean().item())
        history["classifier agrees with the target"].append((named.argmax(dim=1) == answers).float().mean().item())
        with torch.no_grad():
            for kept, new in zip(average.parameters(), make.parameters(), strict=True):
                kept.lerp_(new, 1 - config.ema)
            for kept, new in zip(average.buffers(), make.buffers(), strict=True):
                kept.copy_(new)
    judge.eval().requires_grad_(False)
    return average.eval().requires_grad_(False), history


def taught(pictures: Tensor, answers: Tensor, classes: int, config: LoktConfig, random: torch.Generator) -> list[nn.Module]:
    """The surrogates, taught with labels (N,) of pictures (N, c, s, s); frozen."""
    with seeded_weights(config.seed):
        networks = [StudentCNN(*pictures.shape[1:3], classes, width) for width in config.surrogate_widths]
    for network in networks:

        def loss(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            return surrogate_loss(network, x, y, random)

        network.to(pictures.device)
        train_classifier(
            network, pictures, answers, random, config.surrogate_epochs, "a surrogate", lr=5e-3, augment=False, loss=loss
        )
        network.requires_grad_(False)
    return networks


def attack(oracle: LabelOnly, knowledge: Knowledge, config: LoktConfig) -> Reconstruction:
    """Pictures (classes, per_class, c, s, s). The target is asked while surrogates are taught and never in the search."""
    public, classes, device = knowledge.public_images, knowledge.num_classes, oracle.device
    random = config.generator(device)
    options = GanConfig(steps=config.prior_steps, width=config.prior_width, seed=config.prior_seed)
    first = conditional_gan(public, torch.zeros(len(public), dtype=torch.int64, device=device), 1, options)
    with seeded_weights(config.seed):
        judge = Judge(first.discriminator, classes).to(device).requires_grad_(True).train()
        make = for_classes(first.generator, classes, public.shape[1:], config.prior_width).train()
    ask = Asker(oracle, config, random)
    generator, history = train_tacgan(make, judge, public, ask, config, random)
    if config.asks_about == "generated":
        wanted = torch.arange(classes, device=device).repeat_interleave(config.samples)
        codes = torch.randn(len(wanted), generator.latent, generator=random, device=device)
        pictures = torch.cat([generator(*piece) for piece in zip(codes.split(500), wanted.split(500), strict=True)])
    else:
        chosen = torch.randint(len(public), (classes * config.samples,), generator=random, device=device)
        pictures = jitter(public[chosen], random, 1)
    surrogates = taught(pictures, in_batches(ask, pictures), classes, config, random)
    attacked = surrogates if config.attacked == "surrogates" else [lambda x: judge(x)[1]]
    queries = oracle.queries

    labels = torch.arange(classes, device=device).repeat_interleave(config.per_class)
    z = torch.randn(len(labels), generator.latent, generator=random, device=device).requires_grad_(True)
    optimizer, snapshots = torch.optim.Adam([z], lr=config.lr), []
    history["margin loss"] = []
    for step in range(config.steps):
        images = generator(z, labels)
        views = torch.cat([augment(images, random, VIEWS) for _ in range(config.views)])  # (V * C * K, c, s, s)
        losses = [max_margin_loss(network(views), labels.repeat(config.views)) for network in attacked]
        loss = torch.stack(losses).mean(dim=0)
        (z.grad,) = torch.autograd.grad(config.views * loss.mean(), z)
        optimizer.step()
        history["margin loss"].append(loss.mean().item())
        if step in snapshot_steps(config.steps):
            snapshots.append(images.detach().view(classes, config.per_class, *images.shape[1:]))
    found = generator(z, labels).detach().view(classes, config.per_class, *public.shape[1:])
    return Reconstruction(found, history, snapshots, {"prior_seconds": first.seconds, "queries_per_class": queries / classes})


EXPERIMENT = Experiment(
    paper="lokt",
    setting=ClassifierSetting,
    config=LoktConfig(),
    attack=attack,
    knowledge=("public-images", "num-classes"),
    ablations={
        "shuffled_answers": Run(
            says="the target's labels shuffled within each batch: as many queries, no knowledge", config={"answers": "shuffled"}
        ),
    },
    variants={
        "public_pictures": Run(
            says="as many queries about public pictures: classifier and surrogates learn from those",
            config={"asks_about": "public"},
        ),
        "classifier_alone": Run(says="the T-ACGAN's own classifier is inverted", config={"attacked": "classifier"}),
    },
    references={
        "brep_mi": Run(
            says="BREP-MI with at least as many queries", paper="brep_mi", config={"points": 8, "rounds": 31, "patience": 31}
        ),
    },
    claims={
        "beats-boundary-repulsion": Claim(
            check=lambda method, runs: (
                recognised(method) >= recognised(runs["brep_mi"]) + 0.05
                and method["accuracy_open"] >= runs["brep_mi"]["accuracy_open"] + 0.08
                and method["note_queries_per_class"] <= runs["brep_mi"]["note_queries_per_class"]
            ),
            ablation="shuffled_answers",
        ),
        "surrogates-stand-in": Claim(
            check=lambda method, runs: method["target_accuracy"] >= 0.75,
            ablation="shuffled_answers",
        ),
    },
    smoke={"gan_steps": 2, "batch": 8, "samples": 1, "surrogate_epochs": 1, "steps": 2, "per_class": 1, "prior_steps": 2},
    paper_scale={
        "gan_steps": 19000,
        "discriminator_steps": 5,
        "batch": 128,
        "gan_lr": 0.0002,
        "samples": 500,
        "surrogate_widths": (32, 48, 64),
        "surrogate_epochs": 200,
        "steps": 600,
        "per_class": 5,
        "prior_steps": 1000,
        "prior_width": 64,
    },
)
