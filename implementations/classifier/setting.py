"""Setting `classifier`: a network that tells people (or digits) apart is exposed; pictures of its classes are rebuilt.

Default data are rendered faces: 50 private identities and 1,000 disjoint public ones, whose identity parameters are known.
Options move the public domain away, bring identities closer together, or take pictures away. The strong-shift case is MNIST
with private digits 0-4 and public digits 5-9, judged by a ten-class evaluator.

A reconstruction's `data` is (classes, K, channels, size, size) in [0, 1]: K pictures for each class, in the order of classes.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from ..common import faces
from ..common.cache import cached
from ..common.digits import mnist5k
from ..common.plots import gallery
from ..common.priors import GanConfig, public_gan
from ..common.training import accuracy, in_batches
from ..experiment import Metric, Reconstruction, Setting, SettingConfig, require
from ..threat_model import Knowledge, Target, classifier_target
from .networks import ARCHITECTURES, LARGE, EvaluatorCNN, IdentityReader, SecondEvaluator
from .victims import evaluator_network, identity_reader, target_network

# Those of the renderer's identity parameters that can be read off a true picture of 32 pixels with less than half the error
# of guessing their mean; the others (noses, ears, tilt of the eyes) mostly cannot.
LEGIBLE = ("skin", "undertone", "face_width", "hair_tone", "hair_red", "hair_length", "fringe", "lip_colour")


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(SettingConfig):
    """Data, target and evaluator."""

    data: str = "faces"  # faces (rendered) or digits (MNIST 0-4 private, 5-9 public)
    identities: int = 50  # private people, the target's classes
    images: int = 24  # training pictures of each
    public_identities: int = 1000  # other people, whom the adversary has pictures of
    public_images: int = 5  # pictures of each of those
    private_data: str = "people"  # paper preset: people (folders of your own), celeba, celeba_lists, facescrub, mnist, cifar10
    public_data: str = ""  # paper preset: one of these or ffhq; empty: the usual one for the private data
    precision: str = "bf16"  # paper preset, of large networks' training on a GPU: fp32, bf16 or fp16
    compile: bool = False  # paper preset: torch.compile large networks for their training
    public_domain: str = "private"  # private: pictures taken alike; shifted: other backgrounds, light, poses
    closeness: float = 0.0  # 0 to below 1: how far private people are drawn towards a common mean
    size: int = 32  # pixels a side
    architecture: str = "cnn"  # of the target: cnn, resnet, vgg, mlp, vit, softmax; or of LARGE
    label_smoothing: float = 0.0  # of the target's training
    weight_decay: float = 5e-4  # of the target's training by AdamW
    epochs: int = 12  # of the target's training
    distractors: int = 100  # further people whom the evaluator tells apart, for the metric accuracy_open
    evaluator_epochs: int = 12  # of both evaluators' training
    reader_people: int = 2000  # further people, of whom a network learns to read identity parameters, three pictures each
    reader_epochs: int = 8  # of that network's training

    def __post_init__(self):
        super().__post_init__()
        require(self.data in ("faces", "digits"), f"data must be faces or digits, not {self.data!r}")
        require(
            self.public_domain in ("private", "shifted"),
            f"public_domain must be private or shifted, not {self.public_domain!r}",
        )
        known = (*ARCHITECTURES, *(LARGE if self.preset == "paper" else ()))
        require(self.architecture in known, f"architecture must be one of {', '.join(known)}, not {self.architecture!r}")
        require(self.identities >= 2, "at least two identities are needed")


class ClassifierSetting(Setting):
    """Private pictures, a target trained on them, public pictures, an unseen evaluator."""

    name = "classifier"
    config_type = ClassifierConfig
    headline = "accuracy_top1"
    metrics = {
        "accuracy_top1": Metric("share of reconstructions that an unseen evaluator takes for the right class"),
        "accuracy_second": Metric("the same by a second unseen evaluator of another architecture"),
        "accuracy_open": Metric(
            "accuracy where the first evaluator may also answer one of 100 strangers, so that lookalikes count less"
        ),
        "accuracy_top5": Metric("share whose class is among the unseen evaluator's five best"),
        "target_accuracy": Metric("share that the attacked model itself takes for the right class; easily fooled"),
        "feature_distance": Metric(
            "mean distance to the nearest private picture of the class, in evaluator features", "", False
        ),
        "fid": Metric("Fréchet distance to private pictures in evaluator features", "", False),
        "diversity": Metric("mean distance among reconstructions of one class, in evaluator features"),
    }
    face_metrics = {
        "identity_error": Metric(
            "mean absolute error, as a share of their range, of eight parameters of the face (skin, hair, width, lips) as a "
            "network reads them off the picture; rendered faces only",
            "",
            False,
        ),
    }
    utility_metrics = {"test_accuracy": Metric("the target's accuracy on new pictures of its classes", "", False)}

    def __init__(self, config: ClassifierConfig | None = None, device: torch.device | str = "cpu"):
        super().__init__(config, device)
        load = self._real if self.config.preset == "paper" else self._digits if self.config.data == "digits" else self._faces
        private, self.public = load()
        self.private = private
        self.classes = int(private["labels"].max().item()) + 1
        self.shape = tuple(private["images"].shape[1:])
        self._all = private
        if "identities" in private:
            self.metrics = {**self.metrics, **self.face_metrics}

    # --- data

    def _faces(self) -> tuple[dict[str, Tensor], Tensor]:
        c = self.config
        splits = {"": c.images, "test_": 8, "evaluator_": 20}

        def render() -> dict[str, Tensor]:
            g = c.generator(self.device)
            people = faces.sample_identities(c.identities, g, self.device, closeness=c.closeness)
            data = {"identities": people}
            for split, count in splits.items():
                nuisances = faces.sample_nuisances(c.identities * count, g, self.device)
                data[f"{split}images"] = faces.render(people.repeat_interleave(count, 0), nuisances, c.size)
            strangers = faces.sample_identities(c.distractors, g, self.device)
            nuisances = faces.sample_nuisances(c.distractors * splits["evaluator_"], g, self.device)
            data["distractors"] = faces.render(strangers.repeat_interleave(splits["evaluator_"], 0), nuisances, c.size)
            others = faces.sample_identities(c.public_identities, g, self.device)
            nuisances = faces.sample_nuisances(c.public_identities * c.public_images, g, self.device, domain=c.public_domain)
            data["public"] = faces.render(others.repeat_interleave(c.public_images, 0), nuisances, c.size)
            return data

        key = [
            c.seed,
            c.identities,
            c.images,
            c.closeness,
            c.distractors,
            c.public_identities,
            c.public_images,
            c.public_domain,
            c.size,
        ]
        data = cached("faces", "implementations.common.faces", key, render, self.device)
        public = data.pop("public")
        people = torch.arange(c.identities, device=self.device)
        for split, count in splits.items():
            data[f"{split}labels"] = people.repeat_interleave(count)
        strangers = c.identities + torch.arange(c.distractors, device=self.device)
        data["evaluator_images"] = torch.cat([data["evaluator_images"], data.pop("distractors")])
        data["evaluator_labels"] = torch.cat([data["evaluator_labels"], strangers.repeat_interleave(splits["evaluator_"])])
        return data, public

    def _digits(self) -> tuple[dict[str, Tensor], Tensor]:
        images, labels = mnist5k(self.device)
        g = self.config.generator(self.device)
        order = torch.randperm(len(images), generator=g, device=self.device)
        images, labels = images[order], labels[order]
        mine = labels < 5
        private, digits = images[mine], labels[mine]
        return {
            "images": private[:1250],
            "labels": digits[:1250],
            "test_images": private[1250:1500],
            "test_labels": digits[1250:1500],
            "evaluator_images": torch.cat([private[1500:], images[~mine][:1250]]),
            "evaluator_labels": torch.cat([digits[1500:], labels[~mine][:1250]]),
        }, images[~mine][1250:]

    def _real(self) -> tuple[dict[str, Tensor], Tensor]:
        from .real_data import load

        c = self.config
        return load(c.private_data, c.folder, c.size, self.device, public=c.public_data)

    # --- the scenario

    @functools.cached_property
    def target(self) -> Target:
        return classifier_target(self.train_target(), self.device)

    def train_target(self) -> nn.Module:
        """The undefended network, trained on the private pictures."""
        c, data = self.config, self._all
        return self._trained(data["images"], data["labels"], self.classes, c.architecture, c.epochs, c.label_smoothing, c.seed)

    def _trained(
        self, images: Tensor, labels: Tensor, classes: int, architecture: str, epochs: int, label_smoothing: float, seed: int
    ) -> nn.Module:
        plan = {"precision": self.config.precision, "compile": self.config.compile}
        decay = self.config.weight_decay
        return target_network(images, labels, classes, architecture, epochs, label_smoothing, decay, seed, plan)

    @functools.cached_property
    def evaluator(self) -> nn.Module:
        """An unseen judge of another architecture, trained on other pictures.

        It knows more classes than the target: for faces `distractors` further people, for digits all ten.
        """
        return self._judge(EvaluatorCNN, 0, seed=self.config.seed + 7)

    @functools.cached_property
    def second_evaluator(self) -> nn.Module:
        """Another unseen judge, of a third architecture and another seed, trained on the same pictures as the first."""
        return self._judge(SecondEvaluator, 1, seed=self.config.seed + 13)

    def _judge(self, kind: type[nn.Module], place: int, seed: int) -> nn.Module:
        """A small evaluator of that kind; beside a large target, the large architecture in that place among the others."""
        data, c = self._all, self.config
        images, labels = data["evaluator_images"], data["evaluator_labels"]
        classes = int(labels.max().item()) + 1
        if c.architecture in LARGE:
            architecture = [name for name in LARGE if name != c.architecture][place]
            return self._trained(images, labels, classes, architecture, c.evaluator_epochs, 0.0, seed)
        return evaluator_network(images, labels, classes, c.evaluator_epochs, seed, kind)

    @functools.cached_property
    def reader(self) -> IdentityReader:
        """Reads the legible identity parameters off rendered faces; trained on people that occur nowhere else."""
        c = self.config
        g = c.generator(self.device, purpose=1)
        people = faces.sample_identities(c.reader_people, g, self.device)
        images = faces.render(people.repeat_interleave(3, 0), faces.sample_nuisances(3 * len(people), g, self.device), c.size)
        return identity_reader(images, people[:, legible()].repeat_interleave(3, 0), c.reader_epochs, c.seed + 19)

    def prepare(self) -> None:
        """Trains target and both evaluators. Several processes of one launch train together, so all must come here."""
        _ = self.target, self.evaluator, self.second_evaluator

    def knowledge(self) -> Knowledge:
        return Knowledge(public_images=self.public, num_classes=self.classes, image_shape=self.shape)

    def baselines(self) -> dict[str, Callable[[torch.Generator], Reconstruction]]:
        def public_mean(_: torch.Generator) -> Reconstruction:
            """the mean of all public pictures, for every class"""
            return Reconstruction(self.public.mean(dim=0).expand(self.classes, 1, *self.shape))

        def nearest_public(_: torch.Generator) -> Reconstruction:
            """for each class, the four public pictures that the target scores highest"""
            scores = in_batches(self.target.grant("scores"), self.public)
            return Reconstruction(self.public[scores.topk(4, dim=0).indices.T])

        def random_latents(generator: torch.Generator) -> Reconstruction:
            """random samples of the public prior"""
            prior = public_gan(self.public, GanConfig())
            drawn = in_batches(prior.generator, prior.sample(4 * self.classes, generator))
            return Reconstruction(drawn.view(self.classes, 4, *self.shape))

        return {"public_mean": public_mean, "nearest_public": nearest_public, "random_latents": random_latents}

    # --- metrics

    @torch.no_grad()
    def evaluate(self, reconstruction: Reconstruction) -> dict[str, float]:
        data = reconstruction.data
        if data.ndim != 5 or len(data) != self.classes or tuple(data.shape[2:]) != self.shape:
            raise ValueError(f"expected pictures ({self.classes}, K, {self.shape}), not {tuple(data.shape)}")
        classes, count = data.shape[:2]
        images = data.reshape(classes * count, *self.shape).clamp(0, 1)
        labels = torch.arange(classes, device=self.device).repeat_interleave(count)
        logits = in_batches(self.evaluator, images)
        features = in_batches(self.evaluator.features, images)
        second = in_batches(self.second_evaluator, images)
        known = classes if "identities" in self.private else logits.shape[1]  # strangers are no answer, other digits are
        closed, second = logits[:, :known], second[:, :known]
        ranks = closed.topk(min(5, known), dim=1).indices == labels[:, None]
        private = in_batches(self.evaluator.features, self.private["images"])
        distances = torch.cdist(features, private)
        distances[labels[:, None] != self.private["labels"]] = torch.inf
        within = torch.cdist(features.view(classes, count, -1), features.view(classes, count, -1))
        measured = {
            "accuracy_top1": ranks[:, 0].float().mean().item(),
            "accuracy_second": (second.argmax(dim=1) == labels).float().mean().item(),
            "accuracy_open": (logits.argmax(dim=1) == labels).float().mean().item(),
            "accuracy_top5": ranks.any(dim=1).float().mean().item(),
            "target_accuracy": accuracy(self.target.model, images, labels),
            "feature_distance": distances.min(dim=1).values.mean().item(),
            "fid": self.fid(images),
            "diversity": (within.sum() / max(1, classes * count * (count - 1))).item(),
        }
        if "identity_error" in self.metrics:
            read = in_batches(self.reader, images)
            true = self.private["identities"][:, legible()][labels]
            measured["identity_error"] = faces.identity_error(read, true).mean().item()
        return measured

    def fid(self, images: Tensor) -> float:
        """Fréchet distance between all given pictures and the private ones, in the evaluator's features."""
        distance = FrechetInceptionDistance(feature=_Identity(self.evaluator.width)).to(self.device)
        distance.update(in_batches(self.evaluator.features, self.private["images"]), real=True)
        distance.update(in_batches(self.evaluator.features, images), real=False)
        return distance.compute().item()

    def utility(self, target: Target) -> dict[str, float]:
        return {"test_accuracy": accuracy(target.model, self._all["test_images"], self._all["test_labels"])}

    def figure(self, reconstructions: Mapping[str, Reconstruction]) -> Figure:
        """One private picture of each class above the first reconstruction of it by each method."""
        first = [int((self.private["labels"] == c).nonzero()[0].item()) for c in range(self.classes)]
        rows = {"private": self.private["images"][first]}
        rows |= {
            name.replace("_", " "): found.data[:, 0]
            for name, found in reconstructions.items()
            if len(found.data) == self.classes
        }
        return gallery(rows)


def legible() -> list[int]:
    """The columns of LEGIBLE among the renderer's identity parameters."""
    names = [parameter.name for parameter in faces.IDENTITY]
    return [names.index(name) for name in LEGIBLE]


class _Identity(nn.Identity):
    """Features go to torchmetrics as they are; it only asks for their number."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features
