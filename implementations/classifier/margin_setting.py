"""Setting `classifier`, a few pictures by heart: a homogeneous network trained far beyond zero error on few pictures.

Private are `per_class` odd and as many even MNIST digits of 12 x 12 pixels; the target is a perceptron with one output that
gradient descent drives towards the largest margin. Judged is whether reconstructions resemble the very training pictures more
than other digits: as many fresh digits of the same classes serve as the control.

A reconstruction's `data` is (2, K, channels, size, size): K pictures of the even digits, then K of the odd ones. Contrast and
brightness of a picture don't count: each is stretched to [0, 1] before it is compared, as in the official code.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.cache import cached_module
from ..common.digits import mnist5k
from ..common.metrics import psnr, ssim
from ..common.plots import gallery
from ..common.progress import progress
from ..common.training import in_batches, seeded_weights
from ..experiment import Metric, Reconstruction, require
from ..threat_model import Target, WhiteBox
from .setting import ClassifierConfig, ClassifierSetting

MODULE = "implementations.classifier.margin_setting"
RECOVERED = 0.4  # structural similarity from which a training picture counts as recovered


@dataclass(frozen=True, kw_only=True)
class MarginConfig(ClassifierConfig):
    """Data and target; fields of the base that concern faces or evaluators have no effect."""

    data: str = "digits"  # digits: even against odd MNIST digits, the only data here
    size: int = 12  # pixels a side: 12 or 24, digits without their black border
    per_class: int = 10  # training pictures of each of the two classes
    width: int = 300  # neurons of each of the two hidden layers
    first_scale: float = 1e-3  # standard deviation of the first layer's initial weights and biases
    steps: int = 500  # of full-batch gradient descent
    lr: float = 0.02  # largest step of gradient descent
    progress: float = 0.1  # largest change of the logarithm of the loss by one step, to first order

    def __post_init__(self):
        super().__post_init__()
        require(self.data == "digits", f"data must be digits, not {self.data!r}")
        require(self.preset == "paper" or self.size in (12, 24), f"size must be 12 or 24, not {self.size}")
        require(self.per_class >= 1, f"per_class must be at least 1, not {self.per_class}")


class MarginMLP(nn.Module):
    """Pictures (B, c, s, s) in [0, 1] to one number each, (B,); its sign is the class. Homogeneous in all parameters.

    Biases in the first layer only. `mean` (1, c, s, s) is subtracted first; it is that of public pictures.
    """

    def __init__(self, mean: Tensor, width: int, first_scale: float):
        super().__init__()
        self.register_buffer("mean", mean.clone())
        inputs = mean.numel()
        self.layers = nn.ModuleList(
            [nn.Linear(inputs, width), nn.Linear(width, width, bias=False), nn.Linear(width, 1, bias=False)]
        )
        nn.init.normal_(self.layers[0].weight, std=first_scale)
        nn.init.normal_(self.layers[0].bias, std=first_scale)

    def forward(self, x: Tensor) -> Tensor:
        h = (x - self.mean).flatten(1)
        for layer in self.layers[:-1]:
            h = layer(h).relu()
        return self.layers[-1](h).squeeze(1)


def log_loss(margins: Tensor) -> Tensor:
    """log sum_i log(1 + exp(-q_i)) of margins q (N,), exact also where the loss itself would be 0 in single precision."""
    return torch.where(margins > 15, -margins, F.softplus(-margins).clamp_min(1e-30).log()).logsumexp(dim=0)


def train_to_the_margin(network: MarginMLP, images: Tensor, signs: Tensor, config: MarginConfig) -> None:
    """Full-batch gradient descent on the logarithm of the logistic loss, whose direction is that of the loss itself.

    With a loss near zero plain steps stand still. A step in proportion to 1 / loss keeps the path and shortens the time (Lyu
    and Li, 2020).
    """
    parameters = list(network.parameters())
    for _ in progress(range(config.steps), "training a network to its margin"):
        margins = signs * network(images)
        gradients = torch.autograd.grad(log_loss(margins), parameters)
        step = min(config.lr, config.progress / sum(gradient.square().sum() for gradient in gradients).item())
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= step * gradient
    with torch.no_grad():  # homogeneous of degree 3: a common factor changes no decision and brings margins to about 1
        factor = (signs * network(images)).mean().item() ** (-1 / 3)
        for parameter in parameters:
            parameter *= factor


def stretched(images: Tensor) -> Tensor:
    """Each picture (B, c, s, s) shifted and scaled to fill [0, 1]."""
    low, high = images.flatten(1).aminmax(dim=1)
    return (images - low[:, None, None, None]) / (high - low).clamp_min(1e-8)[:, None, None, None]


def correlation_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference (A, B) between pictures of mean 0 and deviation 1: 0 for equal, 2 for uncorrelated ones."""

    def standard(x: Tensor) -> Tensor:
        x = x.flatten(1)
        return (x - x.mean(dim=1, keepdim=True)) / x.std(dim=1, keepdim=True).clamp_min(1e-8)

    a, b = standard(a), standard(b)
    return torch.cdist(a, b).square() / a.shape[1]


