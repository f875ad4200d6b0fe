"""Setting `split`: the first layers of a network run on a client, the rest on a server that sees what crosses the cut.

Default data are natural-image crops; the network tells which way up they are. The other data are digits and their classes.
`cut` names the last layer on the client's side: the shallower, the easier to invert. The adversary is the server, which
follows the protocol. It holds the activations of `victims` inputs, and public images of other pictures.

A reconstruction's `data` is (V, channels, size, size) in [0, 1]: one picture for each observed activation, in its order.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ..common.digits import mnist5k
from ..common.folders import missing_data
from ..common.images import natural_crops
from ..common.metrics import pairwise_distance, psnr, ssim
from ..common.plots import gallery
from ..common.training import accuracy, in_batches
from ..experiment import Metric, Reconstruction, Setting, SettingConfig, require
from ..threat_model import Features, Knowledge, Target
from .networks import SplitNetwork, cut_after, cuts, trained_layers

CIFAR_TREE = """  FOLDER/
    cifar-10-batches-bin/data_batch_1.bin ... data_batch_5.bin   the binary version of CIFAR-10
    cifar-10-batches-bin/test_batch.bin                          each record: 1 byte of class, 3072 bytes of picture"""
MNIST_TREE = """  FOLDER/
    mnist/train-images-idx3-ubyte   mnist/train-labels-idx1-ubyte   unpacked
    mnist/t10k-images-idx3-ubyte    mnist/t10k-labels-idx1-ubyte"""
RECOGNIZABLE = 0.3  # SSIM from which He et al. (2019, Sec. 4.2) call a picture recognisable


@dataclass(frozen=True, kw_only=True)
class SplitConfig(SettingConfig):
    """Data, network and cut."""

    data: str = "crops"  # crops (of natural images; paper preset: CIFAR-10) or digits (MNIST-5k; paper preset: MNIST)
    cut: str = ""  # last layer on the client; empty: relu21 of the CNN (crops), relu2 of LeNet (digits)
    victims: int = 16  # private inputs whose activations are observed
    images: int = 3000  # private training images of the quick preset
    public_images: int = 2000  # images that the adversary has in the quick preset
    width: int = 0  # channels of the CNN's first block; 0: 16 in the quick preset, 64 in the paper's
    epochs: int = 0  # of the network's training; 0: 10 in the quick preset, 50 in the paper's

    def __post_init__(self):
        super().__post_init__()
        require(self.data in ("crops", "digits"), f"data must be crops or digits, not {self.data!r}")
        known = cuts(self.architecture)
        require(self.cut in ("", *known), f"cut must be one of {', '.join(known)}, not {self.cut!r}")
        require(min(self.victims, self.images, self.public_images) >= 1, "victims and images must be at least 1")
        require(min(self.width, self.epochs) >= 0, "width and epochs must not be negative")

    @property
    def architecture(self) -> str:
        """cnn for crops, lenet for digits."""
        return "cnn" if self.data == "crops" else "lenet"

    @property
    def cut_layer(self) -> str:
        """The last layer on the client, by name."""
        return self.cut or {"cnn": "relu21", "lenet": "relu2"}[self.architecture]


def split_target(client: nn.Module, server: nn.Module, inputs: Tensor, perturb: nn.Module | None = None) -> Target:
    """A Target that grants `features`: what a client sends for private inputs (V, C, H, W), computed once.

    `perturb` changes activations before they are sent (B, ...) -> (B, ...), in what is observed, in answers to queries and
    before the server's layers. Granted weights are those of `client` alone: the adversary does not see how activations are
    perturbed. A random one keeps its own seed, so that two runs agree. A defense passes new layers, `perturb`, or both.
    """
    model = SplitNetwork(client, server, perturb).to(inputs.device).eval()
    with torch.no_grad():
        observed = in_batches(model.send, inputs)

    def grant(client: str = "none", budget: int | None = None) -> Features:
        part = model.client if client == "weights" else nn.Sequential(model.client, model.perturb)
        return Features(part, observed, inputs.device, budget, client)

    return Target(model, {"features": grant})


def turned(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (N, C, S, S) each turned by 0 to 3 quarters, and the number of quarters (N,)."""
    quarters = torch.randint(0, 4, (len(images),), generator=generator, device=images.device)
    every = torch.stack([images.rot90(k, (2, 3)) for k in range(4)])  # (4, N, C, S, S)
    return every[quarters, torch.arange(len(images), device=images.device)], quarters


