"""IF-GMI: the l1 projection by hand and against its definition, the generator taken apart, and what a ball keeps in."""

import pytest
import torch
from torch import nn

from implementations.classifier import if_gmi
from implementations.common.priors import Generator
from implementations.threat_model import WhiteBox

CPU = "cpu"


def random(seed=0):
    return torch.Generator(CPU).manual_seed(seed)


def test_projection_by_hand():
    x = torch.tensor([[3.0, -1.0], [0.3, -0.2], [1.0, 1.0], [0.0, -5.0]], device=CPU)
    expected = torch.tensor([[1.0, 0.0], [0.3, -0.2], [0.5, 0.5], [0.0, -1.0]], device=CPU)
    torch.testing.assert_close(if_gmi.project_l1(x, 1.0), expected)


def test_projection_lands_on_the_border_and_leaves_the_inside_alone():
    x = torch.randn(50, 30, generator=random(), device=CPU)
    radius = torch.linspace(0.5, 40.0, 50, device=CPU)
    projected = if_gmi.project_l1(x, radius)
    inside = x.abs().sum(dim=1) <= radius
    assert 0 < inside.sum() < 50
    assert torch.equal(projected[inside], x[inside])
    torch.testing.assert_close(projected[~inside].abs().sum(dim=1), radius[~inside], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(if_gmi.project_l1(projected, radius), projected, rtol=1e-4, atol=1e-5)


def test_no_other_point_of_the_ball_is_nearer():
    x = torch.randn(1, 6, generator=random(1), device=CPU) * 3
    nearest = (if_gmi.project_l1(x, 2.0) - x).norm()
    others = torch.randn(20000, 6, generator=random(2), device=CPU)
    others = 2.0 * others / others.abs().sum(dim=1, keepdim=True)
    assert ((others - x).norm(dim=1) >= nearest).all()


def test_the_parts_make_the_whole():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = Generator(5, 3, 32, 2).eval()
    parts = if_gmi.Disassembled(generator)
    z = torch.randn(2, 5, generator=random(), device=CPU)
    assert len(parts.blocks) == 4
    h = z
    for layer in range(4):
        torch.testing.assert_close(parts.image(h, layer), generator(z))
        if layer < 3:
            h = parts.next(h, layer)
            assert h.shape[-1] == 4 * 2**layer


class Brightness(nn.Module):
    def forward(self, x):
        mean = 12 * (x.mean(dim=(1, 2, 3)) - 0.5)
        return torch.stack([mean, -mean, torch.ones_like(mean)], dim=1)


def moved(radius, layer, ball=True, steps=10):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = Generator(5, 1, 16, 2).eval().requires_grad_(False)
    parts = if_gmi.Disassembled(generator)
    h = torch.randn(4, 5, generator=random(), device=CPU)
    for i in range(layer):
        h = parts.next(h, i)
    labels = torch.tensor([0, 0, 1, 1], device=CPU)
    config = if_gmi.IfGmiConfig(radius=radius, ball=ball, feature_lr=0.3)
    history = {"poincare": [], "target confidence": []}
    end = if_gmi.search_layer(WhiteBox(Brightness(), CPU), parts, h, layer, labels, steps, config, random(), history)
    share = (end - h).abs().flatten(1).sum(dim=1) / h.abs().mean() / h[0].numel()
    return share, history


def test_features_stay_in_the_ball_and_leave_it_without_one():
    bound, _ = moved(0.1, layer=1)
    free, history = moved(0.1, layer=1, ball=False)
    assert bound.max() <= 0.1 * 1.001
    assert bound.min() > 0.09, "the ball is used to its border"
    assert free.min() > 0.3
    assert history["poincare"][-1] < history["poincare"][0]


def test_a_tiny_ball_is_the_search_of_the_code_alone():
    share, _ = moved(1e-6, layer=1)
    assert share.max() < 1.1e-6


@pytest.mark.parametrize(
    "wrong", [{"layers": -1}, {"radius": 0.0}, {"layer_steps": 0}, {"per_class": 0}, {"search_area": (0.0, 1.0)}]
)
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).removeprefix("layer_")):
        if_gmi.IfGmiConfig(**wrong)
