"""PLG-MI's selection and loss by hand, its augmentation in the limits, and the conditional prior."""

import dataclasses

import pytest
import torch
from torch import nn

from implementations.classifier import plg_mi
from implementations.common import conditional_gan
from implementations.common.priors import GanConfig
from implementations.threat_model import Knowledge, classifier_target


def generator(seed=0):
    return torch.Generator("cpu").manual_seed(seed)


def test_top_n_selection_by_hand():
    scores = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.5, 0.5]], device="cpu").log()
    chosen, labels = plg_mi.top_n_selection(scores, 2)
    assert chosen.tolist() == [0, 1, 2, 3]
    assert labels.tolist() == [0, 0, 1, 1]


def test_a_picture_may_serve_several_classes_and_n_has_a_limit():
    scores = torch.tensor([[0.0, 0.0], [-1.0, -2.0]], device="cpu")
    chosen, labels = plg_mi.top_n_selection(scores, 5)
    assert chosen.tolist() == [0, 1, 0, 1]
    assert labels.tolist() == [0, 0, 1, 1]


def test_max_margin_loss_by_hand():
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]], device="cpu")
    labels = torch.tensor([0, 1], device="cpu")
    torch.testing.assert_close(plg_mi.max_margin_loss(logits, labels), torch.tensor([-1.0, 2.0], device="cpu"))


def test_the_margin_keeps_its_gradient_where_cross_entropy_has_none():
    labels = torch.zeros(1, dtype=torch.int64, device="cpu")
    norms = {}
    for name, loss in plg_mi.LOSSES.items():
        logits = torch.tensor([[40.0, 0.0, -1.0]], device="cpu", requires_grad=True)
        loss(logits, labels).sum().backward()
        norms[name] = logits.grad.norm().item()
    assert norms["margin"] == pytest.approx(2**0.5)
    assert norms["cross-entropy"] < 1e-6


def still(**changes):
    return dataclasses.replace(plg_mi.PlgMiConfig(crop=1.0, rotation=0.0, light=0.0, flip=0.0), **changes)


def test_augmentation_without_strength_changes_nothing():
    images = torch.rand(3, 2, 8, 8, generator=generator(), device="cpu")
    torch.testing.assert_close(plg_mi.augment(images, generator(), still()), images)


def test_augmentation_mirrors():
    images = torch.rand(3, 2, 8, 8, generator=generator(), device="cpu")
    torch.testing.assert_close(plg_mi.augment(images, generator(), still(flip=1.0)), images.flip(3))


def test_crops_are_parts_of_the_picture():
    """On a ramp a crop of area a spans sqrt(a) of its range, wherever it lies."""
    ramp = torch.linspace(0.0, 1.0, 32, device="cpu").expand(64, 1, 32, 32).contiguous()
    views = plg_mi.augment(ramp, generator(), still(crop=0.49))
    spans = views[:, 0, 16, -1] - views[:, 0, 16, 0]
    assert spans.min() > 0.68
    assert spans.max() < 1.001
    assert spans.std() > 0.03
    assert 0 <= views.min() <= views.max() <= 1


def test_light_keeps_within_its_limits():
    grey = torch.full((100, 1, 4, 4), 0.5, device="cpu")
    views = plg_mi.augment(grey, generator(), still(light=0.2)).flatten(1).mean(dim=1)
    assert 0.4 <= views.min() < 0.45
    assert 0.55 < views.max() <= 0.6


def test_augmentation_passes_gradients():
    images = torch.rand(2, 1, 8, 8, generator=generator(), device="cpu").requires_grad_(True)
    plg_mi.augment(images, generator(), plg_mi.PlgMiConfig()).sum().backward()
    assert images.grad.abs().sum() > 0


