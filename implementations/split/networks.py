"""Networks that are cut in two, by the names of their layers, and their training on a task."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from ..common.cache import cached_module
from ..common.training import seeded_weights, train_classifier

MODULE = "implementations.split.networks"
MEAN, DEVIATION = 0.5, 0.25  # of pixel values, about


class Standardize(nn.Module):
    """Pixels in [0, 1] to about zero mean and unit variance."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - MEAN) / DEVIATION


def cnn_layers(channels: int, size: int, classes: int, width: int) -> "OrderedDict[str, nn.Module]":
    """Six 3x3 convolutions in three pairs and two linear layers (He et al. 2019, Table 2, CIFAR-10; their width is 64)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(standardize=Standardize())
    before = channels
    for block, after in enumerate((width, 2 * width, 2 * width), 1):
        for part in (1, 2):
            layers[f"conv{block}{part}"] = nn.Conv2d(before, after, 3, padding=1)
            layers[f"relu{block}{part}"] = nn.ReLU()
            before = after
        layers[f"pool{block}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear(2 * width * (size // 8) ** 2, 8 * width)
    layers["act1"] = nn.Sigmoid()
    layers["fc2"] = nn.Linear(8 * width, classes)
    return layers


def lenet_layers(channels: int, size: int, classes: int) -> "OrderedDict[str, nn.Module]":
    """LeNet-5: two 5x5 convolutions and three linear layers (He et al. 2019, Table 2, MNIST)."""
    side = ((size - 4) // 2 - 4) // 2
    return OrderedDict(
        standardize=Standardize(),
        conv1=nn.Conv2d(channels, 8, 5),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(8, 16, 5),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(16 * side * side, 120),
        act1=nn.ReLU(),
        fc2=nn.Linear(120, 84),
        act2=nn.ReLU(),
        fc3=nn.Linear(84, classes),
    )


def cuts(architecture: str) -> list[str]:
    """The layers after which a network can be cut: all but the input's scaling and the last."""
    layers = cnn_layers(3, 32, 2, 1) if architecture == "cnn" else lenet_layers(1, 32, 2)
    return list(layers)[1:-1]


class SplitNetwork(nn.Module):
    """A client's layers, what the client does to their activations before it sends them, and the server's layers."""

    def __init__(self, client: nn.Module, server: nn.Module, perturb: nn.Module | None = None):
        super().__init__()
        self.client, self.server = client, server
        self.perturb = nn.Identity() if perturb is None else perturb

    def send(self, x: Tensor) -> Tensor:
        """What crosses the cut, (B, ...), for inputs x (B, C, H, W)."""
        return self.perturb(self.client(x))

    def forward(self, x: Tensor) -> Tensor:
        """The task's logits (B, classes)."""
        return self.server(self.send(x))


def cut_after(layers: "OrderedDict[str, nn.Module]", cut: str) -> SplitNetwork:
    """The first layers up to and with `cut` for the client, the rest for the server."""
    names = list(layers)
    at = names.index(cut) + 1
    return SplitNetwork(
        nn.Sequential(OrderedDict((name, layers[name]) for name in names[:at])),
        nn.Sequential(OrderedDict((name, layers[name]) for name in names[at:])),
    )


def trained_layers(
    architecture: str, images: Tensor, labels: Tensor, classes: int, width: int, epochs: int, seed: int
) -> "OrderedDict[str, nn.Module]":
    """All layers by name, trained on images (N, C, S, S) and labels (N,); cached. The cut plays no part in training."""
    channels, size = images.shape[1], images.shape[-1]

    def make() -> nn.Module:
        with seeded_weights(seed):
            if architecture == "cnn":
                return nn.Sequential(cnn_layers(channels, size, classes, width))
            return nn.Sequential(lenet_layers(channels, size, classes))

    def train(network: nn.Module) -> None:
        generator = torch.Generator(images.device).manual_seed(seed)
        train_classifier(network, images, labels, generator, epochs, "the network to be cut", lr=1e-3)

    key = [architecture, images, labels, classes, width, epochs, seed]
    return OrderedDict(cached_module("split", MODULE, key, make, train, images.device).named_children())
