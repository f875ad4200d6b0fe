r"""MIRROR: styles of a style-based generator are searched, and clipped to the range that styles of random codes have.

Paper: "MIRROR: Model Inversion for Deep Learning Network with High Fidelity", Shengwei An, Guanhong Tao, Qiuling Xu,
Yingqi Liu, Guangyu Shen, Yuan Yao, Jingwei Xu, Xiangyu Zhang, NDSS 2022.
https://www.ndss-symposium.org/ndss-paper/auto-draft-203/

Idea. A style-based generator describes a picture by styles w, in which traits lie further apart than in its random codes, so
that a search gets far. Too far: free styles leave what the generator learnt and end in patterns that please the target alone.
MIRROR keeps them inside. The last step of the network that makes styles is a leaky ReLU; before it (space P) the coordinates of
random styles are close to normal, so each is clipped to its mean plus or minus one standard deviation. The search starts from
the random styles whose pictures the target scores highest and follows its gradients, or, where only scores are known, breeds
them: parents by score, coordinates of either, small noise on a few, the same clipping.

Mathematics. With the mapping's styles $w$, leaky ReLU $\sigma$, $p = \sigma^{-1}(w)$, mean $\mu$ and deviation $s$ of $p$ over
random codes, synthesis $S$ and the target's probability $F_y$:

$$\hat w = \arg\min_w\; -\log F_y\big(S(w)\big) \quad \text{subject to} \quad
\sigma(\mu - \kappa s) \le w \le \sigma(\mu + \kappa s), \qquad \kappa = 1.$$

Deviations
1. A small style-based generator of the public pictures stands for StyleGAN. As in the official code one style serves all
   layers, random and searched styles are drawn to the mean style in the coarse layers when a picture is made, and the bounds
   are those of styles before that.
2. Fewer steps and a smaller pool. The factor 10 on the loss is left out: Adam does not see it.
   Each picture keeps the style of its own smallest loss (official code: the batch of its smallest mean loss).
3. Black-box form (`black_box`): one module takes one kind of oracle, so that the white-box model is first narrowed to an oracle
   of scores, which is all that `genetic` is handed. The best of each last population are returned (official code: the best).
4. Crossover: a coordinate comes from the first parent with the probability that fits its share of fitness. The official code
   forms that share of log-scores, which are negative, and so prefers the worse parent; here the better one is preferred.
5. No early stop at a score of 0.95: method and ablation spend the same queries.
6. `clip=0` and `evolve=False` are the ablations. The text of the paper was not at hand: all of this is from the official code.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.style_gan import StyleGanConfig, style_gan, to_p, to_w
from ..common.training import in_batches
from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, Scores, WhiteBox
from .gmi import identity_loss, snapshot_steps
from .judging import recognised
from .setting import ClassifierSetting

Draw = Callable[[Tensor], Tensor]  # styles (B, Z) to pictures (B, c, s, s)
Bounds = tuple[Tensor, Tensor]  # smallest and largest value of each coordinate of a style, both (Z,)


@dataclass(frozen=True, kw_only=True)
class MirrorConfig(Config):
    """Defaults are for 32-pixel pictures on a CPU."""

    search: str = "gradient"  # gradient (white-box) or genetic (from scores alone)
    clip: float = 1.0  # kappa, bound of each coordinate in P, in standard deviations; 0: none (ablation); official code: 1
    pool: int = 2000  # random styles, for the statistics and the starts; official code: 100,000
    truncation: float = 0.7  # psi, factor on a style's distance to the mean style; official code: 0.7
    truncated_layers: int = 2  # coarsest layers of four in which it is applied; official code: 8 of 14
    per_class: int = 2  # pictures of each class; official code: 8 white-box, 1 black-box
    lr: float = 0.25  # of Adam on styles; official code: 0.25
    ramp_up: float = 0.05  # share of the steps in which the learning rate rises; official code: 0.05
    ramp_down: float = 0.25  # share of the steps in which it falls to 0; official code: 0.25
    flip: float = 0.5  # probability that a step shows the target mirrored pictures; official code: 0.5
    steps: int = 120  # of the gradient search; official code: 20,000
    population: int = 20  # styles bred for each class; official script: 1000
    generations: int = 20  # of the genetic search; official code: 100
    mutated: float = 0.1  # share of coordinates that noise is added to; official code: 0.1
    mutation: float = 0.1  # largest noise in P, in standard deviations; official code: 0.1
    evolve: bool = True  # False: each generation is drawn anew instead of bred (ablation)
    prior_steps: int = 1200  # generator updates of the GAN on public pictures
    prior_width: int = 12  # channels of the GAN's finest layer
    prior_seed: int = 0  # seed of the GAN's training; apart from `seed` so that one prior serves all seeds

    def __post_init__(self):
        require(self.search in ("gradient", "genetic"), f"search must be gradient or genetic, not {self.search!r}")
        require(self.clip >= 0, f"clip must not be negative, not {self.clip}")
        require(0 < self.ramp_up <= 1 and 0 < self.ramp_down <= 1, "ramp_up and ramp_down must lie in (0, 1]")
        require(0 <= self.flip <= 1 and 0 <= self.mutated <= 1, "flip and mutated must lie in [0, 1]")
        require(min(self.steps, self.generations, self.per_class) >= 1, "steps, generations, per_class must be at least 1")
        require(self.per_class <= self.population <= self.pool, "per_class <= population <= pool is needed")
        require(self.population >= 2, "a population needs two styles")


def style_bounds(styles: Tensor, clip: float) -> Bounds:
    """sigma(mu - kappa s) and sigma(mu + kappa s), statistics over random styles (N, Z) in P; infinite for kappa = 0."""
    p = to_p(styles)
    mean, spread = p.mean(dim=0), clip * p.std(dim=0, correction=0)
    if clip == 0:
        return torch.full_like(mean, -torch.inf), torch.full_like(mean, torch.inf)
    return to_w(mean - spread), to_w(mean + spread)


def clipped(w: Tensor, bounds: Bounds) -> Tensor:
    """Styles (..., Z) inside the bounds: the leaky ReLU keeps order, so that clipping in W is clipping in P."""
    return torch.maximum(torch.minimum(w, bounds[1]), bounds[0])


def learning_rate(step: int, config: MirrorConfig) -> float:
    """Rises linearly, stays, falls along a cosine."""
    t = (step + 1) / config.steps
    fall = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / config.ramp_down))
    return config.lr * fall * min(1.0, t / config.ramp_up)


def search(
    oracle: WhiteBox, draw: Draw, w: Tensor, labels: Tensor, bounds: Bounds, config: MirrorConfig, random: torch.Generator
) -> tuple[Tensor, dict[str, list[float]], list[Tensor]]:
    """Adam on styles w (B, Z) with clipping after each step; the best styles met, history, snapshots of styles."""
    w = w.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([w], lr=config.lr)
    best, least = w.detach().clone(), torch.full((len(w),), torch.inf, device=w.device)
    history: dict[str, list[float]] = {"cross-entropy": []}
    snapshots = []
    for step in range(config.steps):
        optimizer.param_groups[0]["lr"] = learning_rate(step, config)
        images = draw(w)
        mirror = torch.rand(1, generator=random, device=w.device).item() < config.flip
        loss = identity_loss(oracle(images.flip(3) if mirror else images), labels)  # (B,)
        better = loss.detach() < least
        best[better], least[better] = w.detach()[better], loss.detach()[better]
        (w.grad,) = torch.autograd.grad(loss.sum(), w)
        optimizer.step()
        with torch.no_grad():
            w.copy_(clipped(w, bounds))
        history["cross-entropy"].append(loss.mean().item())
        if step in snapshot_steps(config.steps):
            snapshots.append(w.detach().clone())
    return best, history, snapshots


def crossover(parents: Tensor, fitness: Tensor, random: torch.Generator) -> Tensor:
    """Children (C, n, Z) of parents (C, 2, n, Z) with log-scores (C, 2, n): the better parent gives more coordinates."""
    share = fitness[:, 1] / (fitness[:, 0] + fitness[:, 1]).clamp(max=-1e-12)  # of the first parent; log-scores are negative
    drawn = torch.rand(parents[:, 0].shape, generator=random, device=parents.device)
    return torch.where(drawn < share[:, :, None], parents[:, 0], parents[:, 1])


def mutate(w: Tensor, deviation: Tensor, config: MirrorConfig, random: torch.Generator) -> Tensor:
    """Uniform noise in P, in units of its deviation (Z,), on a random share of the coordinates of styles (C, n, Z)."""
    chosen, noise = torch.rand(2, *w.shape, generator=random, device=w.device)
    return to_w(to_p(w) + (chosen < config.mutated) * config.mutation * deviation * (2 * noise - 1))


@torch.no_grad()
def genetic(
    oracle: Scores,
    draw: Draw,
    sample: Callable[[int], Tensor],
    population: Tensor,
    bounds: Bounds,
    deviation: Tensor,
    config: MirrorConfig,
    random: torch.Generator,
) -> tuple[Tensor, dict[str, list[float]], list[Tensor]]:
    """Breeds styles (C, n, Z), each class its own, by the class's log-score; sorted populations, history, best styles."""
    classes, count, size = population.shape

    def sorted_by_fitness(w: Tensor) -> tuple[Tensor, Tensor]:
        log_scores = in_batches(lambda part: oracle(draw(part)).log().clamp(min=-100.0), w.flatten(0, 1))
        fitness = log_scores.view(classes, count, -1).diagonal(dim1=0, dim2=2).T  # (C, n): each class's own score
        order = fitness.sort(dim=1, descending=True)
        return w.gather(1, order.indices[:, :, None].expand_as(w)), order.values

    population, fitness = sorted_by_fitness(population)
    history: dict[str, list[float]] = {"best log-score": [fitness[:, 0].mean().item()]}
    snapshots = [population[:, 0]]
    for _ in range(config.generations):
        if config.evolve:
            chosen = torch.multinomial(fitness.softmax(dim=1), 2 * (count - 1), replacement=True, generator=random)
            parents = population.gather(1, chosen[:, :, None].expand(-1, -1, size)).view(classes, 2, count - 1, size)
            children = crossover(parents, fitness.gather(1, chosen).view(classes, 2, count - 1), random)
            children = mutate(children, deviation, config, random)
        else:
            children = sample(classes * (count - 1)).view(classes, count - 1, size)
        population, fitness = sorted_by_fitness(torch.cat([population[:, :1], clipped(children, bounds)], dim=1))
        history["best log-score"].append(fitness[:, 0].mean().item())
        snapshots.append(population[:, 0])
    kept = sorted(snapshot_steps(len(snapshots)))
    return population, history, [snapshots[i] for i in kept]


