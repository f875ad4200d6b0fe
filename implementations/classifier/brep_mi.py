r"""BREP-MI: inversion from predicted labels alone, by moving away from the decision boundary.

Paper: "Label-Only Model Inversion Attacks via Boundary Repulsion", Mostafa Kahla, Si Chen, Hoang Anh Just, Ruoxi Jia,
CVPR 2022. https://arxiv.org/abs/2203.01925

Idea. The adversary sees only which class the target names. A picture deep inside a class shows it better than one at its edge,
and labels are enough to tell where the edge is: sample codes on a sphere around the present one in the latent space of a
public GAN, and ask for their labels. Those that leave the class point to the boundary; step the other way. When nearly the
whole sphere stays inside, the boundary is far, so enlarge the sphere and go on. The code ends near the middle of the class.

Mathematics. For unit vectors $u_1, \dots, u_N$ and radius $R$, let $\Phi(z) = 0$ where the target names the class $y$ for
$G(z)$ and $-1$ where it does not. The direction away from the boundary and the step are (Eq. 3)

$$\widehat M(z, R) = \frac1N \sum_{n=1}^{N} \Phi(z + R\,u_n)\,u_n, \qquad z \leftarrow z + \alpha\,\widehat M(z, R),$$

and $R \leftarrow \gamma R$ with $\gamma > 1$ when all points stay inside.

Deviations
1. The prior is the small hinge GAN of `common.priors`, the same that GMI uses here.
2. All classes move in one batch, each with its own radius; a class that has not grown its sphere for `patience` rounds stops.
3. Fewer points on the sphere and fewer rounds than in the paper, and no growth of the step with the radius beyond `max_step`
   (official code: at most 3).
4. Ends at the last code, as Algorithm 1 does; the official code reports the code at the last enlargement.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.priors import GanConfig, Prior, public_gan
from ..common.training import in_batches
from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, LabelOnly
from .setting import ClassifierSetting


@dataclass(frozen=True, kw_only=True)
class BrepMiConfig(Config):
    """Defaults fit a CPU; the paper's values are in the official configuration."""

    direction: str = "repulsion"  # repulsion: away from points outside the class; random: the ablation
    points: int = 16  # N, points on the sphere; paper: 32
    radius: float = 2.0  # R_0, first radius of the sphere; paper: 2
    growth: float = 1.3  # gamma, factor by which the radius grows; paper: 1.3
    inside: float = 0.75  # share of points inside the class at which the sphere grows; official code: 0.75
    max_step: float = 3.0  # largest step; the step is a third of the radius; official code: 3
    clip: float = 1.5  # codes are kept in [-clip, clip]; official code: 1.5
    rounds: int = 30  # T, rounds at most
    patience: int = 20  # rounds at one radius after which a class stops; paper: 1000
    first_batch: int = 500  # random codes asked at once while looking for a first one in each class
    first_limit: int = 20000  # random codes asked at most for that
    prior_steps: int = 1200  # generator updates of the GAN on public pictures
    prior_width: int = 12  # channels of the GAN's finest layer
    prior_seed: int = 0  # seed of the GAN's training; apart from `seed` so that one prior serves all seeds

    def __post_init__(self):
        require(self.direction in ("repulsion", "random"), f"direction must be repulsion or random, not {self.direction!r}")
        require(self.radius > 0 and self.growth > 1, "radius must be positive and growth larger than 1")
        require(0 < self.inside <= 1, f"inside must lie in (0, 1], not {self.inside}")
        require(min(self.points, self.rounds, self.patience, self.first_batch) >= 1, "counts must be at least 1")


def sphere(count: int, classes: int, latent: int, radius: Tensor, random: torch.Generator) -> Tensor:
    """Offsets (C, N, Z), uniform on spheres of the given radii (C,) (Algorithm 1)."""
    offsets = torch.randn(classes, count, latent, generator=random, device=radius.device)
    return offsets * (radius[:, None] / offsets.norm(dim=2))[:, :, None]


def repulsion(offsets: Tensor, inside: Tensor, radius: Tensor) -> Tensor:
    """Minus the mean unit offset of the points outside the class, (C, Z): away from the boundary (Eq. 3).

    `offsets` is (C, N, Z), `inside` (C, N) boolean. Points inside count 0, points outside -1.
    """
    outside = (~inside).to(offsets.dtype)
    return -(outside[:, :, None] * offsets).mean(dim=1) / radius[:, None]


