"""Setting `classifier`, an informed adversary: all training records are known but one, and so is how training goes.

Private are `victims` digits, each the one unknown record of a released model of its own; the other `known` records, the
initial weights and the recipe are the same for all and known. The released models are small perceptrons trained by full-batch
gradient descent, with or without clipping and noise, all of them stacked into one.

A reconstruction's `data` is (victims, 1, channels, size, size) in [0, 1]: one picture for each released model.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.cache import cached
from ..common.digits import mnist5k
from ..common.metrics import ssim
from ..common.plots import gallery
from ..common.progress import progress
from ..experiment import Metric, Reconstruction, require
from ..threat_model import Knowledge, Target, WhiteBox
from .setting import ClassifierConfig, ClassifierSetting

MODULE = "implementations.classifier.informed_setting"


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; known to the adversary."""

    steps: int  # of full-batch gradient descent with momentum
    lr: float  # step on the mean gradient
    momentum: float  # of gradient descent
    clip: float  # largest Euclidean norm of one record's gradient; infinite: not clipped
    noise: float  # standard deviation of the noise on the sum of clipped gradients, in units of `clip`


@dataclass(frozen=True, kw_only=True)
class InformedConfig(ClassifierConfig):
    """Data, target and privacy; fields of the base that concern faces or evaluators have no effect."""

    data: str = "digits"  # MNIST digits, the only data here
    size: int = 12  # pixels a side: 12 or 24, digits without their black border
    known: int = 500  # training records that the adversary knows
    victims: int = 100  # unknown records, each with a released model of its own
    width: int = 10  # hidden neurons of the released models
    steps: int = 30  # of full-batch gradient descent
    lr: float = 0.2  # of gradient descent
    momentum: float = 0.9  # of gradient descent
    clip: float = 0.0  # largest norm of one record's gradient, 0 for none
    noise: float = 0.0  # standard deviation of the noise on the sum of gradients, in units of `clip`
    delta: float = 2e-4  # of differential privacy: a tenth of 1 / records
    radius: float = 0.1  # root mean squared error a pixel within which a record counts as rebuilt, for the bound

    def __post_init__(self):
        super().__post_init__()
        require(self.data == "digits", f"data must be digits, not {self.data!r}")
        require(self.preset == "paper" or self.size in (12, 24), f"size must be 12 or 24, not {self.size}")
        require(min(self.known, self.victims, self.width, self.steps) >= 1, "known, victims, width, steps: at least 1")
        require(self.noise == 0 or self.clip > 0, "noise needs a clip: it is measured in units of it")
        require(min(self.noise, self.clip) >= 0, "noise and clip must not be negative")

    @property
    def recipe(self) -> Recipe:
        return Recipe(self.steps, self.lr, self.momentum, self.clip or math.inf, self.noise)


class StackedModels(nn.Module):
    """N perceptrons with one hidden layer: pictures (B, c, s, s) to logits (N, B, C). `recipe` says how they were trained."""

    def __init__(self, weights: Mapping[str, Tensor], recipe: Recipe):
        super().__init__()
        self.weights = nn.ParameterDict({name: nn.Parameter(value) for name, value in weights.items()})
        self.recipe = recipe

    def forward(self, x: Tensor) -> Tensor:
        hidden = (x.flatten(1) @ self.weights["w1"] + self.weights["b1"][:, None]).relu()
        return torch.baddbmm(self.weights["b2"][:, None], hidden, self.weights["w2"])

    def flat(self) -> Tensor:
        """All weights of each model, (N, P)."""
        return flat(self.weights)


def flat(weights: Mapping[str, Tensor]) -> Tensor:
    """Stacked weights as rows (N, P), in the order of their names."""
    return torch.cat([weights[name].flatten(1) for name in sorted(weights)], dim=1)


