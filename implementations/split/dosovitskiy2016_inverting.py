r"""An up-convolutional network learns the expected picture for given features: the root of trained inversion models.

Paper: "Inverting Visual Representations with Convolutional Networks", Alexey Dosovitskiy, Thomas Brox, CVPR 2016.
https://arxiv.org/abs/1506.02753

Idea. A representation forgets: many pictures have the same features. Instead of searching for one of them, and needing a prior
made by hand to choose, let a second network learn from many pictures what to expect where these features are seen. It is
trained on the error of the picture, not of the features, so it also learns what pictures look like, and what the features leave
open comes out averaged. Deep layers give a blur, yet colours and the rough places of things are right in it. Training is slow
but done once; then one pass inverts any features, and the encoder is only ever asked, never differentiated. The paper wants to
understand networks and has no private data in view; a server that may query the client can do the same to what it receives.

Mathematics. For features $\phi = \Phi(x)$ and pictures $x_i$, the network $f$ with weights $w$ is trained to

$$\hat w = \arg\min_w \sum_i \|x_i - f(\Phi(x_i), w)\|_2^2, \qquad\text{so that ideally}\qquad
f(\phi, \hat w) = \mathbb{E}\,[\,x \mid \Phi(x) = \phi\,].$$

Deviations
1. Only the abstract and parts of the paper were at hand. That three convolutions (for maps) or linear layers (for vectors) come
   before up-convolutions of 5x5 after unpooling by zeros, with leaky ReLU between all, is our reading.
2. Sizes, steps and batches are for 32-pixel pictures: one up-convolution for each halving of the client, then a 3x3 convolution
   to the colours, whatever the cut. ADAM with one cycle of the step; features are standardised by one mean and deviation.
3. The paper trains and tests on ImageNet. Here both are portraits (`portraits.py`): the setting's crops come from a handful of
   photographs, and a network that learnt four of them by heart says nothing of what deep layers keep of others.
4. One network for each cut, as in the paper for each layer. Only networks are inverted here, not HOG, SIFT or LBP.
5. The ablation `error="features"` trains the same network to have the right features; its gradient needs the client's weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..common.progress import progress
from ..common.training import in_batches, seeded_weights
from ..experiment import Claim, Config, Experiment, Metrics, Reconstruction, Run, require
from ..threat_model import Features, Knowledge
from .portraits import PortraitSetting


@dataclass(frozen=True, kw_only=True)
class InversionConfig(Config):
    """The network, its training, and how public pictures are varied."""

    width: int = 32  # channels of up-convolutions; twice as many before them, eight times in linear layers
    slope: float = 0.3  # of leaky ReLU below 0; 0.3 in the authors' later generator, not checked for this paper
    steps: int = 1200  # training steps
    batch: int = 16  # pictures in each; paper: not checked
    lr: float = 3e-3  # largest step of ADAM, one cycle; paper: not checked
    error: str = "image"  # what is minimised: image (the paper) or features (ablation; what inversion by descent minimises)
    pairs: str = "matched"  # matched, or shuffled: each picture with another one's features (ablation)

    def __post_init__(self):
        require(min(self.width, self.steps) >= 1 and self.batch >= 2, "width and steps must be at least 1, batch at least 2")
        require(0 <= self.slope < 1, "slope must lie in [0, 1)")
        require(self.lr > 0, "lr must be above 0")
        require(self.error in ("image", "features"), f"error must be image or features, not {self.error!r}")
        require(self.pairs in ("matched", "shuffled"), f"pairs must be matched or shuffled, not {self.pairs!r}")


# --- the network --------------------------------------------------------------------------------------------------------


def unpool(x: Tensor) -> Tensor:
    """Each value (B, C, H, W) in the upper left corner of a 2x2 square of zeros, (B, C, 2H, 2W)."""
    spread = x.new_zeros((*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3]))
    spread[:, :, ::2, ::2] = x
    return spread


def up_convolution(before: int, after: int) -> nn.ConvTranspose2d:
    """`unpool` and a 5x5 convolution in one, without multiplying zeros."""
    return nn.ConvTranspose2d(before, after, 5, stride=2, padding=2, output_padding=1)


class InversionNetwork(nn.Module):
    """f: features (B, F, h, w) or (B, F) to pictures (B, C, S, S)."""

    def __init__(self, features: tuple[int, ...], picture: tuple[int, ...], width: int, slope: float):
        super().__init__()
        channels, size = picture[0], picture[-1]
        layers: list[nn.Module] = []

        def add(layer: nn.Module) -> None:
            nn.init.kaiming_normal_(layer.weight, a=slope)
            nn.init.zeros_(layer.bias)
            layers.extend([layer, nn.LeakyReLU(slope)])

        before = features[0]
        if len(features) == 1:
            side = size // 8
            for units in (8 * width, 8 * width, 2 * width * side**2):
                add(nn.Linear(before, units))
                before = units
            before = 2 * width
            layers.append(nn.Unflatten(1, (before, side, side)))
        else:
            side = features[-1]
            inner = width if 2 * side > size else 2 * width
            for _ in range(3):
                add(nn.Conv2d(before, inner, 3, padding=1))
                before = inner
        while 2 * side <= size:
            add(up_convolution(before, width))
            before, side = width, 2 * side
        short = size - side  # what convolutions without padding cut off, half on each side
        last = nn.Conv2d(before, channels, 3, padding=1)
        self.layers = nn.Sequential(*layers, nn.ReplicationPad2d((short // 2, short - short // 2) * 2), last)
        self.register_buffer("mean", torch.zeros((), device="cpu"))
        self.register_buffer("deviation", torch.ones((), device="cpu"))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers((features - self.mean) / self.deviation)


# --- training (the paper's objective) and inversion -----------------------------------------------------------------------


def squared_error(rebuilt: Tensor, wanted: Tensor) -> Tensor:
    """||x_i - f(Phi(x_i))||^2, mean over a batch (B, ...), a scalar."""
    return (rebuilt - wanted).square().flatten(1).sum(dim=1).mean()


def untrained(features: Tensor, images: Tensor, config: InversionConfig) -> InversionNetwork:
    """f before training, with the mean and deviation of the features (N, ...) of public pictures (N, C, S, S)."""
    with seeded_weights(config.seed):
        network = InversionNetwork(tuple(features.shape[1:]), tuple(images.shape[1:]), config.width, config.slope)
    network.mean.copy_(features.mean())
    network.deviation.copy_(features.std())
    return network.to(images.device)


def train_inversion(
    encode: Callable[[Tensor], Tensor], images: Tensor, config: InversionConfig, generator: torch.Generator
) -> tuple[nn.Module, list[float]]:
    """f from public pictures (N, C, S, S) and their features, and its loss a step."""
    with torch.no_grad():
        features = in_batches(encode, images)
    if config.pairs == "shuffled":
        features = features[torch.randperm(len(images), generator=generator, device=images.device)]
    network = untrained(features, images, config)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=config.steps + 1)
    losses = []
    for _ in progress(range(config.steps), "training the inversion network"):
        chosen = torch.randint(0, len(images), (config.batch,), generator=generator, device=images.device)
        rebuilt = network(features[chosen])
        if config.error == "features":
            loss = squared_error(encode(rebuilt), features[chosen]) / network.deviation**2
        else:
            loss = squared_error(rebuilt, images[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return network.eval(), losses


def attack(oracle: Features, knowledge: Knowledge, config: InversionConfig) -> Reconstruction:
    """One picture for each observed activation, (V, C, S, S) in [0, 1]: one pass of the trained network."""
    generator = config.generator(oracle.device)
    encode = oracle.client if config.error == "features" else oracle
    network, losses = train_inversion(encode, knowledge.public_images, config, generator)
    with torch.no_grad():
        rebuilt = network(oracle.observed)
    return Reconstruction(rebuilt.clamp(0, 1), {f"error of {config.error}": losses})


# --- what is measured ---------------------------------------------------------------------------------------------------


def best_baseline(runs: Mapping[str, Metrics]) -> float:
    """The highest mean PSNR, in dB, that needs no attack."""
    return max(runs[name]["psnr"] for name in ("public_mean", "nearest_public", "noise"))


def deep_layers_keep_colours_and_places(method: Metrics, runs: Mapping[str, Metrics]) -> bool:
    """Well above what needs no attack, and above the mean picture that the features of other pictures teach."""
    return method["psnr"] >= best_baseline(runs) + 1 and method["psnr"] >= runs["wrong_pairs"]["psnr"] + 1


def better_than_descent(method: Metrics, runs: Mapping[str, Metrics]) -> bool:
    """Closer to the originals than descent for each picture and than the same network trained on the features' error."""
    others = max(runs[name]["psnr"] for name in ("descent", "feature_error"))
    return method["psnr"] >= others + 1


