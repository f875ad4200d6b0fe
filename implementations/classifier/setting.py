"""Setting `classifier`: a network that tells people (or digits) apart is exposed; pictures of its classes are rebuilt.

Default data are rendered faces: 50 private identities and 1,000 disjoint public ones, whose identity parameters are known.
Options move the public domain away, bring identities closer together, or take pictures away. The strong-shift case is MNIST
with private digits 0-4 and public digits 5-9, judged by a ten-class evaluator.

A reconstruction's `data` is (classes, K, channels, size, size) in [0, 1]: K pictures for each class, in the order of classes.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from ..common import faces
from ..common.cache import cached
from ..common.digits import mnist5k
from ..common.folders import missing_data, read_pictures
from ..common.plots import gallery
from ..common.priors import GanConfig, public_gan
from ..common.training import accuracy, in_batches
from ..experiment import Metric, Reconstruction, Setting, SettingConfig, require
from ..threat_model import Knowledge, Target, classifier_target
from .networks import ARCHITECTURES, EvaluatorCNN
from .victims import evaluator_network, target_network

TREE = """  FOLDER/
    private/<person>/*.jpg   at least 4 pictures a person: the target is trained on three quarters of them
    public/**/*.jpg          pictures of other people: what the adversary has"""


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(SettingConfig):
    """Data, target and evaluator."""

    data: str = "faces"  # faces (rendered) or digits (MNIST 0-4 private, 5-9 public)
    identities: int = 50  # private people, the target's classes
    images: int = 24  # training pictures of each
    public_identities: int = 1000  # other people, whom the adversary has pictures of
    public_images: int = 5  # pictures of each of those
    public_domain: str = "private"  # private: pictures taken alike; shifted: other backgrounds, light, poses
    closeness: float = 0.0  # 0 to below 1: how far private people are drawn towards a common mean
    size: int = 32  # pixels a side
    architecture: str = "cnn"  # of the target: cnn or softmax (regression)
    label_smoothing: float = 0.0  # of the target's training
    weight_decay: float = 5e-4  # of the target's training by AdamW
    epochs: int = 12  # of the target's training
    distractors: int = 100  # further people whom the evaluator tells apart, for the metric accuracy_open
    evaluator_epochs: int = 12  # of the evaluator's training

    def __post_init__(self):
        super().__post_init__()
        require(self.data in ("faces", "digits"), f"data must be faces or digits, not {self.data!r}")
        require(
            self.public_domain in ("private", "shifted"),
            f"public_domain must be private or shifted, not {self.public_domain!r}",
        )
        require(self.architecture in ARCHITECTURES, f"architecture must be one of {', '.join(ARCHITECTURES)}")
        require(self.identities >= 2, "at least two identities are needed")


class ClassifierSetting(Setting):
    """Private pictures, a target trained on them, public pictures, an unseen evaluator."""

    name = "classifier"
    config_type = ClassifierConfig
    headline = "accuracy_top1"
    metrics = {
        "accuracy_top1": Metric("share of reconstructions that an unseen evaluator takes for the right class"),
        "accuracy_open": Metric(
            "the same where the evaluator may also answer one of 100 strangers, so that lookalikes count less"
        ),
        "accuracy_top5": Metric("share whose class is among the unseen evaluator's five best"),
        "target_accuracy": Metric("share that the attacked model itself takes for the right class; easily fooled"),
        "feature_distance": Metric(
            "mean distance to the nearest private picture of the class, in evaluator features", "", False
        ),
        "fid": Metric("Fréchet distance to private pictures in evaluator features", "", False),
        "diversity": Metric("mean distance among reconstructions of one class, in evaluator features"),
    }
    utility_metrics = {"test_accuracy": Metric("the target's accuracy on new pictures of its classes", "", False)}

    def __init__(self, config: ClassifierConfig | None = None, device: torch.device | str = "cpu"):
        super().__init__(config, device)
        load = self._folder if self.config.preset == "paper" else self._digits if self.config.data == "digits" else self._faces
        private, self.public = load()
        self.private = private
        self.classes = int(private["labels"].max().item()) + 1
        self.shape = tuple(private["images"].shape[1:])
        self._all = private

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

    def _folder(self) -> tuple[dict[str, Tensor], Tensor]:
        root = Path(self.config.folder)
        people = sorted(path for path in (root / "private").glob("*") if path.is_dir())
        if not people or not (root / "public").is_dir():
            raise missing_data(root, TREE, "no folders of people in private/, or no public/")
        parts: dict[str, list[Tensor]] = {"": [], "test_": [], "evaluator_": []}
        for person in people:
            pictures = read_pictures(person, self.config.size, self.device)
            if len(pictures) < 4:
                raise missing_data(person, TREE, f"only {len(pictures)} pictures")
            cut, keep = len(pictures) // 2, max(1, len(pictures) // 8)
            parts[""].append(pictures[: cut - keep] if cut > keep else pictures[:1])
            parts["test_"].append(pictures[cut - keep : cut] if cut > keep else pictures[1:2])
            parts["evaluator_"].append(pictures[cut:])
        data = {}
        for split, groups in parts.items():
            data[f"{split}images"] = torch.cat(groups)
            counts = torch.tensor([len(group) for group in groups], device=self.device)
            data[f"{split}labels"] = torch.arange(len(groups), device=self.device).repeat_interleave(counts)
        return data, read_pictures(root / "public", self.config.size, self.device)

    # --- the scenario

    @functools.cached_property
    def target(self) -> Target:
        return classifier_target(self.train_target(), self.device)

    def train_target(self) -> nn.Module:
        """The undefended network, trained on the private pictures."""
        c, data = self.config, self._all
        return target_network(
            data["images"], data["labels"], self.classes, c.architecture, c.epochs, c.label_smoothing, c.weight_decay, c.seed
        )

    @functools.cached_property
    def evaluator(self) -> EvaluatorCNN:
        """An unseen judge of another architecture, trained on other pictures.

        It knows more classes than the target: for faces `distractors` further people, for digits all ten.
        """
        data, c = self._all, self.config
        classes = int(data["evaluator_labels"].max().item()) + 1
        epochs = c.evaluator_epochs
        return evaluator_network(data["evaluator_images"], data["evaluator_labels"], classes, epochs, c.seed + 7)

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
        closed = logits if self.config.data == "digits" else logits[:, :classes]
        ranks = closed.topk(5, dim=1).indices == labels[:, None]
        private = in_batches(self.evaluator.features, self.private["images"])
        distances = torch.cdist(features, private)
        distances[labels[:, None] != self.private["labels"]] = torch.inf
        within = torch.cdist(features.view(classes, count, -1), features.view(classes, count, -1))
        return {
            "accuracy_top1": ranks[:, 0].float().mean().item(),
            "accuracy_open": (logits.argmax(dim=1) == labels).float().mean().item(),
            "accuracy_top5": ranks.any(dim=1).float().mean().item(),
            "target_accuracy": accuracy(self.target.model, images, labels),
            "feature_distance": distances.min(dim=1).values.mean().item(),
            "fid": self.fid(images),
            "diversity": (within.sum() / max(1, classes * count * (count - 1))).item(),
        }

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


class _Identity(nn.Identity):
    """Features go to torchmetrics as they are; it only asks for their number."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features
