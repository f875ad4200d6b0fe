r"""Sparse model inversion: a vision transformer is inverted on the patches that its class token attends to.

Paper: "Sparse Model Inversion: Efficient Inversion of Vision Transformers for Data-Free Applications", Zixuan Hu, Yongxian Wei,
Li Shen, Zhenyi Wang, Lei Li, Chun Yuan, Dacheng Tao, ICML 2024. https://arxiv.org/abs/2510.27186

Idea. Inversion spends the same effort on every part of a picture, and what it draws in the background is noise and things that
merely went along with the class. A transformer takes any subset of patches. So at a few moments of the search the patches are
ranked by the attention that the class token pays them in the last block, and the lowest share is dropped for good: no further
pass, no gradient. Losses stay as they are. In the end a third of the patches is left, most steps were cheap, and a student
learns from the patches that show the class.

Mathematics. With logits $f(x_S)$ of the patches $S$ of picture $x$, the dense loss (DeepInversion without its statistics, which
a transformer has not) is minimised, and at the moments $t_1, t_2, \dots$ with shares $r_1, r_2, \dots$

$$\min_x\; \mathrm{CE}\big(f(x_S), y\big) + \alpha_{tv} R_{TV}(x), \qquad
S \leftarrow \operatorname{top}_{\lfloor (1 - r_i) |S| \rfloor}\; \frac1H \sum_{h=1}^H A_h[\mathrm{cls}, S].$$

Deviations
1. Loss, Adam, jitter, flips and the moving of kept patches along with the picture are the official code's, at 32 pixels with
   4 x 4 patches. Fewer steps, the moments at later shares of them: after a few steps the attention says nothing yet.
2. The official code ranks all patches once more on the finished picture and shows the best; here the patches that were inverted
   to the end are shown. Dropped patches are black, as there.
3. Effort is counted: tokens that pass through the blocks, and multiply-adds by a formula. Seconds are recorded by the
   bench and decide nothing.
4. What the pictures teach is measured as in the official knowledge transfer: the head of a pretrained transformer (here on
   pictures of the public people) is taught by the target on the visible patches (see data_free.py). Quantisation is left out.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, WhiteBox
from .data_free import DataFreeSetting
from .deepinversion import total_variation
from .gmi import snapshot_steps
from .patches import class_attention, patch_mask, watched_patches


@dataclass(frozen=True, kw_only=True)
class SparseMiConfig(Config):
    """Defaults are for 32-pixel pictures and 4 x 4 patches on a CPU."""

    moments: tuple[float, ...] = (0.1, 0.2, 0.3)  # when patches are dropped, as shares of the steps; official: 1/80 to 3/40
    shares: tuple[float, ...] = (0.3, 0.3, 0.3)  # of the patches left, dropped at each moment; official example: four times 0.3
    ranking: str = "attention"  # which go: attention (those with least), random or most-attended (ablations)
    tv_weight: float = 1e-4  # alpha_tv, weight of the total variation; official code, knowledge transfer: 1e-4
    jitter: float = 1 / 8  # largest cyclic shift, as a share of the side; official code: 1/8
    flip: float = 0.5  # probability of a mirrored step; official code: 0.5
    lr: float = 0.25  # of Adam; official code: 0.25
    steps: int = 200  # of the search; official code: 4000
    per_class: int = 4  # reconstructions of each class; official code: batches of 100 pictures of random classes

    def __post_init__(self):
        require(len(self.moments) == len(self.shares), "moments and shares must be equally many")
        require(all(0 <= share < 1 for share in self.shares), f"shares must lie in [0, 1), not {self.shares}")
        at = self.stops
        require(
            at == sorted(set(at)) and all(0 < step < self.steps for step in at), f"moments must rise within steps, not {at}"
        )
        require(self.ranking in RANKINGS, f"ranking must be one of {', '.join(RANKINGS)}, not {self.ranking!r}")
        require(min(self.steps, self.per_class) >= 1, "steps and per_class must be at least 1")
        require(0 <= self.flip <= 1 and self.jitter >= 0, "flip must lie in [0, 1], jitter must not be negative")

    @property
    def stops(self) -> list[int]:
        """The steps at which patches are dropped."""
        return [round(moment * self.steps) for moment in self.moments]


RANKINGS = ("attention", "random", "most-attended")


def narrowed(kept: Tensor, worth: Tensor, share: float) -> Tensor:
    """The floor((1 - share) K) patches of kept (B, K) with the largest worth (B, K), best first."""
    best = worth.topk(math.floor(kept.shape[1] * (1 - share) + 1e-6), dim=1).indices
    return kept.gather(1, best)


def moved_patches(kept: Tensor, down: int, right: int, mirrored: bool, side: int, patch: int) -> Tensor:
    """Where kept patches (B, K) lie after a cyclic shift by pixels and a mirroring, to the nearest place of the grid."""
    rows = (kept // side + math.floor(down / patch + 0.5)) % side
    columns = (kept % side + math.floor(right / patch + 0.5)) % side
    return rows * side + (side - 1 - columns if mirrored else columns)


def multiply_adds(tokens: int, width: int, depth: int) -> int:
    """Of one picture's pass forward through the blocks: projections and perceptron 8 T D^2, attention 2 T^2 D, each block."""
    return depth * (8 * tokens * width**2 + 2 * tokens**2 * width)


