r"""XAI-aware inversion: an explanation is a picture of a picture, and a network turns it back, with the scores beside it.

Paper: "Exploiting Explanations for Model Inversion Attacks", Xuejun Zhao, Wencan Zhang, Xiaokui Xiao, Brian Lim, ICCV 2021.
https://arxiv.org/abs/2104.12669

Idea. A service answers with scores and a map that shows which places counted. The scores are a short vector and say little
about the very picture; the map has the picture's geometry. The adversary sends pictures of its own, and trains a network that
takes both: a U-Net reads the map and hands what is seen at every scale on to the same scale of the decoder, and the flattened
map joins the scores. Where the service explains nothing, the adversary distils a surrogate and explains that: a first network
learns to guess the surrogate's map from the service's scores, the second one uses the guess (attention transfer).

Mathematics. For the target's scores $\tilde y = M_t(x)$ and explanation $\tilde E_t$, the inversion model $M_i$ minimises over
the adversary's own pictures

$$L_r = \mathbb E_x \big\| M_i(\tilde y, \tilde E_t) - x \big\|_2^2 ,$$

and without an explanation, with a surrogate's $\tilde E_s$ and the guess $\hat E_r = M_e(\tilde y)$,

$$L = \mathbb E_x \Big[ \big\| M_i(\tilde y, \hat E_r) - x \big\|_2^2 + \big\| \hat E_r - \tilde E_s \big\|_2^2 \Big].$$

Deviations
1. There is no official code, and the paper's text beyond the abstract and the caption of Figure 2 (the architectures: d scores
   only, e flattened, f U-Net, g both; c attention transfer) was not at hand. Widths, optimiser, the equal weight of both
   terms of the second loss and that the two networks are trained together are our reading.
2. Targets tell rendered faces of 32 pixels apart; the observed pictures are of the target's people, and the adversary's of
   others. Explanations are the absolute input gradient; variants take gradient times input and Grad-CAM.
3. Scores enter as logarithms, standardised over the adversary's own pictures: their small entries tell pictures apart.
4. With `inputs="scores"` (the ablation) the network, its size and its training stay and the map is blank.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.progress import progress
from ..common.training import seeded_weights
from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Explanations, Knowledge
from .explainers import gradient
from .explanation_setting import ExplanationSetting
from .students import one_student


@dataclass(frozen=True, kw_only=True)
class XaiMiConfig(Config):
    """Defaults are for 32-pixel pictures on a CPU."""

    inputs: str = "both"  # both: scores and explanation; scores: the map is blank (ablation); guessed: attention transfer
    spatial: bool = True  # True: U-Net and flattened map (Figure 2g); False: flattened map only (Figure 2e)
    width: int = 8  # channels of the U-Net's finest layer
    steps: int = 400  # updates of the inversion model
    batch: int = 48  # pictures an update
    lr: float = 3e-3  # first step of Adam, falls to 0 along a cosine
    explanation_weight: float = 1.0  # of the guessed map's error against the picture's; our reading
    surrogate_width: int = 12  # channels of the surrogate's finest layer
    surrogate_epochs: int = 6  # of distilling the surrogate from the target's scores
    surrogate_seed: int = 0  # of the surrogate; apart from `seed` so that one serves all seeds

    def __post_init__(self):
        require(self.inputs in ("both", "scores", "guessed"), f"inputs must be both, scores or guessed, not {self.inputs!r}")
        require(min(self.width, self.steps, self.batch) >= 1, "width, steps and batch must be at least 1")
        require(self.explanation_weight >= 0, f"explanation_weight must not be negative, but is {self.explanation_weight}")


def reconstruction_loss(rebuilt: Tensor, images: Tensor) -> Tensor:
    """L_r: mean squared error over pixels of (B, c, s, s)."""
    return F.mse_loss(rebuilt, images)


def transfer_loss(rebuilt: Tensor, images: Tensor, guessed: Tensor, maps: Tensor, weight: float) -> Tensor:
    """L_r plus the squared error of guessed maps (B, 1, s, s) to the surrogate's."""
    return reconstruction_loss(rebuilt, images) + weight * F.mse_loss(guessed, maps)


def block(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False), nn.BatchNorm2d(channels_out), nn.LeakyReLU(0.1)
    )


