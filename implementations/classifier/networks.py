"""Small classifiers of pictures: the targets' architectures and, apart from them, the evaluator's."""

import torch
from torch import Tensor, nn


def conv_block(channels_in: int, channels_out: int, stride: int = 2) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


class SmallCNN(nn.Module):
    """Four 3x3 convolutions with batch normalisation and one linear layer. `features` gives (B, F), `forward` logits (B, C)."""

    def __init__(self, channels: int, size: int, classes: int, width: int = 16):
        super().__init__()
        self.body = nn.Sequential(
            conv_block(channels, width, 1),
            conv_block(width, 2 * width),
            conv_block(2 * width, 3 * width),
            conv_block(3 * width, 4 * width),
            nn.Flatten(),
        )
        side = -(-size // 8)
        self.width = 4 * width * side * side
        self.head = nn.Linear(self.width, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x * 2 - 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, (B, in, s, s) to (B, out, s / stride, s / stride)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.first = conv_block(channels_in, channels_out, stride)
        self.second = nn.Sequential(
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False), nn.BatchNorm2d(channels_out)
        )
        same = stride == 1 and channels_in == channels_out
        shortcut = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))
        self.shortcut = nn.Identity() if same else shortcut

    def forward(self, x: Tensor) -> Tensor:
        return (self.second(self.first(x)) + self.shortcut(x)).relu()