def first_codes(
    oracle: LabelOnly, prior: Prior, classes: int, config: BrepMiConfig, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A random code inside each class (C, Z) and whether one was found (C,), by asking labels of random pictures."""
    codes = torch.zeros(classes, prior.generator.latent, device=oracle.device)
    found = torch.zeros(classes, dtype=torch.bool, device=oracle.device)
    asked = 0
    while not found.all() and asked < config.first_limit:
        z = prior.sample(config.first_batch, random).clamp(-config.clip, config.clip)
        labels = oracle(in_batches(prior.generator, z))
        asked += len(z)
        for c in (~found).nonzero().flatten().tolist():
            hits = (labels == c).nonzero().flatten()
            if len(hits):
                codes[c], found[c] = z[hits[0]], True
    return codes, found


def attack(oracle: LabelOnly, knowledge: Knowledge, config: BrepMiConfig) -> Reconstruction:
    """One picture a class, (classes, 1, c, s, s). Classes in which no first code was found keep the zero code."""
    random = config.generator(oracle.device)
    options = GanConfig(steps=config.prior_steps, width=config.prior_width, seed=config.prior_seed)
    prior = public_gan(knowledge.public_images, options)
    z, found = first_codes(oracle, prior, knowledge.num_classes, config, random)
    first_queries = oracle.queries
    classes = torch.arange(len(z), device=oracle.device)
    radius = torch.full((len(z),), config.radius, device=oracle.device)
    waited = torch.zeros(len(z), device=oracle.device)
    history: dict[str, list[float]] = {"mean radius": [], "classes still moving": []}
    snapshots = [prior.generator(z)[:, None]]
    for step in range(config.rounds):
        active = (found & (waited < config.patience)).nonzero().flatten()
        if not len(active):
            break
        r, y = radius[active], classes[active]
        offsets = sphere(config.points, len(active), z.shape[1], r, random)  # (A, N, Z)
        around = (z[active][:, None] + offsets).flatten(0, 1)
        inside = (oracle(in_batches(prior.generator, around)) == y.repeat_interleave(config.points)).view(len(active), -1)
        if config.direction == "repulsion":
            direction = repulsion(offsets, inside, r)
        else:  # as long a step, in no particular direction
            direction = sphere(1, len(active), z.shape[1], repulsion(offsets, inside, r).norm(dim=1), random)[:, 0]
        stride = (r / 3).clamp(max=config.max_step)[:, None]
        moved = (z[active] + stride * direction).clamp(-config.clip, config.clip)
        stays = oracle(in_batches(prior.generator, moved)) == y
        z[active[stays]] = moved[stays]
        grows = inside.float().mean(dim=1) > config.inside
        radius[active] = torch.where(grows, r * config.growth, r)
        waited[active] = torch.where(grows, 0.0, waited[active] + 1)
        history["mean radius"].append(radius[found].mean().item())
        history["classes still moving"].append(float(len(active)))
        if (step + 1) % max(1, config.rounds // 5) == 0:
            snapshots.append(prior.generator(z)[:, None])
    notes = {
        "prior_seconds": prior.seconds,
        "classes_found": found.float().mean().item(),
        "first_queries": float(first_queries),
        "queries_per_class": oracle.queries / len(z),
        "final_radius": radius[found].mean().item() if found.any() else config.radius,
    }
    return Reconstruction(prior.generator(z)[:, None], history, snapshots, notes)


EXPERIMENT = Experiment(
    paper="brep_mi",
    setting=ClassifierSetting,
    config=BrepMiConfig(),
    attack=attack,
    knowledge=("public-images", "num-classes"),
    ablations={
        "random_walk": Run(says="steps as long, in random directions, for as many rounds", config={"direction": "random"}),
    },
    references={"gmi": Run(says="GMI, with the target's weights", paper="gmi")},
    claims={
        "labels-suffice": Claim(
            check=lambda method, runs: (
                method["accuracy_top1"] >= 0.5 * runs["gmi"]["accuracy_top1"]
                and method["accuracy_top1"] >= runs["random_walk"]["accuracy_top1"] + 0.12
            ),
            ablation="random_walk",
        ),
    },
    smoke={"rounds": 2, "points": 2, "first_limit": 500},
    paper_scale={"points": 32, "rounds": 100000, "patience": 1000, "prior_steps": 60000, "prior_width": 64},
)
