r"""C2FMI: the adversary's own network brings styles near the class, evolution on the target's scores does the rest.

Paper: "C2FMI: Corse-to-Fine Black-Box Model Inversion Attack", Zipeng Ye, Wenjian Luo, Muhammad Luqman Naseem, Xiangkai Yang,
Yuhui Shi, Yan Jia, TDSC 2024. https://ieeexplore.ieee.org/document/10148574

Idea. Where only scores are known, evolution of a generator's styles works but starts far off. C2FMI first goes near the class
by gradients that need no target: those of an embedding network of the adversary's own. A small inverse model learns from
public pictures which features of that network go with which scores of the target. Asked for the scores of a picture that is
surely of the class, it names a feature, and styles are moved until their pictures have it (coarse stage). The best of them
found a population that differential evolution improves by the target's true scores (fine stage).

Mathematics. With the target's scores $F$, the own network $E$, generator $S$, the inverse model $h$ and the scores $v_y$ of a
picture that is surely of class $y$:

$$\hat h = \arg\min_h\; \mathbb E_x \|h(F(x)) - E(x)\|_2^2, \qquad \hat w = \arg\min_w\; \|E(S(w)) - \hat h(v_y)\|_2^2 ,$$

and then, with $r_k, s_k$ random members and $\hat w_*$ the best one, half of the coordinates of a child
$w + a (\hat w_* - w) + b \sum_{k=1}^{4} (w_{r_k} - w_{s_k})$ replace those of $w$ where this raises $F_y(S(w))$.

Deviations
1. A small style-based generator of the public pictures stands for StyleGAN2. Public pictures have no names here: the embedding
   network is trained to tell pictures apart (`classifier.embedder`), not people as the official one (CASIA-WebFace); its
   features have length 1 and 32 entries, the official ones are logits of 10,575 people.
2. A narrower inverse model without dropout and a short training; scores enter as in the official code: logarithms plus 50,
   lifted to be nonnegative, scaled to length 1.
3. The score of other classes in $v_y$ is a config field: the official code puts random numbers around 1e-18 there at each step.
4. Fewer styles, generations and members; in return the pull to the best member is stronger. Fitness of parents is kept, not
   asked again, which halves the queries. Noise on styles is left out: its strength is 0 in the official script.
5. In the last generations the official code lowers the difference weight b; here it falls linearly over the last tenth.
6. The best `per_class` members are returned (official code: the best one). `coarse=False` and `generations=0` are ablations.
7. The text of the paper was not at hand: all of this is from the official code (main_attack.py, utils/DE.py and
   utils/train_inv.py).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.priors import Prior
from ..common.style_gan import StyleGanConfig, style_gan
from ..common.training import in_batches, seeded_weights
from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, Scores
from .embedder import Embedder, own_embedder
from .gmi import snapshot_steps
from .judging import recognised
from .setting import ClassifierSetting
from .tb_mia import truncate


@dataclass(frozen=True, kw_only=True)
class C2fmiConfig(Config):
    """Defaults are for 32-pixel pictures on a CPU."""

    coarse: bool = True  # False: no feature matching, evolution starts from random styles (ablation)
    starts: int = 6  # styles of each class in the coarse stage; official script: 16
    coarse_steps: int = 20  # of feature matching; official script: 20
    coarse_lr: float = 0.05  # of Adam on styles; official script: 0.02
    background: float = 1e-6  # score of the other classes in the vector of a sure picture; official code: about 1e-18
    kept: int = 4  # best starts, by the target's score, that found the population; official script: 10 of 16
    population: int = 12  # members for each class; official code: 32
    generations: int = 20  # of differential evolution; official script: 500
    pull: float = 0.1  # a, share of the way to the best member; official code: 0.02
    difference: float = 0.1  # b, weight of each of the random differences; official code: 0.1
    pairs: int = 4  # random differences in each child; official code: 4
    inherited: float = 0.5  # share of coordinates that a child keeps of its parent; official code: 0.5
    per_class: int = 2  # best members returned for each class; official code: 1
    features: int = 32  # of the embedding network; official: 10,575 logits
    embedder_steps: int = 1200  # of training of the embedding network
    inverse_width: int = 128  # of both hidden layers of the inverse model; official code: 4096
    inverse_steps: int = 2400  # of training of the inverse model; official script: 20 epochs of 150,000 pictures
    inverse_lr: float = 1e-3  # of Adam there; official script: 0.001
    prior_steps: int = 1200  # generator updates of the GAN on public pictures
    prior_width: int = 12  # channels of the GAN's finest layer
    prior_seed: int = 0  # seed of GAN and embedding network; apart from `seed` so that they serve all seeds

    def __post_init__(self):
        require(3 <= self.kept <= self.starts, "3 <= kept <= starts is needed: blends are of three")
        require(self.per_class <= self.kept <= self.population, "per_class <= kept <= population is needed")
        require(0 <= self.inherited < 1, f"inherited must lie in [0, 1), not {self.inherited}")
        require(0 < self.background < 1, f"background must lie in (0, 1), not {self.background}")
        require(self.generations >= 0, f"generations must not be negative, not {self.generations}")
        counts = min(self.coarse_steps, self.per_class, self.pairs, self.inverse_steps, self.embedder_steps)
        require(counts >= 1, "coarse_steps, per_class, pairs, inverse_steps and embedder_steps must be at least 1")


class InverseModel(nn.Module):
    """h: the target's scores (B, C) to features (B, F) of the adversary's own network."""

    def __init__(self, classes: int, features: int, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(classes, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2), nn.Linear(width, features)
        )

    def forward(self, scores: Tensor) -> Tensor:
        return self.layers(F.normalize(truncate(scores, scores.shape[1]), dim=1))


def train_inverse(scores: Tensor, features: Tensor, config: C2fmiConfig) -> InverseModel:
    """Least squares from scores (N, C) to features (N, F) of public pictures; frozen."""
    random = config.generator(scores.device)
    with seeded_weights(config.seed):
        inverse = InverseModel(scores.shape[1], features.shape[1], config.inverse_width)
    inverse.to(scores.device)
    optimizer = torch.optim.Adam(inverse.parameters(), config.inverse_lr)
    for _ in range(config.inverse_steps):
        chosen = torch.randint(len(scores), (128,), generator=random, device=scores.device)
        loss = F.mse_loss(inverse(scores[chosen]), features[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return inverse.eval().requires_grad_(False)


def sure_scores(classes: int, background: float, device: torch.device) -> Tensor:
    """v_y for every class y, (C, C): nearly all of the score on the class, `background` on each other one."""
    others = torch.full((classes, classes), background, device=device)
    return others.fill_diagonal_(1 - (classes - 1) * background)


def matching_loss(embedded: Tensor, wanted: Tensor) -> Tensor:
    """|E(S(w)) - h(v_y)|^2, (B,), for features (B, F)."""
    return (embedded - wanted).square().sum(dim=1)


def coarse_stage(prior: Prior, embedder: Embedder, wanted: Tensor, w: Tensor, config: C2fmiConfig) -> tuple[Tensor, list]:
    """Adam on styles (B, Z) towards wanted features (B, F), with no query to the target; styles and the curve of the loss."""
    w = w.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([w], lr=config.coarse_lr)
    curve = []
    for _ in range(config.coarse_steps):
        loss = matching_loss(embedder(prior.generator.synthesis(w)), wanted)
        (w.grad,) = torch.autograd.grad(loss.sum(), w)
        optimizer.step()
        curve.append(loss.mean().item())
    return w.detach(), curve


def extended(founders: Tensor, strangers: Tensor, random: torch.Generator) -> Tensor:
    """Founders (C, k, Z) and blends of three of them with strangers (C, n, Z): a population (C, k + n, Z)."""
    order = torch.rand(*strangers.shape[:2], founders.shape[1], generator=random, device=founders.device).argsort(dim=2)
    one, two, three = (take(founders, order[:, :, i]) for i in range(3))
    blends = 0.7 * (0.5 * (0.5 * (one + two) + three)) + 0.3 * strangers
    return torch.cat([founders, blends], dim=1)


def take(population: Tensor, chosen: Tensor) -> Tensor:
    """Members (C, n, Z) of a population (C, P, Z) by index (C, n)."""
    return population.gather(1, chosen[:, :, None].expand(-1, -1, population.shape[2]))


def children_of(population: Tensor, fitness: Tensor, difference: float, config: C2fmiConfig, random: torch.Generator) -> Tensor:
    """One child of each member, (C, P, Z): pulled to the best, moved by random differences, crossed with its parent."""
    classes, count, _ = population.shape
    best = take(population, fitness.argmax(dim=1, keepdim=True))
    child = population + config.pull * (best - population)
    for _ in range(config.pairs):
        one, two = torch.randint(count, (2, classes, count), generator=random, device=population.device)
        child = child + difference * (take(population, one) - take(population, two))
    keep = torch.rand(population.shape, generator=random, device=population.device) < config.inherited
    return torch.where(keep, population, child)


def fine_stage(
    score: Callable[[Tensor], Tensor], population: Tensor, config: C2fmiConfig, random: torch.Generator
) -> tuple[Tensor, Tensor, list[float], list[Tensor]]:
    """Differential evolution of styles (C, P, Z): a child takes its parent's place where the target scores it higher.

    `score` gives each style's score of its class, (C, P). The population, its scores, the curve of the best and the best styles
    (C, 1, Z) on the way.
    """
    fitness = score(population)
    fall = max(1, config.generations // 10)
    curve, snapshots = [fitness.max(dim=1).values.mean().item()], []
    for generation in range(config.generations):
        difference = config.difference * min(1.0, (config.generations - generation) / fall)
        children = children_of(population, fitness, difference, config, random)
        scored = score(children)
        better = scored > fitness
        population = torch.where(better[:, :, None], children, population)
        fitness = torch.where(better, scored, fitness)
        curve.append(fitness.max(dim=1).values.mean().item())
        if generation in snapshot_steps(config.generations, 4):
            snapshots.append(take(population, fitness.argmax(dim=1, keepdim=True)))
    return population, fitness, curve, snapshots


def attack(oracle: Scores, knowledge: Knowledge, config: C2fmiConfig) -> Reconstruction:
    """Pictures (classes, per_class, c, s, s), the best first."""
    public, classes, device = knowledge.public_images, knowledge.num_classes, oracle.device
    random = config.generator(device)
    prior = style_gan(public, StyleGanConfig(steps=config.prior_steps, width=config.prior_width, seed=config.prior_seed))
    draw = prior.generator.synthesis

    def average_styles(count: int, of: int) -> Tensor:
        """Means of a few random styles, (C, count, Z)."""
        return prior.generator.mapping(prior.sample(classes * count * of, random)).view(classes, count, of, -1).mean(dim=2)

    def own_scores(w: Tensor) -> Tensor:
        """The target's score of each class for its own styles (C, n, Z): (C, n)."""
        return in_batches(lambda part: oracle(draw(part)), w.flatten(0, 1)).view(*w.shape[:2], -1).diagonal(dim1=0, dim2=2).T

    def shown(w: Tensor) -> Tensor:
        return in_batches(draw, w.flatten(0, 1)).view(*w.shape[:2], *public.shape[1:])

    starts = average_styles(config.starts, 2)
    history: dict[str, list[float]] = {"matching loss": []}
    trajectory, notes = [shown(starts[:, :1])], {"prior_seconds": prior.seconds}
    if config.coarse:
        embedder = own_embedder(public, config.features, config.embedder_steps, config.prior_seed)
        features, scores = in_batches(embedder, public), in_batches(oracle, public)
        inverse = train_inverse(scores, features, config)
        wanted = inverse(sure_scores(classes, config.background, device)).repeat_interleave(config.starts, dim=0)
        found, history["matching loss"] = coarse_stage(prior, embedder, wanted, starts.flatten(0, 1), config)
        starts = found.view_as(starts)
        explained = matching_loss(inverse(scores), features).mean() / matching_loss(features.mean(dim=0), features).mean()
        notes["inverse_error"] = explained.item()
        trajectory.append(shown(starts[:, :1]))
    founders = take(starts, own_scores(starts).topk(config.kept, dim=1).indices)
    population = extended(founders, average_styles(config.population - config.kept, 3), random)
    population, fitness, history["best score"], snapshots = fine_stage(own_scores, population, config, random)
    trajectory += [shown(best) for best in snapshots]
    best = take(population, fitness.topk(config.per_class, dim=1).indices)
    return Reconstruction(shown(best), history, trajectory, notes | {"best_score": history["best score"][-1]})