def initial_weights(
    inputs: int, width: int, classes: int, generator: torch.Generator, models: tuple[int, ...] = ()
) -> dict[str, Tensor]:
    """Weights of one model, or stacked ones of `models`: normal with He's scale, biases 0."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*models, *shape, generator=generator, device=generator.device) * math.sqrt(2 / shape[0])

    zeros = {name: torch.zeros(*models, size, device=generator.device) for name, size in (("b1", width), ("b2", classes))}
    return {"w1": normal(inputs, width), "w2": normal(width, classes), **zeros}


def clipped_gradient_sum(
    weights: Mapping[str, Tensor], shared: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor], clip: float
) -> dict[str, Tensor]:
    """Sum over records of each record's gradient of cross-entropy, scaled down to norm `clip`, for each of N models.

    Records are pictures (K, D) with labels (K,), shared by all models, and one more of each model, (N, D) with (N,). What the
    models share meets all their first layers in one product. A layer's gradient for one record is an outer product, so that
    its norm needs no gradient (Goodfellow, 2015).
    """
    (x, y), (x_own, y_own), (n, d, h) = shared, own, weights["w1"].shape
    first = (x @ weights["w1"].transpose(0, 1).reshape(d, n * h)).view(-1, n, h).transpose(0, 1)  # (N, K, H)
    first = torch.cat([first, x_own[:, None] @ weights["w1"]], dim=1)  # (N, K + 1, H)
    hidden = (first + weights["b1"][:, None]).relu()
    logits = torch.baddbmm(weights["b2"][:, None], hidden, weights["w2"])
    labels = torch.cat([y.expand(n, -1), y_own[:, None]], dim=1)
    error2 = logits.softmax(dim=2) - F.one_hot(labels, logits.shape[2])  # (N, K + 1, C)
    error1 = (error2 @ weights["w2"].transpose(1, 2)) * (hidden > 0)  # (N, K + 1, H)
    if math.isfinite(clip):
        sizes = torch.cat([x.square().sum(1).expand(n, -1), x_own.square().sum(1)[:, None]], dim=1)
        squares = error1.square().sum(2) * (1 + sizes) + error2.square().sum(2) * (1 + hidden.square().sum(2))
        scale = (clip / squares.sqrt().clamp_min(1e-12)).clamp(max=1.0)[:, :, None]
        error1, error2 = error1 * scale, error2 * scale
    of_shared = (x.T @ error1[:, :-1].transpose(0, 1).reshape(-1, n * h)).view(d, n, h).transpose(0, 1)
    return {
        "w1": of_shared + x_own[:, :, None] * error1[:, -1:],
        "b1": error1.sum(1),
        "w2": hidden.transpose(1, 2) @ error2,
        "b2": error2.sum(1),
    }


@torch.no_grad()
def train_models(
    initial: Mapping[str, Tensor],
    known: tuple[Tensor, Tensor],
    extra: tuple[Tensor, Tensor],
    recipe: Recipe,
    generator: torch.Generator,
    chunk: int = 500,
) -> dict[str, Tensor]:
    """One model for each of N extra records (pictures (N, c, s, s), labels (N,)), each on the known records and that one.

    `initial` holds weights of one model, or stacked ones of N models. The models are trained `chunk` at a time, as one batch.
    """
    count, records = len(extra[0]), len(known[0]) + 1
    parts: list[dict[str, Tensor]] = []
    for start in progress(range(0, count, chunk), "training models that differ in one record"):
        chosen = slice(start, start + chunk)
        own, shared = (extra[0][chosen].flatten(1), extra[1][chosen]), (known[0].flatten(1), known[1])
        n = len(own[0])
        stacked = {k: (v[chosen] if v.ndim > 1 + k.startswith("w") else v.expand(n, *v.shape)) for k, v in initial.items()}
        weights = {name: value.clone() for name, value in stacked.items()}
        velocity = {name: torch.zeros_like(value) for name, value in weights.items()}
        for _ in range(recipe.steps):
            for name, gradient in clipped_gradient_sum(weights, shared, own, recipe.clip).items():
                if recipe.noise > 0:
                    noise = torch.randn(gradient.shape, generator=generator, device=gradient.device)
                    gradient = gradient + recipe.noise * recipe.clip * noise
                velocity[name].mul_(recipe.momentum).add_(gradient / records)
            for name in weights:
                weights[name].sub_(recipe.lr * velocity[name])
        parts.append(weights)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def concentrated_privacy(recipe: Recipe) -> float:
    """rho of zero-concentrated differential privacy when one record is added: steps / (2 noise^2).

    A Gaussian mechanism gives rho = sensitivity^2 / (2 sigma^2) and steps add up (Bun and Steinke, 2016, Prop. 1.6, Lemma 1.7).
    """
    return recipe.steps / (2 * recipe.noise**2) if recipe.noise > 0 else math.inf


def epsilon_of(rho: float, delta: float) -> float:
    """epsilon of (epsilon, delta)-differential privacy: rho + 2 sqrt(rho log(1 / delta)) (Bun and Steinke, 2016, Prop. 1.3)."""
    return rho + 2 * math.sqrt(rho * math.log(1 / delta)) if math.isfinite(rho) else math.inf


def reconstruction_bound(kappa: float, rho: float) -> float:
    """The largest chance that any informed adversary hits, who would hit with chance kappa without seeing the model.

    Renyi privacy (alpha, epsilon) bounds it by (kappa e^epsilon)^((alpha - 1) / alpha) (the paper's reconstruction
    robustness). Here epsilon = alpha rho for every alpha, and the best alpha is sqrt(log(1 / kappa) / rho).
    """
    distance = -math.log(kappa)
    return 1.0 if rho >= distance else math.exp(-((math.sqrt(distance) - math.sqrt(rho)) ** 2))


def blind_success(pictures: Tensor, radius: float) -> float:
    """kappa: the largest share of pictures (N, ...) that lies within `radius` (root mean square) of one, or of their mean."""
    rows = pictures.flatten(1)
    centres = torch.cat([rows, rows.mean(dim=0, keepdim=True)])
    return (torch.cdist(centres, rows) <= radius * math.sqrt(rows.shape[1])).float().mean(dim=1).max().item()


class InformedSetting(ClassifierSetting):
    """Many models, each trained on the same known records and one private digit."""

    config_type = InformedConfig
    headline = "success"
    metrics = {
        "success": Metric("share of records that are rebuilt more closely than by the best of all public pictures"),
        "identified": Metric("share whose reconstruction is nearest to the true one among all private records"),
        "mse": Metric("mean squared error a pixel", "", False),
        "ssim": Metric("mean structural similarity of reconstruction and record"),
        "hits": Metric("share rebuilt within the radius of the bound"),
        "hits_bound": Metric("what privacy proves of that share for every informed adversary; 1 without privacy"),
        "epsilon": Metric("epsilon of differential privacy; 1000 where there is none"),
        "model_accuracy": Metric("mean accuracy of the released models on fresh digits", "", False),
    }
    utility_metrics = {"test_accuracy": Metric("mean accuracy of the released models on fresh digits", "", False)}

    def _digits(self) -> tuple[dict[str, Tensor], Tensor]:
        images, labels = mnist5k(self.device)
        order = torch.randperm(len(images), generator=self.config.generator(self.device), device=self.device)
        return self._divide(F.avg_pool2d(images[order, :, 4:28, 4:28], 24 // self.config.size), labels[order])

    def _real(self) -> tuple[dict[str, Tensor], Tensor]:
        people, _ = super()._real()
        images, labels = (
            torch.cat([people[f"{split}{kind}"] for split in ("", "test_", "evaluator_")]) for kind in ("images", "labels")
        )
        order = torch.randperm(len(images), generator=self.config.generator(self.device), device=self.device)
        return self._divide(images[order], labels[order])

    def _divide(self, images: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Private records, known ones, a tenth to test on, and the rest as public pictures, with their labels."""
        known, victims, test = self.config.known, self.config.victims, len(images) // 10
        parts = images.split([victims, known, test, len(images) - victims - known - test])
        marks = labels.split([len(part) for part in parts])
        self.known_records, self.public_labels = (parts[1], marks[1]), marks[3]
        return {"images": parts[0], "labels": marks[0], "test_images": parts[2], "test_labels": marks[2]}, parts[3]

    @cached_property
    def start(self) -> dict[str, Tensor]:
        """The initial weights of every released model."""
        classes = int(self.public_labels.max().item()) + 1
        return initial_weights(self.public[0].numel(), self.config.width, classes, self.config.generator(self.device, 1))

    @cached_property
    def target(self) -> Target:
        c, extra = self.config, (self._all["images"], self._all["labels"])

        def build() -> dict[str, Tensor]:
            return train_models(self.start, self.known_records, extra, c.recipe, c.generator(self.device, 2))

        key = [self.start, self.known_records, extra, c.recipe, c.seed]
        model = StackedModels(cached("informed-targets", MODULE, key, build, self.device), c.recipe).requires_grad_(False)
        return Target(model, {"white-box": lambda **options: WhiteBox(model, self.device, **options)})

    def knowledge(self) -> Knowledge:
        """Known records and public pictures come with labels; `random_seed` is what it produced, the initial weights."""
        return Knowledge(
            public_images=self.public,
            public_records={"known": self.known_records, "others": (self.public, self.public_labels)},
            random_seed=self.start,
            image_shape=self.shape,
        )

    def baselines(self) -> dict[str, Callable[[torch.Generator], Reconstruction]]:
        def public_mean(_: torch.Generator) -> Reconstruction:
            """the mean of all public pictures, for every record"""
            return Reconstruction(self.public.mean(dim=0).expand(self.config.victims, 1, *self.shape))

        def random_public(generator: torch.Generator) -> Reconstruction:
            """a public picture drawn at random for every record"""
            drawn = torch.randint(len(self.public), (self.config.victims, 1), generator=generator, device=self.device)
            return Reconstruction(self.public[drawn])

        return {"public_mean": public_mean, "random_public": random_public}

    @torch.no_grad()
    def evaluate(self, reconstruction: Reconstruction) -> dict[str, float]:
        data, private, c = reconstruction.data, self.private["images"], self.config
        if data.shape != (len(private), 1, *self.shape):
            raise ValueError(f"expected pictures ({len(private)}, 1, {self.shape}), not {tuple(data.shape)}")
        images = data[:, 0].clamp(0, 1)
        errors = (images - private).square().flatten(1).mean(dim=1)
        nearest = torch.cdist(private.flatten(1), self.public.flatten(1)).min(dim=1).values.square() / images[0].numel()
        guesses = torch.cdist(images.flatten(1), private.flatten(1)).argmin(dim=1)
        rho = concentrated_privacy(c.recipe)
        return {
            "success": (errors < nearest).float().mean().item(),
            "identified": (guesses == torch.arange(len(private), device=self.device)).float().mean().item(),
            "mse": errors.mean().item(),
            "ssim": ssim(images, private).mean().item(),
            "hits": (errors.sqrt() <= c.radius).float().mean().item(),
            "hits_bound": reconstruction_bound(blind_success(self.public, c.radius), rho),
            "epsilon": min(1000.0, epsilon_of(rho, c.delta)),
            "model_accuracy": self.utility(self.target)["test_accuracy"],
        }

    def utility(self, target: Target) -> dict[str, float]:
        right = target.model(self._all["test_images"]).argmax(dim=2) == self._all["test_labels"]
        return {"test_accuracy": right.float().mean().item()}

    def figure(self, reconstructions: Mapping[str, Reconstruction]) -> Figure:
        """Private records above what each method rebuilds of them."""
        rows = {"private": self.private["images"]}
        return gallery(rows | {name.replace("_", " "): found.data[:, 0] for name, found in reconstructions.items()})
