"""Networks whose gradients are shared, freshly initialised, and the gradients that clients compute on them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from ..common.training import seeded_weights

Update = dict[str, Tensor]  # name of a parameter -> (V, *shape), one gradient for each of V clients


def lenet(channels: int, size: int, classes: int) -> nn.Module:
    """The LeNet with sigmoids of Zhu et al. (2019), weights and biases uniform in [-0.5, 0.5] as in their code."""
    network = nn.Sequential(
        nn.Conv2d(channels, 12, 5, stride=2, padding=2),
        nn.Sigmoid(),
        nn.Conv2d(12, 12, 5, stride=2, padding=2),
        nn.Sigmoid(),
        nn.Conv2d(12, 12, 5, stride=1, padding=2),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(12 * (-(-size // 4)) ** 2, classes),
    )
    for parameter in network.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return network


def convnet(channels: int, size: int, classes: int) -> nn.Module:
    """Three 3x3 convolutions with ReLU, PyTorch's default initialisation."""
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * (-(-size // 4)) ** 2, classes),
    )


class Residual(nn.Module):
    """x + f(x) with two convolutions; group normalisation, since one client's gradient must not depend on another's batch."""

    def __init__(self, inner: int, outer: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False),
            nn.GroupNorm(4, outer),
            nn.ReLU(),
            nn.Conv2d(outer, outer, 3, padding=1, bias=False),
            nn.GroupNorm(4, outer),
        )
        self.shortcut = nn.Identity() if stride == 1 and inner == outer else nn.Conv2d(inner, outer, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet(channels: int, size: int, classes: int) -> nn.Module:
    """A small residual network of three blocks with a global average before the last layer."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        Residual(16, 16, 1),
        Residual(16, 32, 2),
        Residual(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )


NETWORKS = {"lenet": lenet, "convnet": convnet, "resnet": resnet}


def make_network(name: str, channels: int, size: int, classes: int, seed: int, device: torch.device | str) -> nn.Module:
    """A network by name with seeded first weights, untrained, in evaluation mode."""
    with seeded_weights(seed):
        network = NETWORKS[name](channels, size, classes)
    return network.to(device).eval()


def client_gradients(network: nn.Module) -> Callable[[Tensor, Tensor], Update]:
    """What clients send: images (V, B, C, H, W) and class probabilities (V, B, K) -> one gradient for each of V clients.

    The loss is the cross-entropy, mean over a client's batch of B. The gradients are differentiable in both arguments.
    """
    parameters = {name: value.detach() for name, value in network.named_parameters()}

    def loss(parameters: dict[str, Tensor], images: Tensor, targets: Tensor) -> Tensor:
        logits = functional_call(network, parameters, (images,))  # (B, K)
        return -(targets * logits.log_softmax(dim=-1)).sum(dim=-1).mean()

    per_client = vmap(grad(loss), in_dims=(None, 0, 0))
    return lambda images, targets: per_client(parameters, images, targets)


class Client(nn.Module):
    """A network with the updates that clients computed on it as buffers, so that a Target's fingerprint covers both."""

    def __init__(self, network: nn.Module, update: Update):
        super().__init__()
        self.network = network
        self.names = tuple(update)
        for number, value in enumerate(update.values()):
            self.register_buffer(f"update_{number}", value.detach().clone())

    @property
    def update(self) -> Update:
        """What was sent, by parameter."""
        return {name: self.get_buffer(f"update_{number}") for number, name in enumerate(self.names)}

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)