class Decoder(nn.Module):
    """Scores (B, C) to (B, out, s, s) in [0, 1], by a linear layer to 4 x 4 and doubling (Figure 2d)."""

    def __init__(self, inputs: int, out: int, size: int, width: int):
        super().__init__()
        ups = (size // 4).bit_length() - 1
        require(4 * 2**ups == size and ups >= 1, f"pictures of 8, 16, 32, 64 ... pixels are rebuilt, not {size}")
        widths = [width * 2 ** (ups - i) for i in range(ups + 1)]  # coarse to fine
        self.start = nn.Sequential(nn.Linear(inputs, widths[0] * 16), nn.Unflatten(1, (widths[0], 4, 4)))
        self.stages = nn.ModuleList(block(2 * a, b) for a, b in itertools.pairwise(widths))
        self.last = nn.Conv2d(2 * width, out, 3, padding=1)
        self.widths = widths

    def forward(self, vectors: Tensor, skips: list[Tensor] | None = None) -> Tensor:
        """`skips`: what a U-Net saw at each scale, coarse to fine; blank where there is none."""
        h = self.start(vectors)
        for scale, stage in enumerate([*self.stages, self.last]):
            seen = torch.zeros_like(h) if skips is None else skips[scale]
            h = stage(torch.cat([h, seen], dim=1))
            if scale < len(self.stages):
                h = F.interpolate(h, scale_factor=2)
        return h.sigmoid()


class InversionModel(nn.Module):
    """Scores (B, C) and a map (B, 1, s, s) to a picture (B, c, s, s) in [0, 1] (Figure 2g; without the U-Net 2e)."""

    def __init__(self, classes: int, channels: int, size: int, width: int, spatial: bool):
        super().__init__()
        self.decoder = Decoder(classes + size * size, channels, size, width)
        widths = self.decoder.widths[::-1]  # fine to coarse
        steps = itertools.pairwise([1, *widths])
        self.encoder = nn.ModuleList(block(a, b, 1 if i == 0 else 2) for i, (a, b) in enumerate(steps)) if spatial else None

    def forward(self, scores: Tensor, maps: Tensor) -> Tensor:
        vectors = torch.cat([scores, maps.flatten(1)], dim=1)
        if self.encoder is None:
            return self.decoder(vectors)
        skips, h = [], maps
        for stage in self.encoder:
            h = stage(h)
            skips.append(h)
        return self.decoder(vectors, skips[::-1])


def attack(oracle: Explanations, knowledge: Knowledge, config: XaiMiConfig) -> Reconstruction:
    """One picture for each answer in `oracle.observed`, (V, 1, c, s, s)."""
    public, (channels, size, _) = knowledge.public_images, knowledge.image_shape
    scores, maps = oracle(public)  # (N, C), (N, 1, s, s)
    seen, seen_maps = oracle.observed
    if config.inputs != "both":  # this service explains nothing
        maps, seen_maps = torch.zeros_like(maps), torch.zeros_like(seen_maps)
    if config.inputs == "guessed":
        surrogate = one_student(public, scores, config.surrogate_width, config.surrogate_epochs, config.surrogate_seed)
        maps = torch.cat([gradient(surrogate, part) for part in public.split(500)])
    logs = scores.clamp_min(1e-12).log()
    mean, deviation = logs.mean(dim=0), logs.std(dim=0)
    logs, seen_logs = (logs - mean) / deviation, (seen.clamp_min(1e-12).log() - mean) / deviation
    with seeded_weights(config.seed):
        invert = InversionModel(scores.shape[1], channels, size, config.width, config.spatial)
        guess = Decoder(scores.shape[1], 1, size, config.width)
    networks = nn.ModuleList([invert, guess]).to(oracle.device)
    optimizer = torch.optim.Adam(networks.parameters(), config.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    random, losses, snapshots = config.generator(oracle.device), [], []

    @torch.no_grad()
    def rebuild() -> Tensor:
        networks.eval()
        rebuilt = invert(seen_logs, guess(seen_logs) if config.inputs == "guessed" else seen_maps)[:, None]
        networks.train()
        return rebuilt

    networks.train()
    for step in progress(range(config.steps), "training an inversion model"):
        chosen = torch.randint(len(public), (config.batch,), generator=random, device=oracle.device)
        x, y, e = public[chosen], logs[chosen], maps[chosen]
        if config.inputs == "guessed":
            guessed = guess(y)
            loss = transfer_loss(invert(y, guessed), x, guessed, e, config.explanation_weight)
        else:
            loss = reconstruction_loss(invert(y, e), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % max(1, config.steps // 5) == 0:
            snapshots.append(rebuild())
    return Reconstruction(rebuild(), {"loss": losses}, snapshots)


EXPERIMENT = Experiment(
    paper="xai_mi",
    setting=ExplanationSetting,
    config=XaiMiConfig(),
    attack=attack,
    knowledge=("public-images", "image-shape"),
    ablations={
        "scores_only": Run(says="the same network with a blank map: scores only", config={"inputs": "scores"}),
        "flattened": Run(says="the U-Net taken out: the map as a vector beside the scores", config={"spatial": False}),
    },
    variants={
        "guessed": Run(says="attention transfer: the service explains nothing", config={"inputs": "guessed"}),
        "gradient_times_input": Run(says="gradient times input", options={"explanation": "gradient_times_input"}),
        "grad_cam": Run(says="Grad-CAM, four by four places", options={"explanation": "grad_cam"}),
    },
    claims={
        "explanations-add-leakage": Claim(
            check=lambda method, runs: (
                method["mse"] <= 0.8 * runs["scores_only"]["mse"]
                and method["identified"] >= runs["scores_only"]["identified"] + 0.1
            ),
            ablation="scores_only",
        ),
        "surrogate-explanations-help": Claim(
            check=lambda method, runs: method["mse"] <= 0.98 * runs["scores_only"]["mse"],
            ablation="scores_only",
            run="guessed",
        ),
    },
    smoke={"steps": 2, "batch": 8, "width": 4, "surrogate_epochs": 1},
    paper_scale={"width": 64, "steps": 100000, "batch": 64, "lr": 1e-3},
)
