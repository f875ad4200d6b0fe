r"""MID: a classifier trained so that its predictions carry little information about its input.

Paper: "Improving Robustness to Model Inversion Attacks via Mutual Information Regularization", Tianhao Wang, Yuheng Zhang,
Ruoxi Jia, AAAI 2021. https://arxiv.org/abs/2009.05241

Idea. An inversion attack can only use what predictions say about inputs. MID adds the mutual information of input and
prediction to the training loss: enough may pass to name the class, the rest is squeezed out. For neural networks the bound of
the variational information bottleneck stands in for it: features become a Gaussian N(mu(x), sigma(x)), and their divergence
from N(0, I) is the penalty, an upper bound on the information that passes.

Mathematics. The loss penalises the information $I(X; \hat Y)$ that predictions carry about inputs. With a Gaussian feature
$T \mid x \sim \mathcal N(\mu(x), \sigma(x)^2)$ and the prior $\mathcal N(0, I)$ its bound is

$$\min\; \mathbb E\big[-\log q(y \mid T)\big]
+ \beta\, \mathbb E_x\, \mathrm{KL}\big(\mathcal N(\mu(x), \sigma(x)^2)\,\big\|\,\mathcal N(0, I)\big).$$

Deviations
1. The bottleneck has 64 units behind the same convolutions as the undefended target, and is trained as long as that.
2. The deployed model draws a fresh feature at every query, as in training, from a seeded stream so that results repeat.
   An adversary with the weights could remove the noise: `deploy_mean` shows what that gives.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.cache import cached_module
from ..common.training import seeded_weights, train_classifier
from ..experiment import Claim, Config, Experiment, Run, require
from ..threat_model import Target, classifier_target
from .networks import SmallCNN
from .setting import ClassifierSetting


@dataclass(frozen=True, kw_only=True)
class MidConfig(Config):
    """How much information may pass."""

    information_weight: float = 0.01  # lambda, weight of the divergence against the cross-entropy; official code: 0.003
    bottleneck: int = 64  # units of the stochastic feature layer
    deploy_mean: bool = False  # the deployed model uses the mean feature instead of a draw
    epochs: int = 12  # of training, as for the undefended target

    def __post_init__(self):
        require(self.information_weight >= 0, f"information_weight must not be negative: {self.information_weight}")
        require(self.bottleneck >= 1, "the bottleneck needs a unit")


class BottleneckCNN(nn.Module):
    """The target's convolutions, then a Gaussian feature layer, then a linear layer: logits (B, C)."""

    def __init__(self, channels: int, size: int, classes: int, bottleneck: int, seed: int, use_mean: bool):
        super().__init__()
        trunk = SmallCNN(channels, size, classes)
        self.body = trunk.body
        self.statistics = nn.Linear(trunk.width, 2 * bottleneck)
        self.head = nn.Linear(bottleneck, classes)
        self.seed, self.use_mean, self.calls = seed, use_mean, 0

    def gaussian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B, K) of the feature of x."""
        mean, raw = self.statistics(self.body(x * 2 - 1)).chunk(2, dim=1)
        return mean, F.softplus(raw - 5) + 1e-6

    def classify(self, mean: Tensor, deviation: Tensor) -> Tensor:
        """Logits of one draw of the feature, or of its mean where the model is deployed so."""
        if self.use_mean and not self.training:
            return self.head(mean)
        self.calls += 1  # every query gets fresh noise, the same in every repetition of an experiment
        random = torch.Generator(mean.device).manual_seed(self.seed * 1_000_003 + self.calls)
        return self.head(mean + deviation * torch.randn(mean.shape, generator=random, device=mean.device))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(*self.gaussian(x))


def information(mean: Tensor, deviation: Tensor) -> Tensor:
    """KL(N(mean, deviation^2) || N(0, I)) in nats, (B,): its mean bounds I(X; Z), and so I(X; prediction), from above."""
    return 0.5 * (mean.square() + deviation.square() - 1 - 2 * deviation.log()).sum(dim=1)


def mid_loss(network: BottleneckCNN, x: Tensor, labels: Tensor, weight: float) -> Tensor:
    """Cross-entropy + lambda * information, averaged over the batch."""
    mean, deviation = network.gaussian(x)
    return F.cross_entropy(network.classify(mean, deviation), labels) + weight * information(mean, deviation).mean()


def defend(setting: ClassifierSetting, config: MidConfig) -> Target:
    """A target trained with the regulariser on the setting's private pictures, in place of the undefended one."""
    images, labels = setting.private["images"], setting.private["labels"]

    def make() -> BottleneckCNN:
        with seeded_weights(config.seed):
            return BottleneckCNN(
                images.shape[1], images.shape[-1], setting.classes, config.bottleneck, config.seed, config.deploy_mean
            )

    def train(network: nn.Module) -> None:
        generator = config.generator(images.device)
        train_classifier(
            network,
            images,
            labels,
            generator,
            config.epochs,
            f"MID, weight {config.information_weight:g}",
            loss=lambda network, x, y: mid_loss(network, x, y, config.information_weight),
        )
        network.calls = 0

    trained = dataclasses.asdict(config) | {"deploy_mean": False}
    network = cached_module("mid", "implementations.classifier.mid", [trained, images, labels], make, train, images.device)
    return classifier_target(network, setting.device, name="mid")


EXPERIMENT = Experiment(
    paper="mid",
    setting=ClassifierSetting,
    config=MidConfig(),
    defend=defend,
    against=("gmi",),
    ablations={
        "no_regulariser": Run(says="the same stochastic network, information weight 0", config={"information_weight": 0.0})
    },
    variants={
        "weaker": Run(says="the official code's weight, 0.003", config={"information_weight": 0.003}),
        "stronger": Run(says="ten times the weight", config={"information_weight": 0.1}),
        "mean_deployed": Run(says="the noise removed at inference", config={"deploy_mean": True}),
    },
    claims={
        "less-information-less-inversion": Claim(
            check=lambda method, runs: (
                method["gmi.accuracy_top1"] <= 2 / 3 * runs["undefended"]["gmi.accuracy_top1"]
                and method["test_accuracy"] >= runs["undefended"]["test_accuracy"] - 0.03
            ),
            ablation="no_regulariser",
            not_reproduced=(
                "On this bench GMI recovers as much from networks trained with MID as from the undefended one, or more, at "
                "every weight that keeps the target usable (rows by weight). The penalty draws the features of each class "
                "together, which makes the way to the class smoother, and the undefended target is right on nearly all "
                "new pictures, so that little surplus information is there to be squeezed out. Loss, noise at inference and "
                "the parametrisation of the deviation were compared with the official code; taking the noise out "
                "(mean_deployed) and training twice as long did not change the picture."
            ),
        ),
    },
    smoke={"epochs": 1},
    paper_scale={"epochs": 100},
)
