"""Explanations of a classifier's answer as maps over the picture: how much each place counts for the predicted class.

Each takes a network that gives logits (B, C) and pictures (B, c, s, s), and returns maps (B, 1, s, s) for the class that the
network finds likeliest, scaled to a largest absolute value of 1 each.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def scaled(maps: Tensor) -> Tensor:
    """Maps (B, 1, s, s), each divided by its largest absolute value."""
    return maps / maps.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)


def likeliest(logits: Tensor) -> Tensor:
    """Sum over the batch of each row's largest logit: its derivative explains every row's own class."""
    return logits.amax(dim=1).sum()


def input_gradient(network: nn.Module, x: Tensor) -> Tensor:
    """d logit / d x, (B, c, s, s)."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(likeliest(network(x)), x)[0]


def gradient(network: nn.Module, x: Tensor) -> Tensor:
    """The gradient's largest absolute value over channels (Simonyan et al., 2014)."""
    return scaled(input_gradient(network, x).abs().amax(dim=1, keepdim=True))


def gradient_times_input(network: nn.Module, x: Tensor) -> Tensor:
    """Gradient times input, summed over channels; for ReLU networks without biases the same as relevance by LRP-0."""
    return scaled((input_gradient(network, x) * x).sum(dim=1, keepdim=True))


def grad_cam(network: nn.Module, x: Tensor) -> Tensor:
    """Activations of the last convolution, weighted by their mean gradients, rectified, enlarged (Selvaraju et al., 2017).

    The network has a `body` that ends in `Flatten` and a `head`, and takes pictures as 2 x - 1, as the targets here do.
    """
    with torch.enable_grad():
        activations = network.body[:-1](x.detach() * 2 - 1)  # (B, K, t, t)
        activations = activations.detach().requires_grad_()
        gradients = torch.autograd.grad(likeliest(network.head(activations.flatten(1))), activations)[0]
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    coarse = (weights * activations.detach()).sum(dim=1, keepdim=True).relu()
    return scaled(F.interpolate(coarse, x.shape[-2:], mode="bilinear", align_corners=False))


EXPLAINERS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "gradient": gradient,
    "gradient_times_input": gradient_times_input,
    "grad_cam": grad_cam,
}
