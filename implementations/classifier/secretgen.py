r"""SecretGen: masked training pictures completed without being told whom they show.

Paper: "SecretGen: Privacy Recovery on Pre-trained Models via Distribution Discrimination", Zhuowen Yuan, Fan Wu, Yunhui Long,
Chaowei Xiao, Bo Li, ECCV 2022. https://arxiv.org/abs/2207.12263

Idea. The adversary holds a picture of a victim with a hole in it, and the target. GMI fills the hole with a generator trained
on public pictures and needs the victim's class to steer it. SecretGen finds out the class. The hole is filled in many ways; a
model is surer and steadier on what comes near its training pictures than on other pictures, so the class whose score is
highest on average over all fillings, and over copies of them with parts cut out, is taken for the victim's. The filling that
shows this class with the highest confidence is the start, from which the target's gradient goes on.

Mathematics. For fillings $x_k = G(\text{seen}, z_k)$, $k = 1, \dots, K$, and cuts $t_j$ of a grid, $t_0$ the identity,

$$\hat y = \arg\max_{c} \frac{1}{K (J + 1)} \sum_{k=1}^{K} \sum_{j=0}^{J} p_c\big(t_j(x_k)\big) \qquad
z^{(0)} = z_{k^*},\; k^* = \arg\max_{k:\, \mathrm{named}(x_k) = \hat y} \max_c p_c(x_k),$$

where $\hat y$ is sought among classes that some filling is named as; then $z$ minimises
$-D_{\mathrm{global}}(x) - D_{\mathrm{local}}(x) - \lambda \log p_{\hat y}(x)$ by Nesterov's method.

Deviations
1. The paper's text was not at hand; all steps and values are those of the official code (stage1.py, stage2.py).
2. Hinge losses and spectral normalisation instead of Wasserstein losses with gradient penalty; smaller networks.
3. Fewer fillings and steps. The step is on a sum over the batch, so that it does not depend on how many pictures are attacked
   together (official code: 0.01 on a mean over 64).
4. Cuts are filled with grey 0.5 (official code: the mean of all public pixels). The hole is black for the generator.
5. One start for each picture, as by default in the official code, and a local discriminator's crop at one random place a step.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, WhiteBox
from .gmi import identity_loss, snapshot_steps
from .inpainting import Backbone, FillConfig, trained_backbone
from .judging import recognised
from .masked import MaskedSetting


@dataclass(frozen=True, kw_only=True)
class SecretGenConfig(Config):
    """Defaults are for 32-pixel pictures on a CPU."""

    label: str = "agreement"  # whose class is sought: agreement (paper), first (what one filling is named: ablation) or given
    start: str = "selected"  # first code: selected (the surest filling of the class) or random (as GMI)
    search: str = "target"  # what the search heeds: target and realism (white-box), or realism alone (black-box)
    fillings: int = 24  # K, ways in which each hole is filled; official code: 200
    grid: int = 4  # cuts are the squares of a grid with so many rows, 0 for no cuts; official code: 4
    identity_weight: float = 100.0  # lambda, of the class's loss against realism; official code: 100
    lr: float = 0.001  # step of the search on a sum over pictures; official code: 0.01 on a mean over 64
    momentum: float = 0.9  # of Nesterov's method; official code: 0.9
    clip: float = 1.0  # codes are kept in [-clip, clip]; official code: 1
    steps: int = 40  # of the search; official code: 1500
    fill_steps: int = 600  # updates of the generator that fills holes; official code: 100 passes over 40000 pictures
    fill_width: int = 16  # channels of its finest layers
    fill_seed: int = 0  # seed of its training; apart from `seed` so that one serves all seeds

    def __post_init__(self):
        require(self.label in ("agreement", "first", "given"), f"label: agreement, first or given, not {self.label!r}")
        require(self.start in ("selected", "random"), f"start must be selected or random, not {self.start!r}")
        require(self.search in ("target", "realism"), f"search must be target or realism, not {self.search!r}")
        require(self.grid >= 0, f"grid must not be negative, not {self.grid}")
        require(min(self.fillings, self.steps) >= 1, "fillings and steps must be at least 1")


def cuts(images: Tensor, grid: int, grey: float = 0.5) -> Tensor:
    """Copies (J, B, c, s, s) of pictures (B, c, s, s), each with another square of a grid x grid made grey; J = grid^2."""
    size = images.shape[-1]
    cell = torch.arange(size, device=images.device) * grid // size  # (s,), which row or column of the grid
    square = cell[:, None] * grid + cell[None, :]  # (s, s)
    cut = square == torch.arange(grid**2, device=images.device)[:, None, None]  # (J, s, s)
    return torch.where(cut[:, None, None], grey, images)


def agreement(scores: Tensor, named: Tensor) -> Tensor:
    """The pseudo-label of each picture (N,): the class with the highest mean score among those that some filling is named as.

    `scores` (K, J + 1, N, C) are probabilities of fillings and their cut copies, `named` (K, N) the classes of whole fillings.
    """
    mean = scores.mean(dim=(0, 1))  # (N, C)
    seen = torch.zeros_like(mean, dtype=torch.bool).scatter(1, named.T, True)
    return torch.where(seen, mean, -1.0).argmax(dim=1)


def surest(codes: Tensor, named: Tensor, confidence: Tensor, labels: Tensor) -> Tensor:
    """For each picture the code (N, Z) of the filling that is named as its label with the highest confidence (K, N).

    Where none is, the code of the first filling, a random one.
    """
    matching = torch.where(named == labels, confidence, -1.0)  # (K, N)
    best = matching.argmax(dim=0)  # (N,), 0 where all are -1
    return codes[best, torch.arange(codes.shape[1], device=codes.device)]


@torch.no_grad()
def survey(
    oracle: WhiteBox, backbone: Backbone, seen: Tensor, config: SecretGenConfig, random: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (K, N, Z) of random fillings, scores (K, J + 1, N, C) of them and their cut copies, names (K, N) of the whole."""
    shape = (config.fillings, len(seen), backbone.filler.latent)
    codes = torch.randn(shape, generator=random, device=seen.device).clamp(-config.clip, config.clip)
    scores = []
    for z in codes:  # all pictures at once, so many times as holes are filled
        filled = backbone.filler(seen, z)
        copies = torch.cat([filled[None], cuts(filled, config.grid)]) if config.grid else filled[None]
        scores.append(oracle(copies.flatten(0, 1)).softmax(dim=1).view(len(copies), len(seen), -1))
    scores = torch.stack(scores)
    return codes, scores, scores[:, 0].argmax(dim=2)


