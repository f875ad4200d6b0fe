"""Small classifiers of pictures: the targets' architectures and, apart from them, the evaluator's."""

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


ARCHITECTURES = {"cnn": SmallCNN, "softmax": SoftmaxRegression}


def build(architecture: str, channels: int, size: int, classes: int) -> nn.Module:
    """An untrained network by name, for pictures (B, channels, size, size) in [0, 1]. Raises KeyError for an unknown name."""
    return ARCHITECTURES[architecture](channels, size, classes)