def attack(oracle: WhiteBox, knowledge: Knowledge, config: SparseMiConfig) -> Reconstruction:
    """Pictures (classes, per_class, c, s, s), black where patches were dropped."""
    classes, shape, model = knowledge.num_classes, tuple(knowledge.image_shape), oracle.model
    random = config.generator(oracle.device)
    labels = torch.arange(classes, device=oracle.device).repeat_interleave(config.per_class)
    x = torch.randn((len(labels), *shape), generator=random, device=oracle.device, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=config.lr, betas=(0.5, 0.99))
    history: dict[str, list[float]] = {"class loss": [], "patches": []}
    reach, trajectory = int(config.jitter * shape[-1]), []
    effort = {"tokens": 0, "multiply_adds": 0}

    with watched_patches(model) as watch:
        side, patch, width, depth = model.side, model.patch, model.width, len(model.blocks)
        kept = torch.arange(side * side, device=oracle.device).expand(len(labels), -1)

        def shown() -> Tensor:
            return (patch_mask(kept, side, patch) * (x.detach() + 1) / 2).view(classes, config.per_class, *shape)

        for step in range(config.steps):
            if step in config.stops:
                worth = (
                    class_attention(model, watch.tokens)
                    if config.ranking != "random"
                    else torch.rand(kept.shape, generator=random, device=oracle.device)
                )
                sign = -1.0 if config.ranking == "most-attended" else 1.0
                kept = narrowed(kept, sign * worth, config.shares[config.stops.index(step)])
            still = step + 1 in config.stops  # the picture is ranked as it is
            down, right = torch.randint(-reach, reach + 1, (2,), generator=random, device=oracle.device).tolist()
            mirrored = torch.rand((), generator=random, device=oracle.device).item() < config.flip
            view, watch.kept = x, kept
            if not still:
                view = x.roll((down, right), dims=(2, 3))
                view = view.flip(3) if mirrored else view
                watch.kept = moved_patches(kept, down, right, mirrored, side, patch)
            class_loss = F.cross_entropy(oracle((view + 1) / 2), labels)
            (x.grad,) = torch.autograd.grad(class_loss + config.tv_weight * total_variation(x), x)
            optimizer.step()
            with torch.no_grad():
                x.clamp_(-1, 1)
            history["class loss"].append(class_loss.item())
            history["patches"].append(float(kept.shape[1]))
            effort["tokens"] += len(labels) * (1 + kept.shape[1])
            effort["multiply_adds"] += len(labels) * multiply_adds(1 + kept.shape[1], width, depth)
            if step in snapshot_steps(config.steps):
                trajectory.append(shown())
    return Reconstruction(shown(), history, trajectory, {**effort, "patches_left": float(kept.shape[1])})


EXPERIMENT = Experiment(
    paper="sparse_mi",
    setting=DataFreeSetting,
    options={"architecture": "vit", "student": "vit"},
    config=SparseMiConfig(),
    attack=attack,
    knowledge=("num-classes", "image-shape"),
    baselines=("public_mean", "nearest_public"),
    ablations={
        "dense": Run(says="no patch is ever dropped", config={"moments": (), "shares": ()}),
        "random_patches": Run(says="as many patches dropped, by lot", config={"ranking": "random"}),
        "most_attended": Run(says="as many patches dropped, those with most attention", config={"ranking": "most-attended"}),
    },
    claims={
        "sparse-is-faster-at-no-loss": Claim(
            check=lambda method, runs: (
                method["note_multiply_adds"] <= 0.5 * runs["dense"]["note_multiply_adds"]
                and method["student_accuracy"] >= runs["dense"]["student_accuracy"] - 0.02
            ),
            ablation="dense",
            not_reproduced=(
                "The cost falls to 0.41 of dense inversion, but not without loss: a student taught with a third of the patches "
                "is two points less accurate than one taught with all, about 18 against 20 percent of new pictures, and so it "
                "is with a quarter of the patches. A face fills these pictures, so that every patch says something about the "
                "person. Seeds differ by as much, and students of inverted pictures are poor here in any case."
            ),
        ),
        "attention-finds-what-matters": Claim(
            check=lambda method, runs: method["student_accuracy"] >= runs["random_patches"]["student_accuracy"] + 0.03,
            ablation="random_patches",
            not_reproduced=(
                "As many patches chosen by lot teach the student as much. The targets here are small transformers on 32 pixels "
                "whose 64 patches all lie on or beside a face that fills the picture: there is hardly a background to leave "
                "out. Two, four or six pictures a class, a fourth moment, or a target trained twice as long made no difference "
                "beyond what seeds differ by. Ranking, moving and dropping of patches are tested by hand."
            ),
        ),
    },
    smoke={"steps": 14, "per_class": 1},
    paper_scale={"steps": 4000, "moments": (1 / 80, 1 / 40, 1 / 20, 3 / 40), "shares": (0.3, 0.3, 0.3, 0.3), "per_class": 10},
)