def search(
    oracle: WhiteBox, backbone: Backbone, seen: Tensor, start: Tensor, labels: Tensor, config: SecretGenConfig
) -> tuple[Tensor, dict[str, list[float]], list[Tensor]]:
    """Nesterov descent on codes (N, Z) from `start`; pictures (N, c, s, s), history, snapshots."""
    random = config.generator(seen.device)
    z = start.clone().requires_grad_(True)
    optimizer = torch.optim.SGD([z], lr=config.lr, momentum=config.momentum, nesterov=True)
    history: dict[str, list[float]] = {"identity loss": [], "realism": []}
    snapshots = []
    for step in range(config.steps):
        images = backbone.filler(seen, z)
        identity, realism = identity_loss(oracle(images), labels), backbone.realism(images, random)
        loss = -realism + (config.identity_weight * identity if config.search == "target" else 0.0)
        (z.grad,) = torch.autograd.grad(loss.sum(), z)
        optimizer.step()
        with torch.no_grad():
            z.clamp_(-config.clip, config.clip)
        history["identity loss"].append(identity.mean().item())
        history["realism"].append(realism.mean().item())
        if step in snapshot_steps(config.steps):
            snapshots.append(images.detach())
    return backbone.filler(seen, z).detach(), history, snapshots


def attack(oracle: WhiteBox, knowledge: Knowledge, config: SecretGenConfig) -> Reconstruction:
    """Whole pictures (N, c, s, s), in the order in which they are seen with a hole."""
    seen, random = knowledge.blurred_image, config.generator(oracle.device)
    options = FillConfig(steps=config.fill_steps, width=config.fill_width, seed=config.fill_seed)
    backbone = trained_backbone(oracle, knowledge.public_images, seen[:1, -1:], options)
    codes, scores, named = survey(oracle, backbone, seen, config, random)
    labels = {
        "agreement": lambda: agreement(scores, named),
        "first": lambda: named[0],
        "given": lambda: knowledge.labels,
    }[config.label]()
    start = surest(codes, named, scores[:, 0].amax(dim=2), labels) if config.start == "selected" else codes[0]
    images, history, snapshots = search(oracle, backbone, seen, start, labels, config)
    notes = {"fill_seconds": backbone.seconds, "fillings_of_the_class": (named == labels).float().mean().item()}
    return Reconstruction(images, history, snapshots, notes)


EXPERIMENT = Experiment(
    paper="secretgen",
    setting=MaskedSetting,
    config=SecretGenConfig(),
    attack=attack,
    knowledge=("public-images", "blurred-image", "labels"),
    ablations={
        "first_filling": Run(
            says="class and start from one random filling, with as many queries", config={"label": "first", "start": "random"}
        ),
        "label_random_start": Run(
            says="the true class is given, random start: GMI", config={"label": "given", "start": "random"}
        ),
    },
    variants={
        "label_selected_start": Run(says="the true class is given, start selected", config={"label": "given"}),
        "no_cuts": Run(says="agreement over whole fillings alone", config={"grid": 0}),
        "black_box": Run(says="scores alone: from the selected start only realism is improved", config={"search": "realism"}),
        "no_target": Run(
            says="a random filling, improved for realism: the target is of no use",
            config={"start": "random", "search": "realism"},
        ),
    },
    claims={
        "no-label-needed": Claim(
            check=lambda method, runs: (
                recognised(method) >= recognised(runs["label_random_start"]) - 0.05
                and recognised(method) >= recognised(runs["first_filling"]) + 0.08
            ),
            ablation="first_filling",
            not_reproduced=(
                "Some pictures are completed to a lookalike, whom the target takes for one of its people as surely: with the "
                "true class given, the right person is shown far more often. The hole takes the middle of a face of 32 pixels, "
                "and some of a thousand public people look much like the private ones. With a smaller hole (0.375 of the "
                "side) the gap shrank from 0.28 to 0.07 on one seed; more fillings (64) changed nothing. Steps and scores were "
                "compared with the official code."
            ),
        ),
        "agreement-finds-the-person": Claim(
            check=lambda method, runs: recognised(method) >= recognised(runs["first_filling"]) + 0.08,
            ablation="first_filling",
        ),
        "label-makes-it-better": Claim(
            check=lambda method, runs: (
                method["psnr"] >= runs["label_random_start"]["psnr"] + 0.1
                and method["feature_distance"] <= runs["label_random_start"]["feature_distance"] - 0.1
            ),
            ablation="label_random_start",
            run="label_selected_start",
        ),
    },
    smoke={"fillings": 2, "steps": 2, "fill_steps": 2, "fill_width": 4},
    paper_scale={"fillings": 200, "steps": 1500, "lr": 0.00016, "fill_steps": 62500, "fill_width": 64},
)
