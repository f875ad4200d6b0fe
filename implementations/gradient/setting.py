"""Setting `gradient`: clients of federated learning send gradients; the server sees them and wants the pictures behind.

Each of `victims` clients computed one gradient of the cross-entropy on a batch of `batch_size` pictures, on the same network,
just initialised. By default the pictures are natural-image crops. Crops have no classes, so each gets one at random; for the
attack a label is as secret as any other. The adversary is the server, which follows the protocol: it knows the network, each
client's gradient, the size of batch and pictures, and public crops of other pictures.

A reconstruction's `data` is {"images": (V, B, C, S, S) in [0, 1], "labels": (V, B)}: one batch for each client, in the clients'
order. Within a batch the order does not count.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.folders import ENDINGS, missing_data, read_picture
from ..common.images import natural_crops
from ..common.metrics import pairwise_distance, psnr, ssim
from ..common.plots import gallery
from ..experiment import Metric, Reconstruction, Setting, SettingConfig, require
from ..threat_model import Gradients, Knowledge, Target
from .networks import NETWORKS, Client, Update, client_gradients, make_network

TREES = {
    "cifar10": """  FOLDER/
    cifar-10-batches-bin/data_batch_1.bin ... data_batch_5.bin   the binary version of CIFAR-10
    cifar-10-batches-bin/test_batch.bin                          each record: 1 byte of class, 3072 bytes of picture""",
    "cifar100": """  FOLDER/
    cifar-100-binary/train.bin   the binary version of CIFAR-100
    cifar-100-binary/test.bin    each record: 1 byte of coarse class, 1 byte of fine class, 3072 bytes of picture""",
    "lfw": """  FOLDER/
    lfw/Aaron_Eckhart/Aaron_Eckhart_0001.jpg   Labeled Faces in the Wild: a folder a person
    lfw/...""",
}
# purposes of the setting's random draws, far from the small seeds that attacks use
LABELS, VICTIMS, PUBLIC, NOISE = 501, 502, 503, 504


@dataclass(frozen=True, kw_only=True)
class GradientConfig(SettingConfig):
    """Clients, network, and what the clients do to a gradient before they send it."""

    data: str = "cifar100"  # paper preset only: cifar10, cifar100 or lfw; the quick preset has natural-image crops
    model: str = "lenet"  # lenet (sigmoid, as in DLG), convnet (ReLU) or resnet (ReLU, group normalisation)
    victims: int = 10  # clients, each attacked on its own
    batch_size: int = 1  # pictures behind one gradient
    num_classes: int = 10  # quick preset only; the data set's own in the paper preset
    size: int = 32  # side of a picture in pixels; CIFAR is always 32
    public_images: int = 200  # pictures of other origin that the adversary has
    prune: float = 0.0  # share of each tensor's entries, the smallest ones, that clients set to zero
    noise_variance: float = 0.0  # variance of the Gaussian noise that clients add to each entry

    def __post_init__(self):
        super().__post_init__()
        require(self.data in TREES, f"data must be one of {', '.join(TREES)}, not {self.data!r}")
        require(self.model in NETWORKS, f"model must be one of {', '.join(NETWORKS)}, not {self.model!r}")
        require(min(self.victims, self.batch_size, self.public_images) >= 1, "victims, batch_size, public_images: at least 1")
        require(self.num_classes >= 2, f"num_classes must be at least 2, not {self.num_classes}")
        require(16 <= self.size <= 128, f"size must lie in 16 to 128, not {self.size}")
        require(0 <= self.prune < 1, f"prune must lie in [0, 1), not {self.prune}")
        require(self.noise_variance >= 0, f"noise_variance must not be negative, not {self.noise_variance}")


def gradient_target(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    perturb: Callable[[Update], Update] | None = None,
    name: str = "undefended",
) -> Target:
    """A Target that grants the gradients of clients with images (V, B, C, S, S) and labels (V, B) on a network.

    `perturb` changes the update before it is sent, {name: (V, *shape)} -> the same; a defense passes one or another network.
    """
    with torch.no_grad():
        classes = network(images[0]).shape[-1]
        update = client_gradients(network)(images, F.one_hot(labels, classes).to(images.dtype))
    model = Client(network, perturb(update) if perturb else update)
    return Target(model, {"gradients": lambda: Gradients(model.network, model.update, images.device)}, name)


def pruned(update: Update, share: float) -> Update:
    """The update with the `share` of smallest absolute entries of each client's each tensor set to zero."""
    result = {}
    for name, value in update.items():
        flat = value.flatten(1)
        drop = int(share * flat.shape[1])
        smallest = flat.abs().argsort(dim=1)[:, :drop]
        result[name] = flat.scatter(1, smallest, 0.0).view_as(value)
    return result


def noisy(update: Update, variance: float, generator: torch.Generator) -> Update:
    """The update with Gaussian noise of this variance on every entry."""
    return {
        name: value + variance**0.5 * torch.randn(value.shape, generator=generator, device=value.device)
        for name, value in update.items()
    }