def two_kinds():
    """Public pictures, dark and bright, and a target that tells bright (class 1) from dark (class 0)."""
    tone = torch.tensor([0.2, 0.8], device="cpu").repeat_interleave(40)[:, None, None, None]
    images = (tone + 0.05 * torch.randn(80, 1, 8, 8, generator=generator(), device="cpu")).clamp(0, 1)
    linear = nn.Linear(64, 2)
    linear.weight.data = torch.stack([torch.full((64,), -0.3, device="cpu"), torch.full((64,), 0.3, device="cpu")])
    linear.bias.data = torch.tensor([9.6, -9.6], device="cpu")
    return images, classifier_target(nn.Sequential(nn.Flatten(), linear), "cpu").grant("white-box")


def test_the_label_opens_the_class_in_the_generator(tmp_path, monkeypatch):
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path))
    images, oracle = two_kinds()
    chosen, labels = plg_mi.top_n_selection(oracle(images), 30)
    prior = conditional_gan.conditional_gan(images[chosen], labels, 2, GanConfig(steps=150, width=4, ema=0.9))
    z = prior.sample(50, generator())
    tones = [prior.generator(z, torch.full((50,), label, device="cpu")).mean() for label in (0, 1)]
    assert tones[1] > tones[0] + 0.2


@pytest.mark.parametrize("prior", ["pseudo-labels", "unconditional"])
@pytest.mark.parametrize("loss", ["margin", "cross-entropy"])
def test_every_option_runs(tmp_path, monkeypatch, prior, loss):
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path))
    images, oracle = two_kinds()
    config = plg_mi.PlgMiConfig(prior=prior, loss=loss, prior_steps=2, prior_width=2, per_class=3, steps=3)
    found = plg_mi.attack(oracle, Knowledge(public_images=images, num_classes=2), config)
    assert found.data.shape == (2, 3, 1, 8, 8)
    assert len(found.history[f"{loss} loss"]) == 3


def test_the_prior_is_kept_by_target_and_guide(tmp_path, monkeypatch):
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path))
    images, oracle = two_kinds()
    config = plg_mi.PlgMiConfig(prior_steps=1, prior_width=2, top_n=5)
    other = classifier_target(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), "cpu").grant("white-box")
    for asked, options in ((oracle, config), (oracle, config), (other, config)):
        plg_mi.pseudo_labelled_gan(asked, images, 2, options)
    assert len(list(tmp_path.glob("conditional-gan-*.safetensors"))) == 2
    plg_mi.pseudo_labelled_gan(oracle, images, 2, dataclasses.replace(config, guide_weight=1.0))
    plg_mi.pseudo_labelled_gan(oracle, images, 2, dataclasses.replace(config, prior="unconditional"))
    assert len(list(tmp_path.glob("conditional-gan-*.safetensors"))) == 4


def test_conditional_norm_starts_as_plain_batch_normalisation():
    norm = conditional_gan.ConditionalNorm(3, 2)
    x = torch.randn(4, 3, 5, 5, generator=generator(), device="cpu")
    labels = torch.tensor([0, 1, 0, 1], device="cpu")
    torch.testing.assert_close(norm(x, labels), nn.BatchNorm2d(3)(x))
    norm.shift.weight.data[1] = 2.0
    norm.gain.weight.data[1] = 3.0
    torch.testing.assert_close(norm(x, labels)[1], 3 * nn.BatchNorm2d(3)(x)[1] + 2)


def test_labels_of_the_conditional_gan_are_checked():
    images = torch.zeros(2, 1, 8, 8, device="cpu")
    with pytest.raises(ValueError, match="below 2"):
        conditional_gan.conditional_gan(images, torch.tensor([0, 2], device="cpu"), 2, GanConfig(steps=1))
    with pytest.raises(ValueError, match="8, 16, 32"):
        conditional_gan.ConditionalGenerator(4, 2, 1, 12, 2)


@pytest.mark.parametrize(
    "wrong", [{"prior": "none"}, {"loss": "hinge"}, {"crop": 0.0}, {"light": 1.0}, {"flip": 2.0}, {"top_n": 0}, {"views": 0}]
)
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(plg_mi.PlgMiConfig(), **wrong)
