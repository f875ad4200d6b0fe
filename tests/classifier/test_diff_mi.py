"""Diff-MI's loss and noise levels by hand, its tuning and its reconstruction on toys."""

import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn

from implementations.classifier import diff_mi
from implementations.classifier.lomma import Watched
from implementations.common import diffusion
from implementations.common.training import seeded_weights
from implementations.threat_model import Knowledge, classifier_target


def generator(seed=0):
    return torch.Generator("cpu").manual_seed(seed)


def test_top_k_margin_by_hand():
    logits = torch.tensor([[3.0, 1.0, 2.0, -4.0]], device="cpu")
    first, second = torch.tensor([0], device="cpu"), torch.tensor([1], device="cpu")
    assert diff_mi.top_k_margin(logits, first, 1).item() == -1.0
    assert diff_mi.top_k_margin(logits, first, 2).item() == -1.5
    assert diff_mi.top_k_margin(logits, second, 2).item() == 1.5
    assert diff_mi.top_k_margin(logits, first, 9).item() == pytest.approx(-3 - 1 / 3), "all others where there are fewer than k"


def test_top_k_margin_pushes_several_classes_down():
    logits = torch.zeros(1, 5, device="cpu", requires_grad=True)
    diff_mi.top_k_margin(logits, torch.tensor([0], device="cpu"), 4).sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-1.0, 0.25, 0.25, 0.25, 0.25]], device="cpu"))


def test_levels_carry_the_noise_of_the_linear_schedule():
    assert diff_mi.level(1) == pytest.approx(math.acos(math.sqrt(1 - 1e-4)) * 2 / math.pi)
    assert diff_mi.level(1000) > 0.99
    alpha, _ = diffusion.schedule(torch.tensor([diff_mi.level(500)], device="cpu"))
    beta = torch.linspace(1e-4, 2e-2, 1000, device="cpu")
    assert alpha.item() == pytest.approx((1 - beta[:500]).prod().sqrt().item(), rel=1e-4)


def test_noise_falls_from_all_to_a_fifth():
    levels = [diff_mi.noise_step(i, 30) for i in range(30)]
    assert levels[0] == 1000
    assert all(before > after for before, after in itertools.pairwise(levels))
    assert 200 < levels[-1] < 240


def bright(classes=2):
    head = nn.Linear(64, classes)
    head.weight.data = torch.linspace(-0.1, 0.1, classes, device="cpu")[:, None].expand(classes, 64).clone()
    head.bias.data = -32 * head.weight.data[:, 0]
    return classifier_target(nn.Sequential(nn.Flatten(), head), "cpu").grant("white-box")


def test_class_features_are_means_over_each_class():
    images = torch.stack([torch.full((1, 8, 8), tone, device="cpu") for tone in (0.0, 0.2, 0.6, 1.0)])
    phi = diff_mi.class_features(Watched(bright()), images, 2)
    torch.testing.assert_close(phi[:, 0], torch.tensor([0.1, 0.8], device="cpu"))


def test_the_loss_asks_for_class_and_features():
    config = diff_mi.DiffMiConfig(top_k=1, feature_weight=2.0)
    phi = torch.tensor([0.0, 0.5], device="cpu")[:, None].expand(2, 64)
    loss = diff_mi.target_loss(Watched(bright()), phi, config)
    images = torch.full((2, 1, 8, 8), 0.75, device="cpu")  # logits -1.6 and 1.6
    found = loss(images, torch.tensor([0, 1], device="cpu"))
    torch.testing.assert_close(found, torch.tensor([3.2 + 2 * 0.5625, -3.2 + 2 * 0.0625], device="cpu"))


def test_softened_views_stay_in_range_and_pass_gradients():
    images = torch.rand(40, 1, 8, 8, generator=generator(), device="cpu").requires_grad_(True)
    views = diff_mi.soften(images, generator())
    assert 0 <= views.min() <= views.max() <= 1
    same = (views - images).flatten(1).abs().max(dim=1).values < 1e-6
    assert 0 < same.sum() < 20, "an eighth stay as they are"
    views.sum().backward()
    assert images.grad.abs().sum() > 0


def small_model(classes=2):
    with seeded_weights(0):
        model = diffusion.Denoiser(classes, 1, 8, 8)
        nn.init.normal_(model.leave[2].weight, std=0.05)
    return model.eval().requires_grad_(False)


