r"""A small diffusion model of pictures by class: a prior that many attacks can share.

A U-Net on 2 x 2 patches predicts the picture from its noisy version at continuous times, with a cosine schedule (Nichol and
Dhariwal, 2021). Predicting the picture and not the noise suits a narrow network, which need not carry noise through. Classes
enter beside the time and are dropped now and then in training, so that sampling can be guided without a classifier (Ho and
Salimans, 2022). Pictures are drawn in a few deterministic steps (DDIM, Song et al., 2021).

With $x_t = \alpha_t x_0 + \sigma_t \epsilon$, $\alpha_t = \cos(\pi t / 2)$ and $\sigma_t = \sin(\pi t / 2)$, errors of
$x_0$ weigh $\min(1 / \sigma_t^2, \gamma)$ in training: as much as errors of the velocity would give them (Salimans and Ho,
2022), cut off in the manner of Hang et al. (2023).

Trained once for the same pictures, labels and options, then cached.
"""

import copy
import dataclasses
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .cache import cached, content_hash
from .progress import progress
from .training import jitter, seeded_weights


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """How the model is trained."""

    width: int = 32  # channels of the finest layer; the coarser two have twice and three times as many
    steps: int = 1400  # updates
    batch: int = 48  # pictures an update
    lr: float = 2e-3  # Adam, warmed up over a twentieth of the steps, then down to 0 along a cosine
    ema: float = 0.99  # decay of the moving average that becomes the model
    truncation: float = 5.0  # gamma, the largest weight of a time in the loss
    drop: float = 0.15  # share of training pictures whose class is hidden
    seed: int = 0  # seed of weights, batches, times and noise


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut; the condition (B, E) scales and shifts the features between them."""

    def __init__(self, before: int, after: int, embedding: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, before), nn.GroupNorm(8, after, affine=False)
        self.first, self.second = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
        self.condition = nn.Linear(embedding, 2 * after)
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gain, shift = self.condition(condition)[:, :, None, None].chunk(2, dim=1)
        h = self.first(F.silu(self.norm1(x)))
        h = self.second(F.silu(torch.addcmul(shift, self.norm2(h), 1 + gain)))
        return self.shortcut(x) + h


class Denoiser(nn.Module):
    """Noisy pictures (B, channels, size, size), times (B,) in [0, 1] and labels (B,) to pictures of the same shape in [-1, 1].

    The label `classes` stands for no class. `size` is a multiple of 8.
    """

    def __init__(self, classes: int, channels: int, size: int, width: int):
        super().__init__()
        if size % 8:
            raise ValueError(f"the denoiser takes pictures of 8, 16, 24, 32 ... pixels, not {size}")
        embedding = 4 * width
        self.classes, self.shape = classes, (channels, size, size)
        self.register_buffer("frequencies", 2 * math.pi * 2.0 ** torch.arange(6, device="cpu").float())
        self.time = nn.Sequential(nn.Linear(12, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.label = nn.Embedding(classes + 1, embedding)
        wide = (width, 2 * width, 3 * width)
        self.enter = nn.Conv2d(4 * channels, width, 3, padding=1)
        self.down = nn.ModuleList(Block(w, w, embedding) for w in wide[:2])
        self.shrink = nn.ModuleList(nn.Conv2d(wide[i], wide[i + 1], 3, 2, 1) for i in range(2))
        self.middle = nn.ModuleList(Block(wide[2], wide[2], embedding) for _ in range(2))
        self.grow = nn.ModuleList(nn.Conv2d(wide[i + 1], wide[i], 3, padding=1) for i in (1, 0))
        self.up = nn.ModuleList(Block(2 * wide[i], wide[i], embedding) for i in (1, 0))
        self.leave = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, 4 * channels, 3, padding=1))
        nn.init.zeros_(self.leave[2].weight)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        angles = t[:, None] * self.frequencies / 4
        condition = F.silu(self.time(torch.cat([angles.sin(), angles.cos()], dim=1)) + self.label(labels))
        h = self.enter(F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last))  # (B, W, s / 2, s / 2)
        skips = []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            h = block(h, condition)
            skips.append(h)
            h = shrink(h)
        for block in self.middle:
            h = block(h, condition)
        for block, grow in zip(self.up, self.grow, strict=True):
            h = grow(F.interpolate(h, scale_factor=2.0))
            h = block(torch.cat([h, skips.pop()], dim=1), condition)
        return F.pixel_shuffle(self.leave(h), 2)


def schedule(t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha_t and sigma_t of times (B,), each (B, 1, 1, 1)."""
    angle = t[:, None, None, None] * (math.pi / 2)
    return angle.cos(), angle.sin()


