r"""TB-MIA: a second network learns to turn prediction vectors back into pictures, from the adversary's own pictures.

Paper: "Neural Network Inversion in Adversarial Setting via Background Knowledge Alignment", Ziqi Yang, Jiyi Zhang, Ee-Chien
Chang, Zhenkai Liang, ACM CCS 2019. https://doi.org/10.1145/3319535.3354261

Idea. Ask the target for the scores of pictures of other people and train a decoder on the pairs: scores in, picture out. No
private picture is needed, since the target describes everybody by how much they resemble its own people. A victim's vector is
often partial: a service returns the few largest scores, and of a class as such only its name is known, a vector with a single
entry. A decoder trained on full vectors has never seen such an input, so the scores are cut in training exactly as the
victim's are (truncation to the m largest): the decoder is aligned with what it will be asked and learns to fill in the rest.

Mathematics. With the target's scores $F(x)$, their truncation $\mathrm{trunc}_m$ to the $m$ largest and the adversary's own
pictures $x \sim p_a$, the decoder $G$ and the rebuilt picture of a victim's vector $v$ are

$$\hat G = \arg\min_G\; \mathbb E_{x \sim p_a} \big\| G(\mathrm{trunc}_m(F(x))) - x \big\|_2^2, \qquad
\hat x = \hat G(\mathrm{trunc}_m(v)).$$

Deviations
1. What this setting can judge. Training class inference: a one-hot vector for each class goes in and the unseen evaluator
   judges the pictures. The oracle shows no scores of private inputs, so reconstruction of given inputs is judged on the last
   tenth of the public pictures (people whom the decoder never saw, with scores cut to the m largest), as the numbers
   `note_input_error` (mean squared error a pixel) and `note_mean_error` (the same for the mean training picture).
2. The class vector is one-hot. The paper also averages the scores of auxiliary pictures of the class where there are some.
3. A narrower decoder for 32 pixels with one layer less, and a short training with a larger, falling step, whose last weights
   count. The official code keeps the epoch that is best on the target's own training data, which no adversary has.
4. `pairs="shuffled"` and `aligned=False` are not in the paper as attacks: the ablations.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.progress import progress
from ..common.training import in_batches, seeded_weights
from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, Scores
from .setting import ClassifierSetting


@dataclass(frozen=True, kw_only=True)
class TbMiaConfig(Config):
    """Defaults are for 32-pixel pictures on a CPU."""

    top: int = 1  # m, how many of the victim's largest scores are known; paper: several, 1 for a bare class
    aligned: bool = True  # True: training vectors are cut to `top` as well; False: they stay whole (an ablation)
    pairs: str = "true"  # true: each picture with its own scores; shuffled: with those of another (an ablation)
    offset: float = 50.0  # c, added to the logarithms of the scores; official code: 50
    held_out: float = 0.1  # share of the public pictures, the last ones, kept to measure reconstruction of inputs
    width: int = 16  # channels of the finest layer but one; official code: 128
    steps: int = 500  # updates of the decoder; official code: 100 epochs of CelebA, about 150,000 updates
    batch: int = 96  # pictures an update; official code: 128
    lr: float = 3e-3  # first step of Adam with AMSGrad, falls to 0 along a cosine; official code: 0.0002, constant

    def __post_init__(self):
        require(self.pairs in ("true", "shuffled"), f"pairs must be true or shuffled, not {self.pairs!r}")
        require(self.top >= 1, f"top must be at least 1, not {self.top}")
        require(0 < self.held_out < 1, f"held_out must lie in (0, 1), not {self.held_out}")
        require(min(self.width, self.steps, self.batch) >= 1, "width, steps and batch must be at least 1")


def truncate(scores: Tensor, top: int, offset: float = 50.0) -> Tensor:
    """Logarithms of the `top` largest scores plus `offset`, lifted to be nonnegative, 0 elsewhere: (B, C) to (B, C).

    The truncation of Sec. 4 in the form of the official code: without logarithms small scores, which tell inputs of one class
    apart, would vanish beside the largest.
    """
    kept = scores.topk(min(top, scores.shape[1]), dim=1)
    logs = kept.values.log().clamp(min=-1000.0) + offset
    lifted = logs + F.relu(-logs.min(dim=1, keepdim=True).values)
    return torch.zeros_like(scores).scatter(1, kept.indices, lifted)


def reconstruction_loss(rebuilt: Tensor, images: Tensor) -> Tensor:
    """Mean squared error over all pixels of pictures (B, c, s, s) (Sec. 4, the inversion model's objective)."""
    return F.mse_loss(rebuilt, images)


class Decoder(nn.Module):
    """Truncated scores (B, C) to pictures (B, channels, size, size) in [0, 1]; size is 4 times a power of 2."""

    def __init__(self, classes: int, channels: int, size: int, width: int):
        super().__init__()
        ups = (size // 4).bit_length() - 1
        require(4 * 2**ups == size and ups >= 1, f"the decoder makes pictures of 8, 16, 32, 64 ... pixels, not {size}")
        now = width * 2 ** (ups - 1)
        stages: list[nn.Module] = [nn.ConvTranspose2d(classes, now, 4), nn.BatchNorm2d(now), nn.Tanh()]
        for _ in range(ups - 1):
            stages += [nn.ConvTranspose2d(now, now // 2, 4, 2, 1), nn.BatchNorm2d(now // 2), nn.Tanh()]
            now //= 2
        self.stages = nn.Sequential(*stages, nn.ConvTranspose2d(now, channels, 4, 2, 1), nn.Sigmoid())

    def forward(self, vectors: Tensor) -> Tensor:
        return self.stages(vectors[:, :, None, None])


def train_decoder(
    decoder: Decoder, vectors: Tensor, images: Tensor, queries: Tensor, config: TbMiaConfig
) -> tuple[list[float], list[Tensor]]:
    """Trains in place on vectors (N, C) and pictures (N, c, s, s); the loss of every step and snapshots of `queries`."""
    random = config.generator(images.device)
    optimizer = torch.optim.Adam(decoder.parameters(), config.lr, betas=(0.5, 0.999), amsgrad=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    losses, snapshots = [], []
    decoder.train()
    for step in progress(range(config.steps), "training a decoder of scores"):
        chosen = torch.randint(len(images), (config.batch,), generator=random, device=images.device)
        loss = reconstruction_loss(decoder(vectors[chosen]), images[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % max(1, config.steps // 5) == 0:
            snapshots.append(in_batches(decoder.eval(), queries)[:, None])
            decoder.train()
    decoder.eval().requires_grad_(False)
    return losses, snapshots


def attack(oracle: Scores, knowledge: Knowledge, config: TbMiaConfig) -> Reconstruction:
    """One picture a class, (classes, 1, c, s, s)."""
    public, (channels, size, _) = knowledge.public_images, knowledge.image_shape
    kept = len(public) - max(1, round(config.held_out * len(public)))
    scores = in_batches(oracle, public)  # (N, C); how many classes there are is read off their width
    classes = scores.shape[1]
    partial = truncate(scores[kept:], config.top, config.offset)  # what would be seen of somebody else's inputs
    one_hot = truncate(torch.eye(classes, device=oracle.device), config.top, config.offset)
    vectors = truncate(scores[:kept], config.top if config.aligned else classes, config.offset)
    if config.pairs == "shuffled":
        vectors = vectors[torch.randperm(kept, generator=config.generator(oracle.device), device=oracle.device)]
    with seeded_weights(config.seed):
        decoder = Decoder(classes, channels, size, config.width)
    decoder.to(oracle.device)
    losses, snapshots = train_decoder(decoder, vectors, public[:kept], one_hot, config)
    mean = public[:kept].mean(dim=0, keepdim=True).expand_as(public[kept:])
    notes = {
        "input_error": reconstruction_loss(in_batches(decoder, partial), public[kept:]).item(),
        "mean_error": reconstruction_loss(mean, public[kept:]).item(),
    }
    return Reconstruction(in_batches(decoder, one_hot)[:, None], {"reconstruction loss": losses}, snapshots, notes)


EXPERIMENT = Experiment(
    paper="tb_mia",
    setting=ClassifierSetting,
    config=TbMiaConfig(),
    attack=attack,
    knowledge=("public-images", "image-shape"),
    ablations={
        "whole_vectors": Run(says="the decoder is trained on whole vectors of scores", config={"aligned": False}),
        "shuffled_pairs": Run(says="pictures paired with the scores of others", config={"pairs": "shuffled"}),
    },
    variants={
        "five_scores": Run(says="five scores of a victim are known", config={"top": 5}),
        "shifted": Run(says="public pictures with other backgrounds, light and poses", options={"public_domain": "shifted"}),
    },
    claims={
        "truncation-aligns": Claim(
            check=lambda method, runs: (
                method["accuracy_top1"] >= runs["whole_vectors"]["accuracy_top1"] + 0.3
                and method["note_input_error"] <= 0.7 * runs["whole_vectors"]["note_input_error"]
            ),
            ablation="whole_vectors",
        ),
        "auxiliary-data-suffices": Claim(
            check=lambda method, runs: (
                method["accuracy_top1"] >= runs["public_mean"]["accuracy_top1"] + 0.3
                and method["note_input_error"] <= 0.85 * method["note_mean_error"]
            ),
            ablation="shuffled_pairs",
        ),
    },
    smoke={"steps": 2, "batch": 8, "width": 4},
    paper_scale={"width": 128, "steps": 150000, "batch": 128, "lr": 0.0002},
)
