"""The targets of the literature at paper scale: torchvision's networks, untrained, for pictures of 64 pixels and more.

    resnet152     PPA's target. Below 112 pixels the first convolution is 3x3 without stride instead of 7x7 with stride 2, so
                  that 64 pixels give the same 4x4 map before pooling as the face networks IR-152 of KED-MI.
    vgg16         GMI's target: the convolutions of VGG-16 with batch normalisation, then a batch normalisation of the flat
                  features whose shift is not learned, then one linear layer.
    facenet       In place of face.evoLVe's IR-50, the "FaceNet" of GMI and KED-MI, which torchvision does not have: ResNet-50
                  without stride in front and without pooling at the end, then KED-MI's output layer (batch normalisation,
                  dropout, linear, batch normalisation) to an embedding of 512 numbers.
    vit_b_16      The base vision transformer. The patch shrinks with the picture (4 pixels at 64), so that there are about as
                  many patches as the 14 x 14 that ViT-B/16 has at 224.
    inception_v3  PPA's evaluator, on pictures enlarged to the 299 pixels it is made for.

The literature starts from weights learned on ImageNet or MS-Celeb-1M; here all start at random, which costs accuracy on small
data sets. Every network takes pictures (B, channels, size, size) in [0, 1].
"""

from collections.abc import Callable

from torch import Tensor, nn
from torchvision import models
from torchvision.models import VisionTransformer

from ..common.bounded import bounded
from ..experiment import require


class LargeNetwork(nn.Module):
    """A trunk (B, channels, size, size) in [-1, 1] to (B, width), and a linear layer. `forward` gives logits (B, classes).

    `memory` bounds the bytes of activations that a batch may leave in evaluation mode; None is half of what a GPU has free.
    """

    memory: int | None = None

    def __init__(self, trunk: nn.Module, width: int, classes: int):
        super().__init__()
        self.trunk, self.width = trunk, width
        self.head = nn.Linear(width, classes)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer reads: pictures in [0, 1] to (B, width)."""
        return bounded(self.trunk, x * 2 - 1, self.memory)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def _residual(make: Callable[..., models.ResNet], channels: int, small: bool) -> models.ResNet:
    network = make(weights=None)
    kernel = {"kernel_size": 3, "stride": 1, "padding": 1} if small else {"kernel_size": 7, "stride": 2, "padding": 3}
    network.conv1 = nn.Conv2d(channels, 64, bias=False, **kernel)
    network.fc = nn.Identity()
    return network


def _resnet152(channels: int, size: int) -> tuple[nn.Module, int]:
    return _residual(models.resnet152, channels, size < 112), 2048


def _vgg16(channels: int, size: int) -> tuple[nn.Module, int]:
    convolutions = models.vgg16_bn(weights=None).features
    if channels != 3:
        convolutions[0] = nn.Conv2d(channels, 64, 3, padding=1)
    width = 512 * (size // 32) ** 2
    norm = nn.BatchNorm1d(width)
    norm.bias.requires_grad_(False)
    return nn.Sequential(convolutions, nn.Flatten(), norm), width


def _facenet(channels: int, size: int) -> tuple[nn.Module, int]:
    trunk = nn.Sequential(*list(_residual(models.resnet50, channels, True).children())[:-2])
    side = -(-size // 16)
    embedding = [nn.BatchNorm2d(2048), nn.Dropout(), nn.Flatten(), nn.Linear(2048 * side**2, 512), nn.BatchNorm1d(512)]
    return nn.Sequential(trunk, *embedding), 512


def _vit_b_16(channels: int, size: int) -> tuple[nn.Module, int]:
    patch = 1 << ((size // 14).bit_length() - 1)  # the largest power of two that leaves at least 14 patches a side
    require(size % patch == 0, f"vit_b_16 cuts {size} pixels into patches of {patch}, which does not go")
    network = VisionTransformer(size, patch, num_layers=12, num_heads=12, hidden_dim=768, mlp_dim=3072)
    if channels != 3:
        network.conv_proj = nn.Conv2d(channels, 768, patch, patch)
    network.heads = nn.Identity()
    return network, 768


def _inception_v3(channels: int, size: int) -> tuple[nn.Module, int]:
    network = models.inception_v3(weights=None, aux_logits=False, init_weights=False)
    network.Conv2d_1a_3x3.conv = nn.Conv2d(channels, 32, 3, 2, bias=False)
    network.fc = nn.Identity()
    return nn.Sequential(nn.Upsample((299, 299), mode="bilinear", align_corners=False), network), 2048


LARGE = {
    "resnet152": _resnet152,
    "vgg16": _vgg16,
    "facenet": _facenet,
    "vit_b_16": _vit_b_16,
    "inception_v3": _inception_v3,
}


def build_large(architecture: str, channels: int, size: int, classes: int) -> LargeNetwork:
    """An untrained network by name; first weights come from the global random state.

    Raises ValueError for an unknown name or for pictures below 32 pixels.
    """
    require(architecture in LARGE, f"a large network is one of {', '.join(LARGE)}, not {architecture!r}")
    require(size >= 32, f"large networks need pictures of 32 pixels and more, not {size}")
    return LargeNetwork(*LARGE[architecture](channels, size), classes)