def test_tuning_moves_its_layers_only_and_towards_the_target():
    model, oracle = small_model(), bright()
    config = diff_mi.DiffMiConfig(epochs=40, tune_batch=2, tune_draw_steps=2, tune_lr=2e-2, guidance=1.0, threshold=2.0)
    loss = diff_mi.target_loss(Watched(oracle), torch.full((2, 64), 0.5, device="cpu"), config)

    def agrees(images, labels):
        return (oracle(images).argmax(dim=1) == labels).float()

    tuned = diff_mi.fine_tune(model, loss, agrees, config)
    moved = {
        name for (name, a), (_, b) in zip(model.named_parameters(), tuned.named_parameters(), strict=True) if (a != b).any()
    }
    assert "label.weight" in moved
    assert all(name.startswith(("label.", "middle.")) for name in moved)
    labels = torch.tensor([0, 1], device="cpu").repeat(10)
    noise = torch.randn(20, 1, 8, 8, generator=generator(), device="cpu")
    before, after = (loss((diffusion.ddim(m, noise, labels, 2)[-1] + 1) / 2, labels).mean() for m in (model, tuned))
    assert after < before - 0.3


def test_tuning_ends_where_the_target_agrees():
    calls = []

    def agrees(images, labels):
        calls.append(len(labels))
        return torch.ones(len(labels), device="cpu")

    config = diff_mi.DiffMiConfig(epochs=9, tune_batch=2, tune_draw_steps=1)
    loss = diff_mi.target_loss(Watched(bright()), torch.zeros(2, 64, device="cpu"), config)
    diff_mi.fine_tune(small_model(), loss, agrees, config)
    assert len(calls) == 1


class Flat(nn.Module):
    """A diffusion model of a single picture: all grey, whatever the noise."""

    classes, shape = 2, (1, 8, 8)

    def forward(self, x, t, labels):
        return torch.zeros_like(x)


def test_the_diffusion_model_bounds_what_the_target_does():
    """The target wants extremes; by turns with a model of grey pictures they come out grey, alone they do not."""
    labels = torch.tensor([0, 1], device="cpu")
    spread = {}
    for diffusing in (True, False):
        config = diff_mi.DiffMiConfig(steps=10, diffusion=diffusing, top_k=1, guidance=1.0, final_steps=1)
        loss = diff_mi.target_loss(Watched(bright()), torch.full((2, 64), 0.5, device="cpu"), config)
        images, history, _ = diff_mi.reconstruct(Flat(), loss, labels, generator(), config)
        spread[diffusing] = (images - 0.5).abs().mean().item()
        assert len(history["target loss"]) == 10
        assert len(history["prior loss"]) == (10 if diffusing else 0)
    assert spread[True] < 1e-6
    assert spread[False] > 0.2


def test_the_target_pulls_hardly_stronger_than_the_diffusion_model(monkeypatch):
    """However loud its loss, its gradient is cut to `bound` norms of the diffusion model's, averaged over the steps so far."""
    norms = []

    class Watching(torch.optim.Adamax):
        def step(self):
            norms.append(self.param_groups[0]["params"][0].grad.norm().item())
            super().step()

    monkeypatch.setattr(torch.optim, "Adamax", Watching)
    config = diff_mi.DiffMiConfig(steps=4, top_k=1, guidance=1.0, final_steps=1)
    plain = diff_mi.target_loss(Watched(bright()), torch.full((2, 64), 0.5, device="cpu"), config)
    labels = torch.tensor([0, 1], device="cpu")
    diff_mi.reconstruct(small_model(), lambda *words: 1e5 * plain(*words), labels, generator(), config)
    average = norms[0]
    for prior, target in zip(norms[0::2], norms[1::2], strict=True):
        average = 0.5 * average + 0.5 * prior
        assert target == pytest.approx(1.25 * average, rel=1e-3)


@pytest.mark.parametrize("changes", [{}, {"epochs": 0}, {"top_k": 1}, {"diffusion": False}, {"steps": 0}])
def test_every_option_runs(tmp_path, monkeypatch, changes):
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path))
    images = torch.rand(40, 1, 8, 8, generator=generator(), device="cpu")
    small = {"prior_steps": 2, "prior_width": 8, "steps": 2, "views": 1, "epochs": 1, "tune_draw_steps": 2, "final_steps": 1}
    config = diff_mi.DiffMiConfig(**{**small, "top_n": 5, "per_class": 3, **changes})
    found = diff_mi.attack(bright(), Knowledge(public_images=images, num_classes=2), config)
    assert found.data.shape == (2, 3, 1, 8, 8)
    assert 0 <= found.data.min() <= found.data.max() <= 1
    assert len(list(tmp_path.glob("diff-mi-*.safetensors"))) == (config.epochs > 0)


@pytest.mark.parametrize("wrong", [{"top_k": 0}, {"epochs": -1}, {"guidance": 0.0}, {"final_level": 1001}])
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(diff_mi.DiffMiConfig(), **wrong)
