"""The literature's networks: shapes at 64 pixels, sizes as published, features that the last layer reads."""

import pytest
import torch
from torch import nn

from implementations.classifier.large_networks import LARGE, build_large


def on_meta(architecture: str, channels: int, size: int, classes: int) -> nn.Module:
    """Shapes only: no weights, no arithmetic."""
    with torch.device("meta"):
        return build_large(architecture, channels, size, classes).eval()


@pytest.mark.parametrize("size", [64, 112])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("architecture", LARGE)
def test_shapes(architecture, channels, size):
    network = on_meta(architecture, channels, size, 10)
    x = torch.zeros(2, channels, size, size, device="meta")
    assert network.features(x).shape == (2, network.width)
    assert network(x).shape == (2, 10)
    assert network.head.in_features == network.width


@pytest.mark.parametrize(
    ("architecture", "millions"),
    [("resnet152", 58.1), ("vgg16", 14.7), ("facenet", 40.3), ("vit_b_16", 85.3), ("inception_v3", 21.8)],
)
def test_sizes_without_the_last_layer(architecture, millions):
    """torchvision's published sizes less their layers of 1,000 classes; smaller patches; facenet embeds maps of 4x4."""
    trunk = on_meta(architecture, 3, 64, 10).trunk
    assert sum(value.numel() for value in trunk.parameters()) / 1e6 == pytest.approx(millions, abs=0.15)


def test_maps_before_pooling_are_four_by_four_at_64_pixels():
    x = torch.zeros(2, 3, 64, 64, device="meta")
    trunk = on_meta("resnet152", 3, 64, 2).trunk
    maps = nn.Sequential(*list(trunk.children())[:-2])
    assert maps(x).shape == (2, 2048, 4, 4)
    assert on_meta("facenet", 3, 64, 2).trunk[0](x).shape == (2, 2048, 4, 4)
    assert on_meta("vit_b_16", 3, 64, 2).trunk.seq_length == 16 * 16 + 1
    assert on_meta("vit_b_16", 3, 224, 2).trunk.seq_length == 14 * 14 + 1


def test_vgg_and_facenet_compute_and_logits_are_the_head_of_features():
    generator = torch.Generator("cpu").manual_seed(0)
    x = torch.rand(2, 3, 64, 64, generator=generator, device="cpu")
    for architecture in ("vgg16", "facenet"):
        network = build_large(architecture, 3, 64, 5).eval()
        with torch.no_grad():
            logits = network(x)
            torch.testing.assert_close(logits, network.head(network.features(x)))
        assert torch.isfinite(logits).all()
        assert not torch.equal(logits[0], logits[1])


def test_the_shift_of_vggs_normalisation_is_not_learned():
    frozen = [name for name, value in on_meta("vgg16", 3, 64, 2).named_parameters() if not value.requires_grad]
    assert frozen == ["trunk.2.bias"]


@pytest.mark.parametrize(
    ("architecture", "size", "message"),
    [("resnet9", 64, "resnet152"), ("vgg16", 16, "32 pixels"), ("vit_b_16", 65, "patches of 4")],
)
def test_refuses_what_it_cannot_build(architecture, size, message):
    with pytest.raises(ValueError, match=message):
        on_meta(architecture, 3, size, 2)
