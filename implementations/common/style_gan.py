"""A small style-based generator of public pictures: the prior of attacks that search a style space.

A mapping network turns codes z into styles w; at each resolution a style sets gain and shift of every normalised channel
(Karras et al., 2019). One style may serve all layers (space W) or each layer have its own (space W+). The mapping ends in a
leaky ReLU; undoing it gives the space P, in which the styles of random codes are close to normal (Zhu et al., 2020).

Smaller and quicker to train than StyleGAN: channels are normalised over the batch instead of the picture, the coarsest style
makes the 4x4 features instead of changing constant ones, there are no noise inputs. Otherwise trained like `common.priors`,
with style mixing; once for the same public pictures and options, then cached.
"""

import dataclasses
import itertools
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .cache import cached, content_hash
from .priors import Discriminator, GanConfig, Prior, train_gan
from .training import in_batches, seeded_weights

SLOPE = 0.2  # of the leaky ReLUs of the mapping


@dataclass(frozen=True, kw_only=True)
class StyleGanConfig(GanConfig):
    """How the prior is trained. `latent` is the size of codes and of styles, `width` the channels of the finest layer."""

    depth: int = 3  # fully connected layers of the mapping network
    lr_mapping: float = 0.1  # learning rate of the mapping network, as a share of the generator's
    mean_of: int = 10000  # random codes whose styles are averaged for truncation


def to_p(w: Tensor) -> Tensor:
    """Styles before the mapping's last leaky ReLU: from W to P, any shape."""
    return F.leaky_relu(w, 1 / SLOPE)


def to_w(p: Tensor) -> Tensor:
    """From P back to W."""
    return F.leaky_relu(p, SLOPE)


class SlowLinear(nn.Module):
    """A linear layer whose weights are kept divided by `rate`, so that Adam moves them by `rate` times its step."""

    def __init__(self, size: int, rate: float):
        super().__init__()
        self.rate = rate
        self.weight = nn.Parameter(torch.empty(size, size, device="cpu"))
        self.bias = nn.Parameter(torch.zeros(size, device="cpu"))
        nn.init.kaiming_normal_(self.weight, SLOPE)
        self.weight.data /= rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.rate * self.weight, self.rate * self.bias)


class Mapping(nn.Module):
    """Codes z (..., latent) to styles w of the same shape; the length of a code does not count."""

    def __init__(self, latent: int, depth: int, rate: float):
        super().__init__()
        self.layers = nn.ModuleList(SlowLinear(latent, rate) for _ in range(depth))

    def forward(self, z: Tensor) -> Tensor:
        x = z * (z.square().mean(dim=-1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            x = to_w(layer(x))
        return x


class StyleBlock(nn.Module):
    """Twice as many pixels, a 3x3 convolution, and normalised channels whose gain and shift the style w (B, latent) sets."""

    def __init__(self, latent: int, channels_in: int, channels_out: int):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels_out, affine=False)
        self.style = nn.Linear(latent, 2 * channels_out)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        gain, shift = self.style(w)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(shift, self.norm(self.conv(F.interpolate(x, scale_factor=2))), 1 + gain).relu()


class StyleGenerator(nn.Module):
    """z (B, latent) to pictures (B, channels, size, size) in [0, 1]; size is 4 times a power of 2.

    `mapping` gives styles, `synthesis` pictures of styles, `mean` is the average style. `layers` counts the styles of a
    picture, one for each resolution from coarse to fine.
    """

    def __init__(self, latent: int, channels: int, size: int, width: int, depth: int, rate: float):
        super().__init__()
        self.layers = (size // 4).bit_length()
        if 4 * 2 ** (self.layers - 1) != size:
            raise ValueError(f"the generator makes pictures of 8, 16, 32, 64 ... pixels, not {size}")
        widths = [width * min(8, 2 ** (self.layers - 1 - i)) for i in range(self.layers)]
        self.latent, self.first = latent, widths[0]
        self.mapping = Mapping(latent, depth, rate)
        self.project = nn.Linear(latent, widths[0] * 16)
        self.norm = nn.BatchNorm2d(widths[0])
        self.blocks = nn.ModuleList(StyleBlock(latent, before, after) for before, after in itertools.pairwise(widths))
        self.picture = nn.Conv2d(widths[-1], channels, 3, padding=1)
        self.register_buffer("mean", torch.zeros(latent, device="cpu"))

    def synthesis(self, w: Tensor) -> Tensor:
        """Pictures of styles (B, latent), one for all layers, or (B, layers, latent)."""
        if w.ndim == 2:
            w = w[:, None].expand(-1, self.layers, -1)
        x = self.norm(self.project(w[:, 0]).view(-1, self.first, 4, 4)).relu()
        for i, block in enumerate(self.blocks, start=1):
            x = block(x, w[:, i])
        return self.picture(x).sigmoid()

    def truncate(self, w: Tensor, psi: float, layers: int | None = None) -> Tensor:
        """Styles (B, latent) or (B, layers, latent) drawn to the mean by the factor psi, in the coarsest layers only if given.

        Gives (B, layers, latent).
        """
        if w.ndim == 2:
            w = w[:, None].expand(-1, self.layers, -1)
        count = self.layers if layers is None else layers
        return torch.cat([self.mean + psi * (w[:, :count] - self.mean), w[:, count:]], dim=1)

    def forward(self, z: Tensor) -> Tensor:
        w = self.mapping(z)
        return self.synthesis(self.mixed(w) if self.training else w)

    def mixed(self, w: Tensor) -> Tensor:
        """Style mixing, (B, layers, latent): half of the pictures take their finer layers from the next one in the batch.

        The cut goes round the layers from picture to picture, so that no randomness is needed.
        """
        place = torch.arange(len(w), device=w.device)
        cut = torch.where(place % 2 == 0, self.layers, 1 + place // 2 % max(1, self.layers - 1))
        own = torch.arange(self.layers, device=w.device) < cut[:, None]
        return torch.where(own[:, :, None], w[:, None], w.roll(1, dims=0)[:, None])


def style_gan(images: Tensor, config: StyleGanConfig | None = None) -> Prior:
    """The prior for public pictures (N, C, S, S) in [0, 1], on their device; its `generator` is a StyleGenerator."""
    config = config or StyleGanConfig()
    channels, size = images.shape[1], images.shape[-1]
    device = images.device
    with seeded_weights(config.seed):
        generator = StyleGenerator(config.latent, channels, size, config.width, config.depth, config.lr_mapping)
        discriminator = Discriminator(channels, size, config.width)
    networks = nn.ModuleDict({"generator": generator, "discriminator": discriminator}).to(device)

    def build() -> dict[str, Tensor]:
        start = time.perf_counter()
        networks.load_state_dict(train_gan(networks, images, config))
        random = torch.Generator(device).manual_seed(config.seed)
        codes = torch.randn(config.mean_of, config.latent, generator=random, device=device)
        average = networks["generator"]
        average.mean.copy_(in_batches(average.mapping, codes).mean(dim=0).detach())
        return {**networks.state_dict(), "seconds": torch.tensor([time.perf_counter() - start], device=device)}

    key = [dataclasses.asdict(config), content_hash(images)]
    state = cached(f"style-gan-{size}px", "implementations.common.style_gan", key, build, device)
    seconds = state.pop("seconds").item()
    networks.load_state_dict(state)
    networks.eval().requires_grad_(False)
    return Prior(networks["generator"], networks["discriminator"], seconds)
