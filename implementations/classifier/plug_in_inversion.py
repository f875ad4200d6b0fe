r"""Plug-In Inversion: augmentations in place of penalties, so that one setting serves every architecture.

Paper: "Plug-In Inversion: Model-Agnostic Inversion for Vision with Data Augmentations", Amin Ghiasi, Hamid Kazemi, Steven
Reich, Chen Zhu, Micah Goldblum, Tom Goldstein, ICML 2022. https://arxiv.org/abs/2201.12961

Idea. Descent on pixels needs help to give pictures, and the usual helps must be fitted anew to each network: total variation
has a weight to tune, and statistics of batch normalisation do not exist in a transformer. Plug-In Inversion only transforms
the candidate. It starts as a small picture and grows in stages: it is enlarged (zoom) and gets a new border of noise
(centring), so that what belongs to the class appears once, in the middle, coarse before fine. Each step looks at the candidate
shifted at random (jitter) and at many copies of it, each with other brightness and contrast in every channel (ColorShift,
ensembling): a pattern must hold in all of them to lower the loss. The same numbers serve convolutional networks, transformers
and perceptrons.

Mathematics. With stage sizes $s_1 < \dots < s_n$, enlargement $\mathrm{up}_{s}$ to $s$ pixels and a border of noise of $p$
pixels in all, stage $i$ starts from $x_i = \mathrm{border}(\mathrm{up}_{s_i - p}(x_{i-1}))$ and descends along

$$\nabla_x\; \frac1e \sum_{k=1}^{e} \mathrm{CE}\big(f(\sigma_k \odot \mathrm{jitter}(\mathrm{up}(x)) + \mu_k),\, y\big), \qquad
\mu_k \sim U(-\alpha, \alpha),\quad \sigma_k = \exp U(-\beta, \beta) \text{ in each channel}.$$

Deviations
1. Taken from the official code (the script for all networks): order of the augmentations, sizes from a quarter of the picture
   to the whole in steps of an eighth, half of a step's growth as border and half by enlargement, Adam with momenta 0.5 and
   0.99, a cosine schedule for each stage, clipping to [0, 1].
2. A candidate smaller than the target's input is enlarged to it before the pass, which networks of fixed input size need; the
   stored code shows this only in a loss marked as old. Jitter comes after that, by at most 1/14 of a side (official
   code: 1/7): faces fill the pictures here, and the targets know them in the middle.
3. Fewer steps a stage, fewer copies and a larger step. The colours move by a quarter of the official range: the small targets
   have only seen the renderer's light, and at the full range even the target itself does not recognise every result.
4. All classes and reconstructions are one batch. One shift a step for all, as in the official code; colours differ by picture.
5. The ablations keep seven stages with the same steps and copies, so that the number of passes through the network is equal.
6. Not all augmentations earn their place at this size: without ColorShift more is recognised, and without growth as much.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, WhiteBox
from .judging import recognised
from .setting import ClassifierSetting

AUGMENTATIONS = ("centring", "zoom", "colour-shift", "jitter")


@dataclass(frozen=True, kw_only=True)
class PlugInInversionConfig(Config):
    """Defaults are for 32-pixel pictures on a CPU, the same for every architecture."""

    augmentations: tuple[str, ...] = AUGMENTATIONS  # which of centring, zoom, colour-shift, jitter; none is the ablation
    shift: float = 0.25  # alpha, largest shift of a channel's mean; official code: 1
    scale: float = 0.25  # beta, largest logarithm of a channel's factor; official code: 1
    jitter: float = 1 / 14  # largest cyclic shift, as a share of the side; official code: 32 of 224 pixels
    copies: int = 4  # e, differently coloured copies in every step; official code: as many as fit, such as 32
    stages: int = 7  # sizes from a quarter of the side to all of it; official code: 7
    steps: int = 20  # of every stage; official code: 400
    lr: float = 0.05  # of Adam, falls along a cosine in every stage; official code: 0.01
    per_class: int = 1  # reconstructions of each class; official code: 1

    def __post_init__(self):
        unknown = set(self.augmentations) - set(AUGMENTATIONS)
        require(not unknown, f"augmentations are among {', '.join(AUGMENTATIONS)}, not {', '.join(sorted(unknown))}")
        require(min(self.shift, self.scale, self.jitter) >= 0, "shift, scale and jitter must not be negative")
        require(min(self.copies, self.stages, self.steps, self.per_class) >= 1, "counts must be at least 1")


def stage_sizes(size: int, stages: int, grows: bool) -> list[int]:
    """Sides of the candidate, evenly from a quarter of `size` to `size`; where it does not grow, `size` throughout."""
    start = size // 4 if grows and stages > 1 else size
    return [start + round((size - start) * stage / max(1, stages - 1)) for stage in range(stages)]


def enlarged(x: Tensor, size: int) -> Tensor:
    """Pictures (B, c, r, r) scaled to (B, c, size, size), linearly in both directions."""
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)


def grown(last: Tensor, size: int, augmentations: tuple[str, ...], random: torch.Generator) -> Tensor:
    """The next stage's start (B, c, size, size): `last` (B, c, r, r) enlarged, within a border of uniform noise.

    Centring alone spends the whole growth on the border, zoom alone none of it, both together half.
    """
    growth = size - last.shape[-1]
    border = 0 if "centring" not in augmentations else growth // 2 if "zoom" in augmentations else growth
    canvas = torch.rand((*last.shape[:2], size, size), generator=random, device=last.device)
    inner, edge = size - border, border // 2
    canvas[..., edge : edge + inner, edge : edge + inner] = enlarged(last, inner)
    return canvas


def colour_shift(x: Tensor, shift: float, scale: float, random: torch.Generator) -> Tensor:
    """sigma x + mu, mu ~ U(-shift, shift), sigma = exp U(-scale, scale), drawn for each picture and channel (ColorShift)."""
    drawn = 2 * torch.rand((2, *x.shape[:2], 1, 1), generator=random, device=x.device) - 1
    return (scale * drawn[0]).exp() * x + shift * drawn[1]


def jittered(x: Tensor, reach: int, random: torch.Generator) -> Tensor:
    """All pictures (B, c, s, s) shifted cyclically by the same random step of at most `reach` pixels in each direction."""
    down, right = torch.randint(-reach, reach + 1, (2,), generator=random, device=x.device).tolist()
    return x.roll((down, right), dims=(2, 3))


def views(x: Tensor, size: int, config: PlugInInversionConfig, random: torch.Generator) -> Tensor:
    """What the network sees of candidates (B, c, r, r): (e B, c, size, size), copy by copy."""
    seen = enlarged(x, size)
    if "jitter" in config.augmentations:
        seen = jittered(seen, round(config.jitter * size), random)
    seen = seen.repeat(config.copies, 1, 1, 1)
    return colour_shift(seen, config.shift, config.scale, random) if "colour-shift" in config.augmentations else seen


def descend(
    oracle: WhiteBox, start: Tensor, labels: Tensor, size: int, config: PlugInInversionConfig, random: torch.Generator
) -> tuple[Tensor, list[float]]:
    """One stage: candidates (B, c, r, r) in [0, 1] after `steps` steps, and the loss at each."""
    x = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([x], lr=config.lr, betas=(0.5, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    losses = []
    for _ in range(config.steps):
        logits = oracle(views(x, size, config, random))
        loss = F.cross_entropy(logits, labels.repeat(config.copies), reduction="none")
        (x.grad,) = torch.autograd.grad(loss.sum() / config.copies, x)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            x.clamp_(0, 1)
        losses.append(loss.mean().item())
    return x.detach(), losses


def attack(oracle: WhiteBox, knowledge: Knowledge, config: PlugInInversionConfig) -> Reconstruction:
    """Pictures (classes, per_class, c, s, s); the trajectory holds the end of every stage."""
    classes, (channels, size, _) = knowledge.num_classes, knowledge.image_shape
    random = config.generator(oracle.device)
    labels = torch.arange(classes, device=oracle.device).repeat_interleave(config.per_class)
    sizes = stage_sizes(size, config.stages, grows=bool({"centring", "zoom"} & set(config.augmentations)))
    x = torch.rand((len(labels), channels, sizes[0], sizes[0]), generator=random, device=oracle.device)
    history: dict[str, list[float]] = {"class loss": []}
    trajectory = []
    for side in sizes:
        x = grown(x, side, config.augmentations, random)
        x, losses = descend(oracle, x, labels, size, config, random)
        history["class loss"] += losses
        trajectory.append(enlarged(x, size).view(classes, config.per_class, channels, size, size))
    return Reconstruction(trajectory[-1], history, trajectory)


def on(architecture: str, **changes: object) -> Run:
    """The same numbers, or with changes, on another target of the same people."""
    says = "the same numbers" if not changes else "without any augmentation"
    return Run(says=f"{says}, target {architecture}", options={"architecture": architecture}, config=changes)


OTHERS = ("resnet", "mlp", "vit")
PLAIN = {"augmentations": ()}

EXPERIMENT = Experiment(
    paper="plug_in_inversion",
    setting=ClassifierSetting,
    config=PlugInInversionConfig(),
    attack=attack,
    knowledge=("num-classes", "image-shape"),
    baselines=("public_mean", "nearest_public"),
    ablations={
        "plain": Run(says="the same passes and steps without any augmentation", config=PLAIN),
        "no_colour_shift": Run(
            says="all augmentations but ColorShift", config={"augmentations": ("centring", "zoom", "jitter")}
        ),
        "no_growth": Run(says="neither centring nor zoom", config={"augmentations": ("colour-shift", "jitter")}),
    },
    variants={name: on(name) for name in OTHERS} | {f"plain_{name}": on(name, **PLAIN) for name in OTHERS},
    claims={
        "one-setting-many-architectures": Claim(
            check=lambda method, runs: (
                recognised(method) >= recognised(runs["plain"]) + 0.1
                and all(recognised(runs[name]) >= recognised(runs[f"plain_{name}"]) + 0.05 for name in OTHERS)
            ),
            ablation="plain",
        ),
    },
    smoke={"steps": 1, "stages": 2, "copies": 2},
    paper_scale={"shift": 1.0, "scale": 1.0, "jitter": 1 / 7, "copies": 32, "steps": 400, "lr": 0.01},
)