def noised(x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """x_t = alpha_t x_0 + sigma_t eps, all (B, c, s, s), for pictures in [-1, 1]."""
    alpha, sigma = schedule(t)
    return alpha * x0 + sigma * eps


def denoise(model: Denoiser, xt: Tensor, t: Tensor, labels: Tensor, guidance: float = 1.0) -> tuple[Tensor, Tensor]:
    """Predicted x_0 in [-1, 1] and eps at times t > 0.

    With guidance w the class's prediction counts w times, less w - 1 times the prediction without class.
    """
    if guidance == 1.0:
        x0 = model(xt, t, labels)
    else:
        nothing = torch.full_like(labels, model.classes)
        own, free = model(torch.cat([xt, xt]), torch.cat([t, t]), torch.cat([labels, nothing])).chunk(2)
        x0 = guidance * own - (guidance - 1) * free
    x0 = x0.clamp(-1, 1)  # else guided colours run away
    alpha, sigma = schedule(t)
    return x0, (xt - alpha * x0) / sigma


def ddim(model: Denoiser, xt: Tensor, labels: Tensor, steps: int, guidance: float = 1.0, start: float = 1.0) -> list[Tensor]:
    """Deterministic sampling from x_t at time `start` to 0: the predictions of x_0 at each step, the last is the sample.

    Differentiable where gradients are on. Pictures are in [-1, 1].
    """
    times = torch.linspace(start, 0.0, steps + 1, device=xt.device)
    seen = []
    for now, then in itertools.pairwise(times):
        x0, eps = denoise(model, xt, now.expand(len(xt)), labels, guidance)
        xt = noised(x0, then.expand(len(xt)), eps)
        seen.append(x0)
    return seen


@dataclass
class Diffusion:
    """A trained denoiser, in evaluation mode, and what it cost."""

    model: Denoiser
    seconds: float

    @torch.no_grad()
    def sample(
        self, labels: Tensor, generator: torch.Generator, steps: int = 16, guidance: float = 2.0, size: int = 250
    ) -> Tensor:
        """Pictures (B, c, s, s) in [0, 1] of labels (B,), drawn in pieces of at most `size`."""
        noise = torch.randn(len(labels), *self.model.shape, generator=generator, device=generator.device)
        pieces = zip(noise.split(size), labels.split(size), strict=True)
        return torch.cat([ddim(self.model, x, y, steps, guidance)[-1] for x, y in pieces]).add(1).div(2)


def conditional_diffusion(images: Tensor, labels: Tensor, classes: int, config: DiffusionConfig | None = None) -> Diffusion:
    """The prior for pictures (N, C, S, S) in [0, 1] with labels (N,) below `classes`, on their device."""
    config = config or DiffusionConfig()
    if labels.shape != images.shape[:1] or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"expected a label below {classes} for each of {len(images)} pictures")
    device = images.device
    with seeded_weights(config.seed):
        model = Denoiser(classes, images.shape[1], images.shape[-1], config.width)
    model.to(device, memory_format=torch.channels_last)

    def build() -> dict[str, Tensor]:
        start = time.perf_counter()
        trained = train_diffusion(model, images, labels, config)
        return {**trained.state_dict(), "seconds": torch.tensor([time.perf_counter() - start], device=device)}

    key = [dataclasses.asdict(config), classes, content_hash(images), content_hash(labels)]
    state = cached(f"diffusion-{images.shape[-1]}px", __name__, key, build, device)
    seconds = state.pop("seconds").item()
    model.load_state_dict(state)
    return Diffusion(model.eval().requires_grad_(False), seconds)


def train_diffusion(
    model: Denoiser,
    images: Tensor,
    labels: Tensor,
    config: DiffusionConfig,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> Denoiser:
    """The averaged model after training in place; `report` hears the loss of every step."""
    device = images.device
    random = torch.Generator(device).manual_seed(config.seed)
    average = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), config.lr, betas=(0.9, 0.99))
    warm = max(1, config.steps // 20)
    model.train()
    for step in progress(range(config.steps), "training a diffusion model on public pictures"):
        fade = min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        optimizer.param_groups[0]["lr"] = config.lr * fade
        chosen = torch.randint(len(images), (config.batch,), generator=random, device=device)
        x0 = jitter(images[chosen], random, 1) * 2 - 1
        hidden = torch.rand(config.batch, generator=random, device=device) < config.drop
        y = torch.where(hidden, model.classes, labels[chosen])
        spread = torch.arange(config.batch, device=device) + torch.rand(1, generator=random, device=device)
        t = spread / config.batch  # evenly over [0, 1]: less noise in the loss than independent draws
        eps = torch.randn(x0.shape, generator=random, device=device)
        weight = schedule(t)[1].pow(-2).clamp(max=config.truncation)
        loss = (weight * (model(noised(x0, t, eps), t, y) - x0).square()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay = min(config.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            for kept, new in zip(average.parameters(), model.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
        report(step, loss.item())
    return average