class SplitSetting(Setting):
    """Private inputs, a network that is cut in two, public images."""

    name = "split"
    config_type = SplitConfig
    headline = "psnr"
    metrics = {
        "psnr": Metric("peak signal-to-noise ratio, mean over the private inputs", "dB"),
        "psnr_median": Metric("peak signal-to-noise ratio, median over the private inputs", "dB"),
        "ssim": Metric("structural similarity, mean over the private inputs"),
        "ssim_median": Metric("structural similarity, median over the private inputs"),
        "recognizable": Metric("share of private inputs with a structural similarity of at least 0.3"),
        "feature_error": Metric(
            "distance of the client's activations from those of the private input, relative to their norm, mean", "", False
        ),
    }
    utility_metrics = {
        "test_accuracy": Metric("accuracy of the whole network on inputs of its task that it was not trained on", "", False)
    }

    def __init__(self, config: SplitConfig | None = None, device: torch.device | str = "cpu"):
        super().__init__(config, device)
        load = {
            ("quick", "crops"): self._crops,
            ("quick", "digits"): self._digits,
            ("paper", "crops"): self._cifar10,
            ("paper", "digits"): self._mnist,
        }[self.config.preset, self.config.data]
        self._data, self.public = load()
        self.private = {name: self._data[name] for name in ("inputs", "images", "labels")}
        self.classes = 4 if (self.config.preset, self.config.data) == ("quick", "crops") else 10
        self.shape = tuple(self._data["inputs"].shape[1:])

    # --- data: images and labels train the network, test_images and test_labels judge it, inputs are the victims

    def _crops(self) -> tuple[dict[str, Tensor], Tensor]:
        c = self.config
        held_out = 1000
        crops = natural_crops(c.images + held_out + c.victims, split="private", seed=c.seed, device=self.device)
        images, quarters = turned(crops, c.generator(self.device))
        public = natural_crops(c.public_images, split="public", seed=c.seed, device=self.device)
        return self._parts(images, quarters, c.images, held_out), public

    def _digits(self) -> tuple[dict[str, Tensor], Tensor]:
        c = self.config
        images, labels = mnist5k(self.device)
        count = min(c.images, 2000)
        require(c.victims + c.public_images <= 2500, "MNIST-5k has 2,500 digits for victims and the adversary together")
        order = torch.randperm(len(images), generator=c.generator(self.device), device=self.device)
        images, labels = images[order], labels[order]
        return self._parts(images, labels, count, 500), images[len(images) - c.public_images :]

    def _parts(self, images: Tensor, labels: Tensor, train: int, test: int) -> dict[str, Tensor]:
        inputs = images[train + test : train + test + self.config.victims]
        return {
            "images": images[:train],
            "labels": labels[:train],
            "test_images": images[train : train + test],
            "test_labels": labels[train : train + test],
            "inputs": inputs,
        }

    def _cifar10(self) -> tuple[dict[str, Tensor], Tensor]:
        root = Path(self.config.folder)
        folder = root / "cifar-10-batches-bin"
        train = [self._cifar_file(root, folder / f"data_batch_{i}.bin") for i in range(1, 6)]
        images, labels = (torch.cat(parts) for parts in zip(*train, strict=True))
        return self._halves(images, labels, *self._cifar_file(root, folder / "test_batch.bin"))

    def _cifar_file(self, root: Path, path: Path) -> tuple[Tensor, Tensor]:
        """Images (N, 3, 32, 32) in [0, 1] and labels (N,) of one file of the binary version."""
        if not path.is_file():
            raise missing_data(root, CIFAR_TREE, f"no {path.relative_to(root)}")
        content = path.read_bytes()
        if not content or len(content) % 3073:
            raise missing_data(root, CIFAR_TREE, f"{path.name} has {len(content)} bytes, no multiple of 3073")
        records = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, 3073).to(self.device)
        if records[:, 0].max() > 9:
            raise missing_data(root, CIFAR_TREE, f"{path.name} has a class above 9")
        return records[:, 1:].view(-1, 3, 32, 32).float() / 255, records[:, 0].long()

    def _mnist(self) -> tuple[dict[str, Tensor], Tensor]:
        root = Path(self.config.folder)
        parts = []
        for split in ("train", "t10k"):
            images = self._idx_file(root, root / "mnist" / f"{split}-images-idx3-ubyte", 3)
            labels = self._idx_file(root, root / "mnist" / f"{split}-labels-idx1-ubyte", 1)
            if len(images) != len(labels):
                raise missing_data(root, MNIST_TREE, f"{len(images)} {split} images and {len(labels)} labels")
            parts += [images[:, None].float() / 255, labels.long()]
        return self._halves(*parts)

    def _idx_file(self, root: Path, path: Path, dimensions: int) -> Tensor:
        """The bytes of an idx file as a tensor of its shape."""
        if not path.is_file():
            raise missing_data(root, MNIST_TREE, f"no {path.relative_to(root)}")
        content = path.read_bytes()
        start = 4 + 4 * dimensions
        shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions)]
        size = torch.Size(shape).numel()
        if content[:4] != bytes([0, 0, 8, dimensions]) or size == 0 or len(content) != start + size:
            raise missing_data(root, MNIST_TREE, f"{path.name} is no idx file of bytes in {dimensions} dimensions")
        return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).view(shape).to(self.device)

    def _halves(self, images: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Half of the training split trains the network, the other half is the adversary's; victims are test images."""
        g = self.config.generator(self.device)
        order = torch.randperm(len(images), generator=g, device=self.device)
        mine, public = order[: len(order) // 2], order[len(order) // 2 :]
        at = torch.randperm(len(test), generator=g, device=self.device)
        inputs, rest = at[: self.config.victims], at[self.config.victims :]
        if len(rest) == 0 or len(mine) == 0:
            tree = CIFAR_TREE if self.config.data == "crops" else MNIST_TREE
            raise missing_data(self.config.folder, tree, f"only {len(images)} images to train on, {len(test)} to test on")
        data = {
            "images": images[mine],
            "labels": labels[mine],
            "test_images": test[rest],
            "test_labels": test_labels[rest],
            "inputs": test[inputs],
        }
        return data, images[public]

    # --- the scenario

    def train_layers(self) -> "dict[str, nn.Module]":
        """The layers of the undefended network by name, in order, trained on the private task."""
        c, data = self.config, self._data
        quick = c.preset == "quick"
        width, epochs = c.width or (16 if quick else 64), c.epochs or (10 if quick else 50)
        return trained_layers(c.architecture, data["images"], data["labels"], self.classes, width, epochs, c.seed)

    @functools.cached_property
    def target(self) -> Target:
        cut = cut_after(self.train_layers(), self.config.cut_layer)
        return split_target(cut.client, cut.server, self._data["inputs"])

    def knowledge(self) -> Knowledge:
        return Knowledge(image_shape=self.shape, public_images=self.public)

    def baselines(self) -> dict[str, Callable[[torch.Generator], Reconstruction]]:
        count = len(self._data["inputs"])

        def public_mean(_: torch.Generator) -> Reconstruction:
            """the mean of all public images, for every input"""
            return Reconstruction(self.public.mean(dim=0).expand(count, *self.shape))

        def nearest_public(_: torch.Generator) -> Reconstruction:
            """for each input, the public image whose activations are nearest to the observed ones"""
            oracle = self.target.grant("features", client="queries")
            answers = in_batches(oracle, self.public)
            return Reconstruction(self.public[pairwise_distance(oracle.observed, answers).argmin(dim=1)])

        def noise(generator: torch.Generator) -> Reconstruction:
            """uniform noise"""
            return Reconstruction(torch.rand((count, *self.shape), generator=generator, device=self.device))

        return {"public_mean": public_mean, "nearest_public": nearest_public, "noise": noise}

    # --- metrics

    @torch.no_grad()
    def evaluate(self, reconstruction: Reconstruction) -> dict[str, float]:
        rebuilt, private = reconstruction.data, self.private["inputs"]
        if rebuilt.shape != private.shape:
            raise ValueError(f"expected pictures {tuple(private.shape)}, not {tuple(rebuilt.shape)}")
        signal, similar = psnr(rebuilt, private), ssim(rebuilt, private)
        client = self.target.model.client
        true, found = client(private).flatten(1), client(rebuilt.clamp(0, 1)).flatten(1)
        return {
            "psnr": signal.mean().item(),
            "psnr_median": signal.median().item(),
            "ssim": similar.mean().item(),
            "ssim_median": similar.median().item(),
            "recognizable": (similar >= RECOGNIZABLE).float().mean().item(),
            "feature_error": ((found - true).norm(dim=1) / true.norm(dim=1)).mean().item(),
        }

    def utility(self, target: Target) -> dict[str, float]:
        return {"test_accuracy": accuracy(target.model, self._data["test_images"], self._data["test_labels"])}

    def figure(self, reconstructions: Mapping[str, Reconstruction]) -> Figure:
        """The private inputs above what each method made of their activations."""
        rows = {"private": self.private["inputs"]}
        rows |= {name.replace("_", " "): found.data for name, found in reconstructions.items()}
        return gallery(rows)