EXPERIMENT = Experiment(
    paper="dosovitskiy2016_inverting",
    setting=PortraitSetting,
    config=InversionConfig(),
    attack=attack,
    knowledge=("public-images", "client-queries", "client-weights"),
    grant={"client": "queries"},
    options={"cut": "act1"},
    ablations={
        "wrong_pairs": Run(says="the same training with the features of other pictures", config={"pairs": "shuffled"}),
        "feature_error": Run(
            says="the same network and steps, trained to have the right features instead of the right picture",
            config={"error": "features"},
            grant={"client": "weights"},
        ),
    },
    variants={
        "middle_cut": Run(says="a cut after the third of six convolutions", options={"cut": "relu21"}),
        "last_convolution": Run(says="a cut after the last convolution", options={"cut": "relu32"}),
    },
    references={
        "descent": Run(
            says="descent on each picture with a natural-image prior, which needs the client's weights",
            paper="mahendran2015_inverting",
            config={"tv_weight": 5.0, "lr": 0.0005, "restarts": 1},
        ),
    },
    claims={
        "deep-layers-keep-colours-and-places": Claim(check=deep_layers_keep_colours_and_places, ablation="wrong_pairs"),
        "better-than-descent-in-deep-layers": Claim(check=better_than_descent, ablation="feature_error"),
    },
    smoke={"steps": 3},
    paper_scale={"width": 128, "steps": 100_000, "batch": 64, "lr": 1e-3},
)
