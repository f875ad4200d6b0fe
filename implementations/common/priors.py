"""A small generative adversarial network trained on public pictures: the prior that many attacks share.

Hinge loss (Lim and Ye, 2017), spectral normalisation in the discriminator (Miyato et al., 2018), two time scales, and an
exponential moving average of the generator. Trained once for the same public pictures and options, then cached.
"""

import copy
import dataclasses
import itertools
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from .cache import cached, content_hash
from .progress import progress
from .training import jitter, seeded_weights


@dataclass(frozen=True, kw_only=True)
class GanConfig:
    """How the prior is trained."""

    latent: int = 64  # size of the latent code z, drawn from a standard normal
    width: int = 12  # channels of the finest layer; coarser ones have up to 8 times as many
    steps: int = 1200  # generator updates
    batch: int = 48  # pictures a step
    lr_generator: float = 1e-3  # Adam
    lr_discriminator: float = 1e-3  # Adam
    ema: float = 0.995  # decay of the moving average that becomes the prior
    seed: int = 0  # seed of weights, batches and codes


class Generator(nn.Module):
    """z (B, latent) to pictures (B, channels, size, size) in [0, 1]; size is 4 times a power of 2."""

    def __init__(self, latent: int, channels: int, size: int, width: int):
        super().__init__()
        ups = (size // 4).bit_length() - 1
        if 4 * 2**ups != size:
            raise ValueError(f"the generator makes pictures of 8, 16, 32, 64 ... pixels, not {size}")
        widths = [width * min(8, 2 ** (ups - i)) for i in range(ups + 1)]
        self.latent, self.first = latent, widths[0]
        self.project = nn.Linear(latent, widths[0] * 16)
        stages: list[nn.Module] = [nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for before, after in itertools.pairwise(widths):
            stages += [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.stages = nn.Sequential(*stages, nn.Conv2d(widths[-1], channels, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        return self.stages(self.project(z).view(-1, self.first, 4, 4)).sigmoid()


class Discriminator(nn.Module):
    """Pictures (B, channels, size, size) in [0, 1] to realism scores (B,)."""

    def __init__(self, channels: int, size: int, width: int):
        super().__init__()
        stages: list[nn.Module] = []
        before, after = channels, 2 * width
        while size > 4:
            stages += [spectral_norm(nn.Conv2d(before, after, 4, 2, 1)), nn.LeakyReLU(0.2)]
            before, after, size = after, min(2 * after, 8 * width), size // 2
        self.stages = nn.Sequential(*stages, nn.Flatten(), spectral_norm(nn.Linear(before * 16, 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(x * 2 - 1).squeeze(1)


@dataclass
class Prior:
    """A trained generator and discriminator, in evaluation mode, and what they cost."""

    generator: Generator
    discriminator: Discriminator
    seconds: float

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Latent codes (count, latent) of the prior distribution."""
        return torch.randn(count, self.generator.latent, generator=generator, device=generator.device)


def public_gan(images: Tensor, config: GanConfig | None = None) -> Prior:
    """The prior for public pictures (N, C, S, S) in [0, 1], on their device."""
    config = config or GanConfig()
    channels, size = images.shape[1], images.shape[-1]
    device = images.device
    with seeded_weights(config.seed):
        generator = Generator(config.latent, channels, size, config.width)
        discriminator = Discriminator(channels, size, config.width)
    networks = nn.ModuleDict({"generator": generator, "discriminator": discriminator}).to(device)

    def build() -> dict[str, Tensor]:
        start = time.perf_counter()
        trained = train_gan(networks, images, config)
        elapsed = torch.tensor([time.perf_counter() - start], device=device)
        return {**trained, "seconds": elapsed}

    key = [dataclasses.asdict(config), content_hash(images)]
    state = cached(f"gan-{size}px", "implementations.common.priors", key, build, device)
    seconds = state.pop("seconds").item()
    networks.load_state_dict(state)
    networks.eval().requires_grad_(False)
    return Prior(networks["generator"], networks["discriminator"], seconds)


def train_gan(networks: nn.ModuleDict, images: Tensor, config: GanConfig) -> dict[str, Tensor]:
    """State of {generator (averaged), discriminator} after training."""
    random = torch.Generator(images.device).manual_seed(config.seed)
    make, judge = networks["generator"], networks["discriminator"]
    average = copy.deepcopy(make)
    optimizer_g = torch.optim.Adam(make.parameters(), config.lr_generator, betas=(0.0, 0.99))
    optimizer_d = torch.optim.Adam(judge.parameters(), config.lr_discriminator, betas=(0.0, 0.99))
    networks.train()
    for step in progress(range(config.steps), "training a GAN on public pictures"):
        fade = min(1.0, 2.0 * (1 - step / config.steps))
        for group, lr in ((optimizer_g, config.lr_generator), (optimizer_d, config.lr_discriminator)):
            group.param_groups[0]["lr"] = lr * fade
        chosen = torch.randint(len(images), (config.batch,), generator=random, device=images.device)
        real = jitter(images[chosen], random, 1)
        codes = torch.randn(2, config.batch, config.latent, generator=random, device=images.device)
        fake = make(codes[0])
        loss_d = F.relu(1 - judge(real)).mean() + F.relu(1 + judge(fake.detach())).mean()
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()
        loss_g = -judge(make(codes[1])).mean()
        optimizer_g.zero_grad()
        loss_g.backward()
        optimizer_g.step()
        with torch.no_grad():
            for kept, new in zip(average.parameters(), make.parameters(), strict=True):
                kept.lerp_(new, 1 - config.ema)
            for kept, new in zip(average.buffers(), make.buffers(), strict=True):
                kept.copy_(new)
    networks["generator"] = average
    return dict(networks.state_dict())
