"""A generator that fills holes, trained on public pictures against a whole-picture and a crop discriminator, then cached."""

import copy
import dataclasses
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.cache import cached, content_hash
from ..common.priors import Discriminator
from ..common.progress import progress
from ..common.training import jitter, seeded_weights
from ..threat_model import WhiteBox, fingerprint
from .lomma import Watched

MODULE = __name__


@dataclass(frozen=True, kw_only=True)
class FillConfig:
    """How the generator is trained."""

    latent: int = 32  # size of the code z
    width: int = 16  # channels of the finest layers
    steps: int = 600  # generator updates
    batch: int = 32  # pictures a step
    lr: float = 1e-3  # of Adam for generator and discriminators
    diversity_weight: float = 0.5  # of the diversity loss against the adversarial one
    ema: float = 0.99  # decay of the moving average that becomes the generator
    seed: int = 0  # seed of weights, batches and codes


class Filler(nn.Module):
    """Pictures with holes (B, c + 1, s, s), the last channel 1 in the hole, and codes (B, latent) to pictures (B, c, s, s).

    What is seen is kept; only the hole is made.
    """

    def __init__(self, latent: int, channels: int, size: int, width: int):
        super().__init__()
        self.latent, self.side, self.inner = latent, size // 4, 4 * width

        def block(before: int, after: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
            convolution = nn.Conv2d(before, after, 3, stride, dilation, dilation, bias=False)
            return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())

        self.context = nn.Sequential(
            block(channels + 1, width),
            block(width, 2 * width, 2),
            block(2 * width, 4 * width, 2),
            block(4 * width, 4 * width, 1, 2),
        )
        self.project = nn.Linear(latent, self.inner * self.side**2)
        self.decode = nn.Sequential(
            block(2 * self.inner, 4 * width),
            nn.Upsample(scale_factor=2),
            block(4 * width, 2 * width),
            nn.Upsample(scale_factor=2),
            block(2 * width, width),
            nn.Conv2d(width, channels, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, seen: Tensor, z: Tensor) -> Tensor:
        code = self.project(z).view(-1, self.inner, self.side, self.side).relu()
        made = self.decode(torch.cat([self.context(seen), code], dim=1))
        pictures, mask = seen[:, :-1], seen[:, -1:]
        return pictures * (1 - mask) + made * mask


@dataclass
class Backbone:
    """The trained generator with its discriminators of whole pictures and of crops, in evaluation mode, and what they cost."""

    filler: Filler
    whole: Discriminator
    local: Discriminator
    seconds: float

    def realism(self, images: Tensor, random: torch.Generator) -> Tensor:
        """D_global + D_local of a random crop, (B,)."""
        return self.whole(images) + self.local(crop(images, random))


def crop(images: Tensor, random: torch.Generator) -> Tensor:
    """A crop of half the side, (B, c, s / 2, s / 2), at one random place for the whole batch."""
    side = images.shape[-1] // 2
    top, left = torch.randint(images.shape[-1] - side + 1, (2,), generator=random, device=images.device).tolist()
    return images[:, :, top : top + side, left : left + side]


def hide(images: Tensor, mask: Tensor) -> Tensor:
    """Pictures (B, c, s, s) with a hole where the mask (1, 1, s, s) is 1, and the mask as a last channel."""
    return torch.cat([images * (1 - mask), mask.expand(len(images), -1, -1, -1)], dim=1)


def diversity_loss(one: Tensor, two: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
    """Minus the mean distance of features (B, F) of two fillings, over that of their codes (B, Z)."""
    return -(one - two).abs().mean() / (z1 - z2).abs().mean()


def trained_backbone(oracle: WhiteBox, public: Tensor, mask: Tensor, config: FillConfig) -> Backbone:
    """The backbone for public pictures (N, c, s, s) and a hole (1, 1, s, s). The diversity is seen in the target's features."""
    channels, size = public.shape[1], public.shape[-1]
    with seeded_weights(config.seed):
        networks = nn.ModuleDict(
            {
                "filler": Filler(config.latent, channels, size, config.width),
                "whole": Discriminator(channels, size, config.width),
                "local": Discriminator(channels, size // 2, config.width),
            }
        ).to(public.device)

    def build() -> dict[str, Tensor]:
        start = time.perf_counter()
        state = train(networks, Watched(oracle), public, mask, config)
        return {**state, "seconds": torch.tensor([time.perf_counter() - start], device=public.device)}

    key = [dataclasses.asdict(config), content_hash(public), content_hash(mask), fingerprint(oracle.model)]
    state = cached(f"filler-{size}px", MODULE, key, build, public.device)
    seconds = state.pop("seconds").item()
    networks.load_state_dict(state)
    networks.eval().requires_grad_(False)
    return Backbone(networks["filler"], networks["whole"], networks["local"], seconds)


def train(networks: nn.ModuleDict, watched: Watched, public: Tensor, mask: Tensor, config: FillConfig) -> dict[str, Tensor]:
    """State of {filler (averaged), whole, local} after training."""
    random = torch.Generator(public.device).manual_seed(config.seed)
    make, judges = networks["filler"], nn.ModuleList([networks["whole"], networks["local"]])
    average = copy.deepcopy(make)
    optimizer_g = torch.optim.Adam(make.parameters(), config.lr, betas=(0.0, 0.99))
    optimizer_d = torch.optim.Adam(judges.parameters(), config.lr, betas=(0.0, 0.99))
    networks.train()

    def draw() -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(public), (config.batch,), generator=random, device=public.device)
        z = torch.randn(2, config.batch, config.latent, generator=random, device=public.device)
        return jitter(public[chosen], random, 1), z

    for step in progress(range(config.steps), "training a generator that fills holes"):
        for group in (*optimizer_g.param_groups, *optimizer_d.param_groups):
            group["lr"] = config.lr * min(1.0, 2.0 * (1 - step / config.steps))
        real, (z1, z2) = draw()
        seen = hide(real, mask)
        one, two = make(seen, z1), make(seen, z2)
        loss_d = torch.zeros((), device=public.device)
        for judge, look in zip(judges, (lambda x: x, lambda x: crop(x, random)), strict=True):
            loss_d = loss_d + F.relu(1 - judge(look(real))).mean() + F.relu(1 + judge(look(one.detach()))).mean()
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()
        adversarial = -(judges[0](one).mean() + judges[1](crop(one, random)).mean()) / 2
        features = watched(torch.cat([one, two]))[1]
        loss_g = adversarial + config.diversity_weight * diversity_loss(*features.chunk(2), z1, z2)
        optimizer_g.zero_grad()
        loss_g.backward()
        optimizer_g.step()
        with torch.no_grad():
            for kept, new in zip(average.parameters(), make.parameters(), strict=True):
                kept.lerp_(new, 1 - config.ema)
            for kept, new in zip(average.buffers(), make.buffers(), strict=True):
                kept.copy_(new)
    networks["filler"] = average
    return dict(networks.state_dict())
