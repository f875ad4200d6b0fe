"""The diffusion prior: its schedule and sampler by hand, guidance, and that the label opens the class."""

import math

import pytest
import torch
from torch import nn

from implementations.common import diffusion


def generator(seed=0):
    return torch.Generator("cpu").manual_seed(seed)


def times(*values):
    return torch.tensor(values, device="cpu")


class Knows(nn.Module):
    """A denoiser that knows each class's picture: a constant tone; without class it says 0."""

    def __init__(self, tones):
        super().__init__()
        self.tones, self.classes, self.shape = torch.tensor([*tones, 0.0], device="cpu"), len(tones), (1, 4, 4)

    def forward(self, x, t, labels):
        return self.tones[labels][:, None, None, None].expand_as(x)


def test_schedule_goes_from_picture_to_noise():
    alpha, sigma = diffusion.schedule(times(0.0, 0.5, 1.0))
    torch.testing.assert_close(alpha.flatten(), times(1.0, math.sqrt(0.5), 0.0))
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones(3, 1, 1, 1, device="cpu"))


def test_denoise_splits_what_noised_mixed():
    x0 = torch.full((2, 1, 4, 4), 0.5, device="cpu")
    eps = torch.randn(2, 1, 4, 4, generator=generator(), device="cpu")
    t = times(0.3, 0.9)
    found, noise = diffusion.denoise(Knows([0.5]), diffusion.noised(x0, t, eps), t, torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(found, x0)
    torch.testing.assert_close(noise, eps)


@pytest.mark.parametrize(("guidance", "tone"), [(1.0, 0.3), (2.0, 0.6), (3.0, 0.9), (4.0, 1.0)])
def test_guidance_moves_away_from_no_class_and_stays_in_range(guidance, tone):
    """Own 0.3 and free 0: w * 0.3 - (w - 1) * 0, at most 1."""
    xt = torch.zeros(1, 1, 4, 4, device="cpu")
    found, _ = diffusion.denoise(Knows([0.3]), xt, times(0.5), torch.zeros(1, dtype=torch.int64), guidance)
    assert found.mean().item() == pytest.approx(tone)


def test_ddim_ends_at_the_picture_and_keeps_every_prediction():
    noise = torch.randn(2, 1, 4, 4, generator=generator(), device="cpu")
    seen = diffusion.ddim(Knows([-0.4, 0.7]), noise, torch.tensor([0, 1], device="cpu"), 5)
    assert len(seen) == 5
    torch.testing.assert_close(seen[-1].mean(dim=(1, 2, 3)), times(-0.4, 0.7))


def test_sampling_can_be_differentiated():
    model = diffusion.Denoiser(2, 1, 8, 8)
    diffusion.ddim(model, torch.randn(1, 1, 8, 8, generator=generator()), torch.zeros(1, dtype=torch.int64), 2, 2.0)[
        -1
    ].sum().backward()
    assert model.leave[2].bias.grad.abs().sum() > 0


def two_tones():
    tone = torch.tensor([0.2, 0.8], device="cpu").repeat_interleave(40)[:, None, None, None]
    images = (tone + 0.05 * torch.randn(80, 1, 8, 8, generator=generator(), device="cpu")).clamp(0, 1)
    return images, torch.arange(2, device="cpu").repeat_interleave(40)


def test_the_label_opens_the_class(tmp_path, monkeypatch):
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path))
    images, labels = two_tones()
    config = diffusion.DiffusionConfig(width=8, steps=150, batch=16, ema=0.9)
    model = diffusion.conditional_diffusion(images, labels, 2, config)
    drawn = [model.sample(torch.full((20,), label, device="cpu"), generator(), 6, 1.0) for label in (0, 1)]
    assert abs(drawn[0].mean() - 0.2) < 0.12
    assert abs(drawn[1].mean() - 0.8) < 0.12
    assert 0 <= drawn[0].min() <= drawn[1].max() <= 1
    again = diffusion.conditional_diffusion(images, labels, 2, config)
    torch.testing.assert_close(again.sample(labels, generator(), 2), model.sample(labels, generator(), 2))
    assert len(list(tmp_path.glob("diffusion-*.safetensors"))) == 1


def test_labels_and_sizes_are_checked():
    images, labels = two_tones()
    with pytest.raises(ValueError, match="below 1"):
        diffusion.conditional_diffusion(images, labels, 1)
    with pytest.raises(ValueError, match="8, 16, 24"):
        diffusion.Denoiser(2, 1, 12, 8)
