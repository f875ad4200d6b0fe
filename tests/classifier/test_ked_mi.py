"""KED-MI's losses by hand, the discriminator as a classifier with one more class, and the distribution of codes."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from implementations.classifier import ked_mi
from implementations.common.priors import Prior
from implementations.threat_model import Knowledge, classifier_target


def test_soft_label_loss_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0]], device="cpu")  # probabilities 3/4 and 1/4
    soft = torch.tensor([[0.5, 0.5]], device="cpu")
    expected = torch.tensor([-0.5 * math.log(0.75) - 0.5 * math.log(0.25)], device="cpu")
    torch.testing.assert_close(ked_mi.soft_label_loss(logits, soft), expected)


def test_soft_label_loss_is_least_where_the_discriminator_repeats_the_target():
    soft = torch.tensor([[0.7, 0.2, 0.1]], device="cpu")
    same = ked_mi.soft_label_loss(soft.log() + 5.0, soft)
    torch.testing.assert_close(same, -(soft * soft.log()).sum(dim=1))
    assert ked_mi.soft_label_loss(torch.zeros(1, 3, device="cpu"), soft) > same


def test_real_and_fake_are_a_softmax_with_one_more_class():
    logits = torch.tensor([[0.3, -1.0, 2.0], [-4.0, -5.0, -3.0]], device="cpu")
    extended = torch.cat([logits, torch.zeros(2, 1, device="cpu")], dim=1).log_softmax(dim=1)
    torch.testing.assert_close(ked_mi.log_real(logits), extended[:, :3].logsumexp(dim=1))
    torch.testing.assert_close(ked_mi.log_fake(logits), extended[:, 3])


def test_prior_loss_is_the_official_formula():
    logits = torch.tensor([[1.0, -2.0]], device="cpu")
    total = logits.logsumexp(dim=1)
    torch.testing.assert_close(-ked_mi.log_real(logits), nn.functional.softplus(total) - total)


def test_discriminator_loss_without_labels_only_tells_real_from_fake():
    real, fake = torch.randn(4, 3, device="cpu"), torch.randn(4, 3, device="cpu")
    soft = torch.full((4, 3), 1 / 3, device="cpu")
    plain = -0.5 * (ked_mi.log_real(real) + ked_mi.log_fake(fake)).mean()
    torch.testing.assert_close(ked_mi.discriminator_loss(real, fake, soft, 0.0), plain)
    with_labels = plain + ked_mi.soft_label_loss(real, soft).mean()
    torch.testing.assert_close(ked_mi.discriminator_loss(real, fake, soft), with_labels)


def test_entropy_of_a_uniform_and_of_a_sure_answer():
    logits = torch.tensor([[2.0, 2.0, 2.0, 2.0], [100.0, 0.0, 0.0, 0.0]], device="cpu")
    torch.testing.assert_close(ked_mi.entropy(logits), torch.tensor([math.log(4.0), 0.0], device="cpu"))


def test_generator_loss_by_hand():
    real = torch.tensor([[1.0, 0.0], [3.0, 0.0]], device="cpu")  # mean (2, 0)
    fake = torch.tensor([[0.0, 1.0], [0.0, 2.0]], device="cpu")  # mean (0, 1.5)
    torch.testing.assert_close(ked_mi.feature_matching(real, fake), torch.tensor(1.75, device="cpu"))
    logits = torch.zeros(2, 4, device="cpu")
    expected = torch.tensor(1.75 + 0.5 * math.log(4.0), device="cpu")
    torch.testing.assert_close(ked_mi.generator_loss(real, fake, logits, 0.5), expected)


def test_minibatch_discrimination_sees_copies():
    network = ked_mi.LabelDiscriminator(3, 1, 8, 2, 4)
    features = torch.randn(1, network.features(torch.zeros(1, 1, 8, 8, device="cpu")).shape[1], device="cpu")
    network.head.weight.data.zero_()
    network.head.weight.data[0, -4:] = 1.0  # logit 0 is the likeness to the rest of the batch, at most 4
    network.head.bias.data.zero_()
    copies = network.classify(features.expand(5, -1))[:, 0]
    torch.testing.assert_close(copies, torch.full((5,), 4.0, device="cpu"))
    assert network.classify(features)[0, 0] == 0, "a picture alone resembles nobody"
    assert network.classify(10 * torch.randn(5, features.shape[1], device="cpu"))[:, 0].max() < 4


def test_reparameterisation_gives_the_distribution_and_its_gradients():
    mean = torch.tensor([[1.0, -2.0]], device="cpu", requires_grad=True)
    log_variance = torch.tensor([[0.0, math.log(4.0)]], device="cpu", requires_grad=True)
    noise = torch.randn(1, 20000, 2, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    codes = ked_mi.reparameterise(mean, log_variance, noise)
    torch.testing.assert_close(codes.mean(dim=1), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(codes.std(dim=1), torch.tensor([[1.0, 2.0]], device="cpu"), atol=0.05, rtol=0)
    codes.pow(2).mean(dim=1).sum().backward()  # E z^2 = m^2 + v: gradients 2 m, and v in log v
    torch.testing.assert_close(mean.grad, 2 * mean.detach(), atol=0.1, rtol=0)
    torch.testing.assert_close(log_variance.grad, torch.tensor([[1.0, 4.0]], device="cpu"), atol=0.15, rtol=0)


def test_without_variance_all_codes_are_the_mean():
    mean = torch.tensor([[1.0, 2.0]], device="cpu")
    codes = ked_mi.reparameterise(mean, torch.full_like(mean, -torch.inf), torch.randn(1, 3, 2, device="cpu"))
    assert torch.equal(codes, mean[:, None].expand(1, 3, 2))


class Shows(nn.Module):
    """A generator that shows its code as a picture of two pixels."""

    latent = 2

    def forward(self, z):
        return z.view(-1, 1, 1, 2)


class Zero(nn.Module):
    def forward(self, x):
        return x.flatten(1).sum(dim=1) * 0


def recovered(monkeypatch, **options):
    """A plateau: the class is sure for a first coordinate above 2, whatever the second is; the other class mirrors it."""
    linear = nn.Linear(2, 2)
    linear.weight.data = torch.tensor([[2.0, 0.0], [-2.0, 0.0]], device="cpu")
    linear.bias.data.zero_()
    oracle = classifier_target(nn.Sequential(nn.Flatten(), linear), "cpu").grant("white-box")
    monkeypatch.setattr(ked_mi, "public_gan", lambda images, options: Prior(Shows(), Zero(), 0.0))
    config = ked_mi.KedMiConfig(prior="general", steps=200, lr=0.05, per_class=16, start_log_variance=0.0, **options)
    return ked_mi.attack(oracle, Knowledge(public_images=torch.zeros(1, 1, 1, 2, device="cpu"), num_classes=2), config)


def test_the_distribution_is_right_all_around(monkeypatch):
    found = recovered(monkeypatch)
    codes = found.data.view(2, 16, 2)
    assert codes[0, :, 0].min() > 0
    assert codes[1, :, 0].max() < 0
    assert found.history["identity loss"][-1] < 0.1 * found.history["identity loss"][0]
    assert codes[:, :, 1].std(dim=1).min() > 0.5, "what the class does not fix stays spread"


def test_points_from_the_centre_are_all_one(monkeypatch):
    codes = recovered(monkeypatch, recovery="point", start="centre").data.view(2, 16, 2)
    assert torch.equal(codes, codes[:, :1].expand_as(codes))


def test_the_prior_depends_on_the_target(tmp_path, monkeypatch):
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path))
    public = torch.rand(20, 1, 8, 8, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    config = ked_mi.KedMiConfig(prior_steps=2, prior_width=2)
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        oracle = classifier_target(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "cpu").grant("white-box")
        networks, _ = ked_mi.inversion_gan(oracle, public, 3, config)
    assert len(list(tmp_path.glob("inversion-gan-8px-*.safetensors"))) == 2
    pictures = networks["generator"](torch.zeros(5, 64, device="cpu"))
    assert pictures.shape == (5, 1, 8, 8)
    assert networks["discriminator"](pictures).shape == (5, 3)


@pytest.mark.parametrize("wrong", [{"prior": "none"}, {"recovery": "all"}, {"start": "mean"}, {"steps": 0}, {"per_class": 0}])
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(ked_mi.KedMiConfig(), **wrong)