def attack(oracle: WhiteBox, knowledge: Knowledge, config: MirrorConfig) -> Reconstruction:
    """Pictures (classes, per_class, c, s, s)."""
    public, classes = knowledge.public_images, knowledge.num_classes
    random = config.generator(oracle.device)
    prior = style_gan(public, StyleGanConfig(steps=config.prior_steps, width=config.prior_width, seed=config.prior_seed))
    generator = prior.generator
    scores = Scores(lambda images: oracle(images).softmax(dim=1), oracle.device)  # all that the black-box form may see

    def sample(count: int) -> Tensor:
        return generator.mapping(prior.sample(count, random))

    def draw(w: Tensor) -> Tensor:
        return generator.synthesis(generator.truncate(w, config.truncation, config.truncated_layers))

    styles = sample(config.pool)  # (N, Z)
    bounds = style_bounds(styles, config.clip)
    ranked = in_batches(lambda w: scores(draw(w)), styles)  # (N, C)
    if config.search == "genetic":
        population = styles[ranked.topk(config.population, dim=0).indices.T[:classes]]  # (C, n, Z)
        deviation = to_p(styles).std(dim=0, correction=0)
        found, history, snapshots = genetic(scores, draw, sample, population, bounds, deviation, config, random)
        w, trajectory = found[:, : config.per_class].flatten(0, 1), [draw(best)[:, None] for best in snapshots]
    else:
        starts = styles[ranked.topk(config.per_class, dim=0).indices.T[:classes]].flatten(0, 1)  # (C * K, Z)
        labels = torch.arange(classes, device=oracle.device).repeat_interleave(config.per_class)
        w, history, snapshots = search(oracle, draw, starts, labels, bounds, config, random)
        trajectory = [in_batches(draw, found).view(classes, config.per_class, *public.shape[1:]) for found in snapshots]
    images = in_batches(draw, w).view(classes, config.per_class, *public.shape[1:])
    outside = (to_p(w) - to_p(styles).mean(dim=0)).abs() / to_p(styles).std(dim=0, correction=0)
    return Reconstruction(images, history, trajectory, {"prior_seconds": prior.seconds, "p_distance": outside.mean().item()})


