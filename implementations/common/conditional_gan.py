"""A small conditional generative adversarial network: a prior whose pictures come by class.

Conditional batch normalisation in the generator (Dumoulin et al., 2017), a projection discriminator (Miyato and Koyama, 2018),
and otherwise the training of `common.priors`: hinge loss, spectral normalisation, an exponential moving average of the
generator. A *guide*, a further loss on the generated pictures such as what a target says of them, can steer the generator.

With one class and no guide it is an unconditional GAN of the same architecture. Trained once for the same pictures, labels,
options and guide, then cached; a guide that asks a target has to name that target by its fingerprint.
"""

import copy
import dataclasses
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from .cache import cached, content_hash
from .priors import GanConfig
from .progress import progress
from .training import jitter, seeded_weights

Loss = Callable[[Tensor, Tensor, torch.Generator], Tensor]  # pictures (B, c, s, s), labels (B,), randomness -> losses (B,)


@dataclass(frozen=True)
class Guide:
    """A further loss of the generator, and all that its value depends on besides the pictures."""

    loss: Loss  # one value a picture
    weight: float  # of its mean against the hinge loss
    key: Any  # plain data for the cache: options of the loss, fingerprint of the target it asks
    module: str  # dotted name of the module that holds its code


class ConditionalNorm(nn.Module):
    """Batch normalisation whose gain and shift (K, channels) belong to the class of each picture."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain, self.shift = nn.Embedding(classes, channels), nn.Embedding(classes, channels)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return torch.addcmul(self.shift(labels)[:, :, None, None], self.norm(x), self.gain(labels)[:, :, None, None])


class ConditionalGenerator(nn.Module):
    """z (B, latent) and labels (B,) to pictures (B, channels, size, size) in [0, 1]; size is 4 times a power of 2."""

    def __init__(self, latent: int, classes: int, channels: int, size: int, width: int):
        super().__init__()
        ups = (size // 4).bit_length() - 1
        if 4 * 2**ups != size:
            raise ValueError(f"the generator makes pictures of 8, 16, 32, 64 ... pixels, not {size}")
        widths = [width * min(8, 2 ** (ups - i)) for i in range(ups + 1)]
        self.latent, self.classes, self.first = latent, classes, widths[0]
        self.project = nn.Linear(latent, widths[0] * 16)
        self.norms = nn.ModuleList(ConditionalNorm(channels, classes) for channels in widths)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1, bias=False) for before, after in itertools.pairwise(widths)
        )
        self.last = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        h = self.norms[0](self.project(z).view(-1, self.first, 4, 4), labels).relu()
        for convolution, norm in zip(self.convolutions, self.norms[1:], strict=True):
            h = norm(convolution(F.interpolate(h, scale_factor=2.0)), labels).relu()
        return self.last(h).sigmoid()


class ProjectionDiscriminator(nn.Module):
    """Pictures (B, channels, size, size) in [0, 1] and labels (B,) to scores (B,): real, and of that class."""

    def __init__(self, classes: int, channels: int, size: int, width: int):
        super().__init__()
        stages: list[nn.Module] = []
        before, after = channels, 2 * width
        while size > 4:
            stages += [spectral_norm(nn.Conv2d(before, after, 4, 2, 1)), nn.LeakyReLU(0.2)]
            before, after, size = after, min(2 * after, 8 * width), size // 2
        self.stages = nn.Sequential(*stages)
        self.real = spectral_norm(nn.Linear(before * 16, 1))
        self.classes = spectral_norm(nn.Embedding(classes, before))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        h = self.stages(x * 2 - 1)  # (B, F, 4, 4)
        return self.real(h.flatten(1)).squeeze(1) + (self.classes(labels) * h.sum(dim=(2, 3))).sum(dim=1)


@dataclass
class ConditionalPrior:
    """A trained generator and discriminator, in evaluation mode, and what they cost."""

    generator: ConditionalGenerator
    discriminator: ProjectionDiscriminator
    seconds: float

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Latent codes (count, latent) of the prior distribution."""
        return torch.randn(count, self.generator.latent, generator=generator, device=generator.device)


def conditional_gan(
    images: Tensor, labels: Tensor, classes: int, config: GanConfig | None = None, guide: Guide | None = None
) -> ConditionalPrior:
    """The prior for pictures (N, C, S, S) in [0, 1] with labels (N,) below `classes`, on their device."""
    config = config or GanConfig()
    if labels.shape != images.shape[:1] or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"expected a label below {classes} for each of {len(images)} pictures")
    channels, size = images.shape[1], images.shape[-1]
    device = images.device
    with seeded_weights(config.seed):
        generator = ConditionalGenerator(config.latent, classes, channels, size, config.width)
        discriminator = ProjectionDiscriminator(classes, channels, size, config.width)
    networks = nn.ModuleDict({"generator": generator, "discriminator": discriminator}).to(device)

    def build() -> dict[str, Tensor]:
        start = time.perf_counter()
        trained = train_conditional_gan(networks, images, labels, config, guide)
        return {**trained, "seconds": torch.tensor([time.perf_counter() - start], device=device)}

    key = [dataclasses.asdict(config), classes, content_hash(images), content_hash(labels)]
    key += [guide.weight, guide.key] if guide else []
    state = cached(f"conditional-gan-{size}px", guide.module if guide else __name__, key, build, device)
    seconds = state.pop("seconds").item()
    networks.load_state_dict(state)
    networks.eval().requires_grad_(False)
    return ConditionalPrior(networks["generator"], networks["discriminator"], seconds)


def train_conditional_gan(
    networks: nn.ModuleDict, images: Tensor, labels: Tensor, config: GanConfig, guide: Guide | None = None
) -> dict[str, Tensor]:
    """State of {generator (averaged), discriminator} after training; codes are drawn with uniform labels."""
    device = images.device
    random = torch.Generator(device).manual_seed(config.seed)
    make, judge = networks["generator"], networks["discriminator"]
    average = copy.deepcopy(make)
    optimizer_g = torch.optim.Adam(make.parameters(), config.lr_generator, betas=(0.0, 0.99))
    optimizer_d = torch.optim.Adam(judge.parameters(), config.lr_discriminator, betas=(0.0, 0.99))
    networks.train()
    for step in progress(range(config.steps), "training a conditional GAN on public pictures"):
        fade = min(1.0, 2.0 * (1 - step / config.steps))
        for group, lr in ((optimizer_g, config.lr_generator), (optimizer_d, config.lr_discriminator)):
            group.param_groups[0]["lr"] = lr * fade
        chosen = torch.randint(len(images), (config.batch,), generator=random, device=device)
        real, y = jitter(images[chosen], random, 1), labels[chosen]
        codes = torch.randn(2, config.batch, config.latent, generator=random, device=device)
        wanted = torch.randint(make.classes, (2, config.batch), generator=random, device=device)
        fake = make(codes[0], wanted[0])
        loss_d = F.relu(1 - judge(real, y)).mean() + F.relu(1 + judge(fake.detach(), wanted[0])).mean()
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()
        fake = make(codes[1], wanted[1])
        loss_g = -judge(fake, wanted[1]).mean()
        if guide:
            loss_g = loss_g + guide.weight * guide.loss(fake, wanted[1], random).mean()
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
