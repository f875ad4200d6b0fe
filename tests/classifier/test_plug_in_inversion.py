"""Plug-In Inversion: each augmentation by hand, and toys on which descent goes wrong as soon as one of them is missing."""

import pytest
import torch
from torch import nn

from implementations.classifier import plug_in_inversion as pii
from implementations.threat_model import Knowledge, classifier_target

CPU = "cpu"


def random(seed=0):
    return torch.Generator(CPU).manual_seed(seed)


def test_stages_are_those_of_the_official_script():
    assert pii.stage_sizes(224, 7, grows=True) == list(range(56, 225, 28))
    assert pii.stage_sizes(32, 7, grows=False) == [32] * 7
    assert pii.stage_sizes(32, 1, grows=True) == [32]


@pytest.mark.parametrize(("names", "border"), [(("centring", "zoom"), 2), (("centring",), 4), (("zoom",), 0)])
def test_growth_is_spent_on_border_and_enlargement(names, border):
    last = torch.full((1, 3, 8, 8), 0.5, device=CPU)
    canvas = pii.grown(last, 12, names, random())
    edge = border // 2
    assert canvas.shape == (1, 3, 12, 12)
    inner = canvas[..., edge : 12 - edge, edge : 12 - edge]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.5))
    assert (canvas != 0.5).sum().item() == 3 * (144 - (12 - border) ** 2)
    assert canvas.min() >= 0
    assert canvas.max() <= 1


def test_a_candidate_that_does_not_grow_stays():
    last = torch.rand(2, 3, 8, 8, generator=random(), device=CPU)
    torch.testing.assert_close(pii.grown(last, 8, (), random()), last)


def test_colour_shift_is_one_affine_map_a_channel_within_its_range():
    x = torch.rand(50, 3, 4, 4, generator=random(), device=CPU)
    assert torch.equal(pii.colour_shift(x, 0.0, 0.0, random()), x)
    y = pii.colour_shift(x, 1.0, 1.0, random())
    factor = (y[..., 0, 0] - y[..., 1, 1]) / (x[..., 0, 0] - x[..., 1, 1])  # (B, c)
    torch.testing.assert_close((y - y[..., :1, :1]), factor[..., None, None] * (x - x[..., :1, :1]), atol=1e-3, rtol=1e-3)
    moved = y[..., 0, 0] - factor * x[..., 0, 0]
    assert factor.min() > 0.36
    assert factor.max() < 2.72
    assert moved.abs().max() < 1.001
    assert factor.std() > 0.3, "each channel of each picture has its own"


def test_jitter_is_one_cyclic_shift_for_all():
    x = torch.zeros(2, 1, 6, 6, device=CPU)
    x[:, :, 2, 3] = 1
    seen = set()
    for seed in range(40):
        moved = pii.jittered(x, 1, random(seed))
        assert torch.equal(moved[0], moved[1])
        row, column = (moved[0, 0] == 1).nonzero()[0].tolist()
        seen.add((row - 2, column - 3))
    assert seen == {(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)}


def test_views_are_copies_at_the_targets_size():
    config = pii.PlugInInversionConfig(copies=3)
    x = torch.rand(2, 3, 4, 4, generator=random(), device=CPU)
    assert pii.views(x, 8, config, random()).shape == (6, 3, 8, 8)
    plain = pii.views(x, 8, pii.PlugInInversionConfig(copies=3, augmentations=()), random())
    torch.testing.assert_close(plain, pii.enlarged(x, 8).repeat(3, 1, 1, 1))


class Reads(nn.Module):
    """Two classes told apart by one weighted sum of the pixels."""

    def __init__(self, weight, slope=1.0, threshold=0.0):
        super().__init__()
        self.register_buffer("weight", weight)
        self.slope, self.threshold = slope, threshold

    def forward(self, x):
        value = self.slope * ((x * self.weight).sum(dim=(1, 2, 3)) - self.threshold)
        return torch.stack([value, -value], dim=1)


def rebuilt(network, size=8, **changes):
    oracle = classifier_target(network, CPU).grant("white-box")
    config = pii.PlugInInversionConfig(**{"stages": 2, "steps": 40, "per_class": 1, **changes})
    return pii.attack(oracle, Knowledge(num_classes=2, image_shape=(1, size, size)), config), oracle


def checkerboard(size=8):
    i, j = torch.meshgrid(torch.arange(size, device=CPU), torch.arange(size, device=CPU), indexing="ij")
    return 1.0 - 2.0 * ((i + j) % 2).float()


def test_jitter_keeps_patterns_of_single_pixels_out():
    """The network likes a checkerboard, which is its own negative one pixel further, and brightness, which is not."""
    network, strength = Reads(0.5 * checkerboard()[None] + 0.1, slope=0.05), {}
    for name, augmentations in (("with", ("jitter",)), ("without", ())):
        found, _ = rebuilt(network, augmentations=augmentations, jitter=0.25)
        strength[name] = (found.data[0, 0] * checkerboard()).mean().item()
    assert strength["without"] > 0.4
    assert abs(strength["with"]) < 0.5 * strength["without"]


def test_colour_shift_asks_for_more_than_being_just_over_the_line():
    weight = torch.full((1, 8, 8), 1 / 64, device=CPU)
    brightness = {}
    for name, augmentations in (("with", ("colour-shift",)), ("without", ())):
        found, _ = rebuilt(
            Reads(weight, slope=200.0, threshold=0.5), augmentations=augmentations, shift=1.0, scale=1.0, lr=0.02
        )
        brightness[name] = (found.data[0, 0].mean() - found.data[1, 0].mean()).item()
    assert brightness["with"] > brightness["without"] + 0.2


def test_zoom_and_centring_start_in_the_middle():
    found, oracle = rebuilt(Reads(torch.ones(1, 8, 8, device=CPU) / 64), stages=3, steps=2, copies=4)
    assert found.data.shape == (2, 1, 1, 8, 8)
    assert len(found.trajectory) == 3
    assert oracle.queries == 2 * 4 * 2 * 3
    coarse = found.trajectory[0][0, 0, 0]
    assert (coarse[0, :-1] - coarse[0, 1:]).abs().max() < 0.9, (
        "the first stage is an enlarged candidate of a quarter of the side"
    )


def test_same_passes_with_and_without():
    weight = torch.ones(1, 8, 8, device=CPU) / 64
    assert rebuilt(Reads(weight), steps=2)[1].queries == rebuilt(Reads(weight), steps=2, augmentations=())[1].queries


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"augmentations": ("mirror",)}, "mirror"),
        ({"shift": -1.0}, "shift"),
        ({"copies": 0}, "counts"),
        ({"stages": 0}, "counts"),
        ({"steps": 0}, "counts"),
        ({"per_class": 0}, "counts"),
    ],
)
def test_rejects_impossible_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        pii.PlugInInversionConfig(**wrong)