EXPERIMENT = Experiment(
    paper="mirror",
    setting=ClassifierSetting,
    config=MirrorConfig(),
    attack=attack,
    knowledge=("public-images", "num-classes"),
    ablations={
        "no_clipping": Run(says="styles may go anywhere", config={"clip": 0.0}),
        "random_search": Run(
            says="scores only; each generation is drawn at random instead of bred, the best is kept",
            config={"search": "genetic", "evolve": False},
        ),
    },
    variants={
        "black_box": Run(says="the genetic search, which sees scores only", config={"search": "genetic"}),
    },
    references={"gmi": Run(says="GMI: codes of a plain GAN, its discriminator in place of clipping", paper="gmi")},
    claims={
        "style-space-clipping": Claim(
            check=lambda method, runs: (
                recognised(method) >= recognised(runs["no_clipping"]) + 0.04
                and method["feature_distance"] <= runs["no_clipping"]["feature_distance"] - 0.5
            ),
            ablation="no_clipping",
        ),
        "genetic-search-needs-scores-only": Claim(
            check=lambda method, runs: recognised(method) >= recognised(runs["random_search"]) + 0.15,
            ablation="random_search",
            run="black_box",
        ),
    },
    smoke={"steps": 2, "per_class": 1, "pool": 100, "population": 3, "generations": 1, "prior_steps": 2},
    paper_scale={
        "pool": 100000,
        "steps": 20000,
        "per_class": 8,
        "truncated_layers": 4,
        "population": 1000,
        "generations": 100,
        "prior_steps": 60000,
        "prior_width": 64,
    },
)
