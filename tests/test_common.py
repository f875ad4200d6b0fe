"""The shared pieces: training, prior, metrics, pictures."""

import math

import pytest
import torch

from implementations.common import folders, metrics, plots, priors, training


def test_psnr_by_hand():
    private = torch.zeros(1, 1, 2, 2, device="cpu")
    assert metrics.psnr(private + 0.1, private).item() == pytest.approx(20.0)
    assert math.isinf(metrics.psnr(private, private).item())


def test_ssim_is_one_for_equal_images():
    x = torch.rand(2, 3, 16, 16, device="cpu")
    torch.testing.assert_close(metrics.ssim(x, x), torch.ones(2, device="cpu"))
    assert (metrics.ssim(1 - x, x) < 0.5).all()


def test_jitter_moves_each_picture_by_itself_and_keeps_values():
    x = torch.arange(16.0, device="cpu").view(1, 1, 4, 4).expand(64, 1, 4, 4) / 16
    moved = training.jitter(x, torch.Generator("cpu").manual_seed(0), shift=1)
    assert moved.shape == x.shape
    assert set(moved.unique().tolist()) <= set(x.unique().tolist())
    assert len({tuple(picture.flatten().tolist()) for picture in moved}) == 9
    still = training.jitter(x, torch.Generator("cpu").manual_seed(0), shift=0)
    assert torch.equal(still, x)


def test_seeded_weights_repeat_and_leave_the_global_state():
    torch.manual_seed(5)
    expected = torch.rand(1, device="cpu")
    torch.manual_seed(5)
    with training.seeded_weights(1):
        one = torch.nn.Linear(3, 3)
    assert torch.equal(torch.rand(1, device="cpu"), expected)
    with training.seeded_weights(1):
        other = torch.nn.Linear(3, 3)
    assert torch.equal(one.weight, other.weight)


def test_a_classifier_learns_and_repeats():
    random = torch.Generator("cpu").manual_seed(0)
    labels = torch.arange(60, device="cpu") % 3
    images = torch.rand(60, 1, 8, 8, generator=random, device="cpu") * 0.2 + labels.view(-1, 1, 1, 1) / 4

    def trained():
        with training.seeded_weights(0):
            network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
        generator = torch.Generator("cpu").manual_seed(1)
        training.train_classifier(network, images, labels, generator, 200, "a test", batch=20, lr=0.02)
        return network

    one, other = trained(), trained()
    assert training.accuracy(one, images, labels) > 0.9
    assert torch.equal(one[1].weight, other[1].weight)


def test_the_prior_is_trained_once_and_makes_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path))
    public = torch.rand(20, 1, 8, 8, device="cpu")
    config = priors.GanConfig(steps=3, width=4, latent=5, batch=4)
    first, second = priors.public_gan(public, config), priors.public_gan(public, config)
    codes = first.sample(7, torch.Generator("cpu").manual_seed(0))
    pictures = first.generator(codes)
    assert pictures.shape == (7, 1, 8, 8)
    assert 0 <= pictures.min() <= pictures.max() <= 1
    assert first.discriminator(pictures).shape == (7,)
    assert torch.equal(pictures, second.generator(codes))
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    with pytest.raises(ValueError, match="8, 16, 32"):
        priors.Generator(5, 1, 12, 4)


def test_gan_learns_the_mean_of_its_data(tmp_path, monkeypatch):
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path))
    public = (0.8 + 0.05 * torch.randn(200, 1, 8, 8, generator=torch.Generator("cpu").manual_seed(0), device="cpu")).clamp(0, 1)
    prior = priors.public_gan(public, priors.GanConfig(steps=400, width=4, latent=4, batch=16, ema=0.98))
    mean = prior.generator(prior.sample(64, torch.Generator("cpu").manual_seed(1))).mean().item()
    assert mean == pytest.approx(0.8, abs=0.15)


def test_figures_have_a_row_for_each_name():
    drawn = plots.gallery({"one": torch.rand(3, 1, 8, 8, device="cpu"), "two": torch.rand(5, 3, 8, 8, device="cpu")})
    assert [text.get_text() for text in drawn.texts] == ["one", "two"]
    assert len(drawn.axes) == 2
    with pytest.raises(ValueError, match="at least one row"):
        plots.gallery({})
    assert plots.bars({"method": 1.0, "baseline": 0.5}, "accuracy").axes


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no picture in it"):
        folders.read_pictures(tmp_path, 8, "cpu")