EXPERIMENT = Experiment(
    paper="c2fmi",
    setting=ClassifierSetting,
    config=C2fmiConfig(),
    attack=attack,
    knowledge=("public-images", "num-classes"),
    ablations={
        "random_starts": Run(
            says="no coarse stage: evolution from random styles; its eight further generations ask what the inverse model did",
            config={"coarse": False, "generations": 28},
        ),
        "coarse_only": Run(says="no fine stage: the best of the coarse stage and its blends", config={"generations": 0}),
    },
    references={"tb_mia": Run(says="TB-MIA: scores are decoded to pictures at once", paper="tb_mia")},
    claims={
        "coarse-stage-helps": Claim(
            check=lambda method, runs: (
                recognised(method) >= recognised(runs["random_starts"]) + 0.08
                and method["feature_distance"] <= runs["random_starts"]["feature_distance"] - 0.4
            ),
            ablation="random_starts",
        ),
        "fine-stage-helps": Claim(
            check=lambda method, runs: recognised(method) >= recognised(runs["coarse_only"]) + 0.1,
            ablation="coarse_only",
        ),
    },
    smoke={
        "starts": 3,
        "kept": 3,
        "population": 4,
        "generations": 1,
        "coarse_steps": 1,
        "embedder_steps": 1,
        "inverse_steps": 1,
        "per_class": 1,
        "prior_steps": 2,
    },
    paper_scale={
        "starts": 16,
        "coarse_lr": 0.02,
        "background": 1e-18,
        "kept": 10,
        "population": 32,
        "generations": 500,
        "pull": 0.02,
        "per_class": 1,
        "features": 512,
        "inverse_width": 4096,
        "inverse_steps": 23400,
        "prior_steps": 60000,
        "prior_width": 64,
    },
)