class SmallResNet(nn.Module):
    """A stem, six residual blocks in three stages and average pooling (He et al., 2016)."""

    def __init__(self, channels: int, size: int, classes: int, width: int = 16):
        super().__init__()
        stages: list[nn.Module] = [conv_block(channels, width, 2 if size >= 32 else 1)]
        last = width
        for out in (width, 2 * width, 4 * width):
            stages += [ResidualBlock(last, out, 1 if out == width else 2), ResidualBlock(out, out, 1)]
            last = out
        self.body = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.width = 4 * last
        self.head = nn.Linear(self.width, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x * 2 - 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class SmallVGG(nn.Module):
    """Pairs of 3x3 convolutions with max-pooling and a wide hidden layer (Simonyan and Zisserman, 2015)."""

    def __init__(self, channels: int, size: int, classes: int, width: int = 16, hidden: int = 256):
        super().__init__()
        stages: list[nn.Module] = []
        last = channels
        for out in (width, 2 * width, 4 * width):
            stages += [conv_block(last, out, 1), conv_block(out, out, 1), nn.MaxPool2d(2)]
            last = out
        self.body = nn.Sequential(*stages, nn.Flatten(), nn.Linear(last * (size // 8) ** 2, hidden), nn.ReLU())
        self.width = hidden
        self.head = nn.Linear(hidden, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x * 2 - 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class SmallMLP(nn.Module):
    """Two hidden layers with batch normalisation on pixels."""

    def __init__(self, channels: int, size: int, classes: int, hidden: int = 256):
        super().__init__()
        stages: list[nn.Module] = [nn.Flatten()]
        last = channels * size * size
        for _ in range(2):
            stages += [nn.Linear(last, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()]
            last = hidden
        self.body = nn.Sequential(*stages)
        self.width = hidden
        self.head = nn.Linear(hidden, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x * 2 - 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class TransformerBlock(nn.Module):
    """Attention and a two-layer perceptron, each after layer normalisation and with a shortcut: tokens (B, T, D) to the same.

    `attend` also gives the attention weights (B, heads, T, T), each row of which sums to 1.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def attend(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        batch, count, width = tokens.shape
        qkv = self.qkv(self.norm1(tokens)).view(batch, count, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, T, D / H)
        weights = (q @ k.transpose(2, 3) * (width // self.heads) ** -0.5).softmax(dim=3)
        mixed = (weights @ v).transpose(1, 2).reshape(batch, count, width)
        tokens = tokens + self.out(mixed)
        return tokens + self.mlp(self.norm2(tokens)), weights

    def forward(self, tokens: Tensor) -> Tensor:
        return self.attend(tokens)[0]


class SmallViT(nn.Module):
    """A vision transformer (Dosovitskiy et al., 2021): patches, a class token, learned positions, blocks, a linear layer.

    Its parts are public, since some attacks work on patches: `patches` cuts and embeds, `positions` (1, 1 + P, D) is added with
    the class token `cls` (1, 1, D) in front, `blocks` follow, `norm` and `head` read the class token.
    """

    def __init__(self, channels: int, size: int, classes: int, patch: int = 4, width: int = 64, depth: int = 4, heads: int = 4):
        super().__init__()
        self.patch, self.side, self.width = patch, size // patch, width
        self.embed = nn.Conv2d(channels, width, patch, patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, width, device="cpu"))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + self.side**2, width, device="cpu"))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def patches(self, x: Tensor) -> Tensor:
        """Embedded patches (B, P, D), row by row, without positions."""
        return self.embed(x * 2 - 1).flatten(2).transpose(1, 2)

    def features(self, x: Tensor) -> Tensor:
        patches = self.patches(x)
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), patches], dim=1) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class SoftmaxRegression(nn.Module):
    """One linear layer on pixels: the first of the three models that Fredrikson et al. (2015) attack."""

    def __init__(self, channels: int, size: int, classes: int):
        super().__init__()
        self.width = channels * size * size
        self.head = nn.Linear(self.width, classes)

    def features(self, x: Tensor) -> Tensor:
        return (x * 2 - 1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class EvaluatorCNN(nn.Module):
    """5x5 kernels, group normalisation, SiLU, average pooling and a 96-wide feature layer: nothing like the targets."""

    def __init__(self, channels: int, size: int, classes: int, width: int = 16):
        super().__init__()
        stages, last = [], channels
        for out in (width, 2 * width, 4 * width):
            stages += [nn.Conv2d(last, out, 5, padding=2), nn.GroupNorm(4, out), nn.SiLU(), nn.AvgPool2d(2)]
            last = out
        side = size // 8
        self.body = nn.Sequential(*stages, nn.Flatten(), nn.Linear(last * side * side, 96), nn.LayerNorm(96), nn.SiLU())
        self.width = 96
        self.head = nn.Linear(96, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x * 2 - 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class SecondEvaluator(nn.Module):
    """Depthwise 7x7 convolutions on overlapping patches, GELU, layer normalisation: a small ConvNeXt (Liu et al., 2022).

    Unlike the targets, the students and the first evaluator, so that the two judges do not share their blind spots.
    """

    def __init__(self, channels: int, size: int, classes: int, width: int = 48, depth: int = 4):
        super().__init__()
        blocks = [ConvNeXtBlock(width) for _ in range(depth)]
        self.body = nn.Sequential(nn.Conv2d(channels, width, 7, 4, 3), *blocks, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.norm = nn.LayerNorm(16 * width)
        self.width = 16 * width
        self.head = nn.Linear(self.width, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.norm(self.body(x * 2 - 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7 convolution, normalisation over channels, two 1x1 convolutions, a shortcut; keeps the shape."""

    def __init__(self, width: int):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.mix = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.GELU(), nn.Conv2d(2 * width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.norm(self.depthwise(x)))


class IdentityReader(nn.Module):
    """Pictures (B, channels, size, size) in [0, 1] to the renderer's identity parameters (B, P) in [0, 1]."""

    def __init__(self, channels: int, size: int, parameters: int, width: int = 16):
        super().__init__()
        trunk = SmallResNet(channels, size, parameters, width)
        self.body, self.head = trunk.body, trunk.head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x * 2 - 1)).sigmoid()


ARCHITECTURES = {
    "cnn": SmallCNN,
    "softmax": SoftmaxRegression,
    "resnet": SmallResNet,
    "vgg": SmallVGG,
    "mlp": SmallMLP,
    "vit": SmallViT,
}
LARGE = (
    "inception_v3",
    "facenet",
    "resnet152",
    "vgg16",
    "vit_b_16",
)  # for the paper preset; evaluators are taken from the front


def build(architecture: str, channels: int, size: int, classes: int) -> nn.Module:
    """An untrained network by name, for pictures (B, channels, size, size) in [0, 1]. Raises KeyError for an unknown name."""
    return ARCHITECTURES[architecture](channels, size, classes)