class MarginSetting(ClassifierSetting):
    """Few private digits, a network that has them by heart, fresh digits as the control."""

    config_type = MarginConfig
    headline = "recovered"
    metrics = {
        "recovered": Metric(f"share of training pictures of which some reconstruction has a similarity above {RECOVERED}"),
        "recovered_fresh": Metric("the same for as many fresh pictures of the same classes: what chance gives"),
        "closer_to_training": Metric("share of reconstructions whose nearest picture is a training one, not a fresh one"),
        "found": Metric("share of training pictures that are, among training and fresh ones, nearest to some reconstruction"),
        "found_fresh": Metric("the same for fresh pictures"),
        "distance": Metric("mean distance of a training picture to its nearest reconstruction, 2 for unrelated", "", False),
        "distance_fresh": Metric("the same for fresh pictures", "", False),
        "ssim": Metric("mean structural similarity of training pictures and their nearest reconstructions"),
        "ssim_best": Metric("the same over the best quarter of the training pictures"),
        "psnr": Metric("mean peak signal-to-noise ratio of training pictures and their nearest reconstructions", "dB"),
    }
    utility_metrics = {"test_accuracy": Metric("accuracy on digits that are not trained on", "", False)}

    def _digits(self) -> tuple[dict[str, Tensor], Tensor]:
        images, labels = mnist5k(self.device)
        order = torch.randperm(len(images), generator=self.config.generator(self.device), device=self.device)
        images, labels = F.avg_pool2d(images[order, :, 4:28, 4:28], 24 // self.config.size), labels[order] % 2
        return self._divide(images[:3000], labels[:3000], images[3000:])

    def _real(self) -> tuple[dict[str, Tensor], Tensor]:
        people, public = super()._real()
        images = torch.cat([people["images"], people["test_images"], people["evaluator_images"]])
        labels = torch.cat([people["labels"], people["test_labels"], people["evaluator_labels"]])
        return self._divide(images, labels % 2, public)

    def _divide(self, images: Tensor, labels: Tensor, public: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The first pictures of both classes to train on, as many fresh ones, the rest to test on."""
        n = self.config.per_class
        even, odd = ((labels == c).nonzero().squeeze(1) for c in (0, 1))
        parts = {"": slice(0, n), "fresh_": slice(n, 2 * n), "test_": slice(2 * n, None)}
        private = {}
        for name, part in parts.items():
            chosen = torch.cat([even[part], odd[part]])
            private |= {f"{name}images": images[chosen], f"{name}labels": labels[chosen]}
        return private, public

    @cached_property
    def target(self) -> Target:
        c, images, labels = self.config, self._all["images"], self._all["labels"]
        mean = self.public.mean(dim=0, keepdim=True)

        def make() -> MarginMLP:
            with seeded_weights(c.seed):
                return MarginMLP(mean, c.width, c.first_scale)

        def train(network: nn.Module) -> None:
            train_to_the_margin(network, images, 2.0 * labels - 1, c)

        key = [images, labels, mean, c.width, c.first_scale, c.steps, c.lr, c.progress, c.seed]
        network = cached_module("margin-mlp", MODULE, key, make, train, self.device)
        return Target(network, {"white-box": lambda **options: WhiteBox(network, self.device, **options)})

    def baselines(self) -> dict[str, Callable[[torch.Generator], Reconstruction]]:
        def public_pictures(generator: torch.Generator) -> Reconstruction:
            """twice as many other digits as were trained on, drawn at random"""
            count = 4 * self.config.per_class
            drawn = torch.randperm(len(self.public), generator=generator, device=self.device)[:count]
            return Reconstruction(self.public[drawn].unflatten(0, (2, -1)))

        return {"public_pictures": public_pictures}

    def nearest(self, data: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each picture's nearest reconstruction, stretched; distances of pictures and of reconstructions to their nearest."""
        distances = correlation_distance(pictures, data)
        return stretched(data[distances.argmin(dim=1)]), distances.min(dim=1).values, distances.min(dim=0).values

    @torch.no_grad()
    def evaluate(self, reconstruction: Reconstruction) -> dict[str, float]:
        data = reconstruction.data
        if data.ndim != 5 or len(data) != 2 or tuple(data.shape[2:]) != self.shape:
            raise ValueError(f"expected pictures (2, K, {self.shape}), not {tuple(data.shape)}")
        data = data.flatten(0, 1)
        trained, fresh = self.private["images"], self.private["fresh_images"]
        found, distance, to_trained = self.nearest(data, trained)
        chance, distance_fresh, to_fresh = self.nearest(data, fresh)
        similar = ssim(found, trained)
        nearest = correlation_distance(data, torch.cat([trained, fresh])).argmin(dim=1).unique()
        return {
            "recovered": (similar > RECOVERED).float().mean().item(),
            "recovered_fresh": (ssim(chance, fresh) > RECOVERED).float().mean().item(),
            "closer_to_training": (to_trained < to_fresh).float().mean().item(),
            "found": (nearest < len(trained)).sum().item() / len(trained),
            "found_fresh": (nearest >= len(trained)).sum().item() / len(fresh),
            "distance": distance.mean().item(),
            "distance_fresh": distance_fresh.mean().item(),
            "ssim": similar.mean().item(),
            "ssim_best": similar.topk(-(-len(similar) // 4)).values.mean().item(),
            "psnr": psnr(found, trained).mean().item(),
        }

    def utility(self, target: Target) -> dict[str, float]:
        outputs = in_batches(target.model, self._all["test_images"])
        return {"test_accuracy": ((outputs > 0) == (self._all["test_labels"] == 1)).float().mean().item()}

    def figure(self, reconstructions: Mapping[str, Reconstruction]) -> Figure:
        """The training pictures that the first method rebuilds best, each method's nearest reconstruction below."""
        trained = self.private["images"]
        first = next(iter(reconstructions.values())).data.flatten(0, 1)
        order = self.nearest(first, trained)[1].argsort()[:12]
        rows = {"private": trained[order]}
        for name, found in reconstructions.items():
            rows[name.replace("_", " ")] = self.nearest(found.data.flatten(0, 1), trained)[0][order]
        return gallery(rows)