def flat(update: Mapping[str, Tensor]) -> Tensor:
    """An update as one row a client, (V, P)."""
    return torch.cat([value.flatten(1) for value in update.values()], dim=1)


class GradientSetting(Setting):
    """Clients' private batches, the network they share, and public pictures."""

    name = "gradient"
    config_type = GradientConfig
    headline = "psnr"
    metrics = {
        "psnr": Metric("peak signal-to-noise ratio, median over the private pictures", "dB"),
        "ssim": Metric("structural similarity, median over the private pictures"),
        "above_25db": Metric("share of private pictures rebuilt with at least 25 dB"),
        "label_accuracy": Metric("share of private labels rebuilt"),
        "worse_than_grey": Metric("share of private pictures rebuilt worse than by a mid-grey one", "", False),
    }
    utility_metrics = {
        "update_cosine": Metric("cosine between the update sent and the true gradient, mean over clients", "", False)
    }

    def __init__(self, config: GradientConfig | None = None, device: torch.device | str = "cpu"):
        super().__init__(config, device)
        c = self.config
        loaders = {"cifar10": self._cifar, "cifar100": self._cifar, "lfw": self._lfw}
        load = self._crops if c.preset == "quick" else loaders[c.data]
        images, labels, self.public, self.classes = load(c.victims * c.batch_size)
        self.shape = tuple(images.shape[1:])
        self._data = images.view(c.victims, c.batch_size, *self.shape), labels.view(c.victims, c.batch_size)
        self.private = {"images": self._data[0], "labels": self._data[1]}

    # --- data: private images (N, C, S, S), their labels (N,), public images, number of classes

    def _crops(self, count: int) -> tuple[Tensor, Tensor, Tensor, int]:
        c = self.config
        images = natural_crops(count, c.size, c.seed, "private", self.device)
        labels = torch.randint(c.num_classes, (count,), generator=c.generator(self.device, LABELS), device=self.device)
        return images, labels, natural_crops(c.public_images, c.size, c.seed, "public", self.device), c.num_classes

    def _cifar(self, count: int) -> tuple[Tensor, Tensor, Tensor, int]:
        fine = self.config.data == "cifar100"
        train, test = ("train.bin", "test.bin") if fine else ("data_batch_1.bin", "test_batch.bin")
        folder = "cifar-100-binary" if fine else "cifar-10-batches-bin"
        images, labels = self._records(f"{folder}/{test}", fine, count, VICTIMS)
        public, _ = self._records(f"{folder}/{train}", fine, self.config.public_images, PUBLIC)
        return images, labels, public, 100 if fine else 10

    def _records(self, name: str, fine: bool, count: int, purpose: int) -> tuple[Tensor, Tensor]:
        """`count` random pictures (count, 3, 32, 32) and classes of one file of CIFAR's binary version."""
        root, head, classes = Path(self.config.folder), 2 if fine else 1, 100 if fine else 10
        path, tree = root / name, TREES[self.config.data]
        if not path.is_file():
            raise missing_data(root, tree, f"no {name}")
        content = path.read_bytes()
        if not content or len(content) % (head + 3072):
            raise missing_data(root, tree, f"{name} has {len(content)} bytes, no multiple of {head + 3072}")
        records = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, head + 3072).to(self.device)
        if len(records) < count:
            raise missing_data(root, tree, f"{name} has {len(records)} pictures and {count} are needed")
        if records[:, head - 1].max() >= classes:
            raise missing_data(root, tree, f"{name} has a class above {classes - 1}")
        order = torch.randperm(len(records), generator=self.config.generator(self.device, purpose), device=self.device)
        chosen = records[order[:count]]
        return chosen[:, head:].view(-1, 3, 32, 32).float() / 255, chosen[:, head - 1].long()

    def _lfw(self, count: int) -> tuple[Tensor, Tensor, Tensor, int]:
        """Every person is a class. Public pictures show people who are no victims."""
        root, c = Path(self.config.folder), self.config
        people = sorted(path for path in (root / "lfw").glob("*") if path.is_dir())
        pictures = [(file, who) for who, path in enumerate(people) for file in sorted(path.iterdir()) if file.suffix in ENDINGS]
        if len(people) < 2 or len(pictures) <= count:
            raise missing_data(root, TREES["lfw"], f"{len(people)} folders of people with {len(pictures)} pictures")
        order = torch.randperm(len(pictures), generator=c.generator("cpu", VICTIMS), device="cpu").tolist()
        victims = [pictures[i] for i in order[:count]]
        known = {who for _, who in victims}
        public = [pictures[i] for i in order[count:] if pictures[i][1] not in known][: c.public_images]
        if not public:
            raise missing_data(root, TREES["lfw"], "no picture of a person who is no victim")
        images, others = (torch.stack([read_picture(file, c.size) for file, _ in part]) for part in (victims, public))
        labels = torch.tensor([who for _, who in victims], device=self.device)
        return images.to(self.device), labels, others.to(self.device), len(people)

    # --- the scenario

    @functools.cached_property
    def network(self) -> nn.Module:
        """The network that the clients share, before its first step of training."""
        c = self.config
        return make_network(c.model, self.shape[0], self.shape[-1], self.classes, c.seed, self.device)

    def perturb(self, update: Update) -> Update:
        """What clients do to their gradients before they send them: nothing, pruning, noise."""
        c = self.config
        update = pruned(update, c.prune) if c.prune else update
        return noisy(update, c.noise_variance, c.generator(self.device, NOISE)) if c.noise_variance else update

    @functools.cached_property
    def target(self) -> Target:
        return gradient_target(self.network, *self._data, self.perturb)

    def knowledge(self) -> Knowledge:
        return Knowledge(
            image_shape=self.shape,
            num_classes=self.classes,
            batch_size=self.config.batch_size,
            labels=self._data[1],
            public_images=self.public,
        )

    def baselines(self) -> dict[str, Callable[[torch.Generator], Reconstruction]]:
        clients, batch = self._data[1].shape

        def with_guesses(images: Tensor, generator: torch.Generator) -> Reconstruction:
            size = (clients, batch)
            labels = torch.randint(self.classes, size, generator=generator, device=self.device)
            return Reconstruction({"images": images.expand(*size, *self.shape), "labels": labels})

        def noise(generator: torch.Generator) -> Reconstruction:
            """uniform noise and random labels"""
            images = torch.rand((clients, batch, *self.shape), generator=generator, device=self.device)
            return with_guesses(images, generator)

        def public_mean(generator: torch.Generator) -> Reconstruction:
            """the mean of all public pictures and random labels"""
            return with_guesses(self.public.mean(dim=0), generator)

        def nearest_public(_: torch.Generator) -> Reconstruction:
            """of all public pictures, each under every label, those whose gradients are nearest to the observed one"""
            update = self.target.grant("gradients").update
            gradients, pictures = client_gradients(self.network), self.public[:, None]
            with torch.no_grad():
                distances = torch.stack(
                    [
                        pairwise_distance(flat(update), flat(gradients(pictures, one.expand(len(pictures), 1, self.classes))))
                        for one in torch.eye(self.classes, device=self.device)
                    ],
                    dim=2,
                )  # (V, public, classes)
            nearest = distances.flatten(1).argsort(dim=1)[:, :batch]
            return Reconstruction({"images": self.public[nearest // self.classes], "labels": nearest % self.classes})

        return {"noise": noise, "public_mean": public_mean, "nearest_public": nearest_public}

    # --- metrics

    def evaluate(self, reconstruction: Reconstruction) -> dict[str, float]:
        images, labels = reconstruction.data["images"], reconstruction.data["labels"]
        true, true_labels = self.private["images"], self.private["labels"]
        if images.shape != true.shape or labels.shape != true_labels.shape:
            expected = f"images {tuple(true.shape)} and labels {tuple(true_labels.shape)}"
            raise ValueError(f"expected {expected}, not {tuple(images.shape)} and {tuple(labels.shape)}")
        images, labels = self.in_order(images.clamp(0, 1), labels)
        rebuilt, private = images.flatten(0, 1), true.flatten(0, 1)
        signal, grey = psnr(rebuilt, private), psnr(torch.full_like(private, 0.5), private)
        return {
            "psnr": signal.quantile(0.5).item(),
            "ssim": ssim(rebuilt, private).quantile(0.5).item(),
            "above_25db": (signal >= 25).float().mean().item(),
            "label_accuracy": (labels == true_labels).float().mean().item(),
            "worse_than_grey": (signal < grey).float().mean().item(),
        }

    def in_order(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels with each batch in the order that fits the private pictures best (least squared error)."""
        clients, batch = labels.shape
        if batch == 1:
            return images, labels
        cost = torch.cdist(self.private["images"].flatten(2), images.flatten(2)).square().cpu()
        order = torch.stack([torch.as_tensor(linear_sum_assignment(one)[1], device=self.device) for one in cost])  # (V, B)
        rows = torch.arange(clients, device=self.device)[:, None]
        return images[rows, order], labels[rows, order]

    def utility(self, target: Target) -> dict[str, float]:
        sent, true = target.grant("gradients"), gradient_target(self.network, *self._data).grant("gradients")
        return {"update_cosine": F.cosine_similarity(flat(sent.update), flat(true.update)).mean().item()}

    def figure(self, reconstructions: Mapping[str, Reconstruction]) -> Figure:
        """The private pictures above what each method made of the gradients."""
        rows = {"private": self.private["images"].flatten(0, 1)}
        for name, found in reconstructions.items():
            if found.data["images"].shape != self.private["images"].shape:
                continue  # a run with other clients
            images, _ = self.in_order(found.data["images"].clamp(0, 1), found.data["labels"])
            rows[name.replace("_", " ")] = images.flatten(0, 1)
        return gallery(rows)
