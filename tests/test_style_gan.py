"""The style-based prior: spaces W and P, modulation against its definition by weights, truncation, mixing, the cache."""

import pytest
import torch

from implementations.common.style_gan import StyleBlock, StyleGanConfig, StyleGenerator, style_gan, to_p, to_w
from implementations.common.training import seeded_weights

CPU = "cpu"


def seeded(seed=0):
    return torch.Generator(CPU).manual_seed(seed)


def small_generator(size=16):
    with seeded_weights(0):
        return StyleGenerator(latent=6, channels=3, size=size, width=4, depth=2, rate=0.1).eval()


def test_p_and_w_by_hand_and_inverse_of_each_other():
    w = torch.tensor([2.0, -0.2, 0.0], device=CPU)
    torch.testing.assert_close(to_p(w), torch.tensor([2.0, -1.0, 0.0], device=CPU))
    torch.testing.assert_close(to_w(to_p(w)), w)


def test_the_style_sets_gain_and_shift_of_normalised_channels():
    with seeded_weights(0):
        block = StyleBlock(latent=5, channels_in=4, channels_out=3)
    x, w = torch.randn(6, 4, 8, 8, generator=seeded(), device=CPU), torch.zeros(6, 5, device=CPU)
    with torch.no_grad():
        block.style.weight.zero_()
        block.style.bias.copy_(torch.tensor([1.0, 0.0, -1.0, 10.0, 10.0, 10.0], device=CPU))  # three gains less 1, three shifts
        found = block(x, w)
    assert found.shape == (6, 3, 16, 16), "twice the pixels"
    torch.testing.assert_close(found.mean(dim=(0, 2, 3)), torch.full((3,), 10.0, device=CPU))
    spread = found.std(dim=(0, 2, 3))
    torch.testing.assert_close(spread, torch.tensor([2.0, 1.0, 0.0], device=CPU), rtol=1e-2, atol=1e-3)


def test_the_length_of_a_code_does_not_count():
    generator = small_generator()
    z = torch.randn(3, 6, generator=seeded(), device=CPU)
    torch.testing.assert_close(generator.mapping(z), generator.mapping(5 * z))


def test_pictures_of_one_style_and_of_the_same_style_in_all_layers():
    generator = small_generator()
    w = torch.randn(2, 6, generator=seeded(), device=CPU)
    images = generator.synthesis(w)
    assert images.shape == (2, 3, 16, 16)
    assert images.min() >= 0
    assert images.max() <= 1
    torch.testing.assert_close(images, generator.synthesis(w[:, None].expand(-1, generator.layers, -1)))


def test_the_style_of_every_layer_matters():
    generator = small_generator(32)
    w = torch.randn(8, 6, generator=seeded(), device=CPU)[:, None].repeat(1, generator.layers, 1)
    base = generator.synthesis(w)
    for layer in range(generator.layers):
        other = w.clone()
        other[:, layer] = w[:, layer].roll(1, 0)
        assert (generator.synthesis(other) - base).abs().mean() > 1e-3, layer


def test_truncation_by_hand_in_all_and_in_coarse_layers():
    generator = small_generator()
    generator.mean.fill_(1.0)
    w = torch.full((1, 6), 3.0, device=CPU)
    assert torch.equal(generator.truncate(w, 0.5), torch.full((1, 3, 6), 2.0, device=CPU))
    some = generator.truncate(w, 0.0, layers=1)
    assert torch.equal(some[:, 0], torch.ones(1, 6, device=CPU))
    assert torch.equal(some[:, 1:], torch.full((1, 2, 6), 3.0, device=CPU))


def test_mixing_keeps_half_and_cuts_the_others_anywhere():
    generator = small_generator()
    w = torch.arange(8.0, device=CPU)[:, None].expand(-1, 6)
    mixed = generator.mixed(w)[:, :, 0]
    assert torch.equal(mixed[0::2], w[0::2, :1].expand(-1, 3)), "every second picture keeps its style"
    assert mixed[1].tolist() == [1.0, 0.0, 0.0]
    assert mixed[3].tolist() == [3.0, 3.0, 2.0]
    assert mixed[5].tolist() == [5.0, 4.0, 4.0]


def test_sizes_that_cannot_be_made_are_refused():
    with pytest.raises(ValueError, match="24"):
        small_generator(24)


def test_training_moves_towards_the_pictures_and_is_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path))
    images = torch.zeros(64, 3, 8, 8, device=CPU) + torch.tensor([0.9, 0.1, 0.1], device=CPU)[:, None, None]
    config = StyleGanConfig(latent=4, width=4, steps=60, batch=16, depth=1, ema=0.9, mean_of=50, lr_generator=1e-2)
    prior = style_gan(images, config)
    codes = prior.sample(20, seeded())
    drawn = prior.generator(codes)
    assert (drawn.mean(dim=(0, 2, 3)) - images[0, :, 0, 0]).abs().max() < 0.25, drawn.mean(dim=(0, 2, 3))
    assert not any(parameter.requires_grad for parameter in prior.generator.parameters())
    assert prior.generator.mean.abs().sum() > 0
    again = style_gan(images, config)
    assert torch.equal(again.generator(codes), drawn)
    assert again.seconds == prior.seconds, "read from the cache, not trained again"
