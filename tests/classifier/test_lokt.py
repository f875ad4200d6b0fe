"""LOKT: its losses by hand, classes that start alike, queries, and knowledge that goes over to surrogates on a toy."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from implementations.classifier import lokt
from implementations.classifier.students import StudentCNN
from implementations.common.conditional_gan import ConditionalGenerator, ProjectionDiscriminator
from implementations.threat_model import Knowledge, classifier_target

CPU = "cpu"


def generator(seed=0):
    return torch.Generator(CPU).manual_seed(seed)


def tensor(*values):
    return torch.tensor(values, device=CPU)


def test_discriminator_loss_by_hand():
    logits, answers = tensor([0.0, math.log(3.0)], [0.0, 0.0]), tensor(1, 0)
    hinge = (0.5 + 0.0) / 2 + (1.5 + 0.0) / 2  # real 0.5 and 2, fake 0.5 and -2
    classes = (-math.log(0.75) + math.log(2.0)) / 2
    loss = lokt.discriminator_loss(tensor(0.5, 2.0), tensor(0.5, -2.0), logits, answers, alpha=1.5)
    assert loss.item() == pytest.approx(hinge + 1.5 * classes, rel=1e-5)


def test_generator_loss_by_hand():
    logits, wanted = tensor([0.0, math.log(3.0)]), tensor(0)  # one picture
    loss = lokt.generator_loss(tensor(2.0), logits, wanted, alpha=1.5)
    assert loss.item() == pytest.approx(-2.0 - 1.5 * math.log(0.25), rel=1e-5)


def test_surrogates_learn_from_plain_and_augmented_pictures_alike():
    class Seen(nn.Module):
        def forward(self, x):
            self.views = [*getattr(self, "views", []), x]
            return torch.zeros(len(x), 2, device=x.device)

    network, x = Seen(), torch.rand(3, 1, 8, 8, generator=generator(), device=CPU)
    loss = lokt.surrogate_loss(network, x, tensor(0, 1, 0), generator())
    assert loss.item() == pytest.approx(math.log(2.0), rel=1e-5)
    assert torch.equal(network.views[0], x)
    assert not torch.equal(network.views[1], x)


def test_all_classes_start_as_the_single_one():
    single = ConditionalGenerator(4, 1, 1, 8, 2).eval()
    single.norms[0].gain.weight.data.fill_(2.0)
    several, z = lokt.for_classes(single, 3, (1, 8, 8), 2).eval(), torch.randn(3, 4, generator=generator(), device=CPU)
    torch.testing.assert_close(several(z, tensor(0, 1, 2)), single(z, tensor(0, 0, 0)))


def test_judge_keeps_the_realism_that_was_learnt():
    trained = ProjectionDiscriminator(1, 1, 8, 2).eval()
    x = torch.rand(5, 1, 8, 8, generator=generator(), device=CPU)
    realism, logits = lokt.Judge(trained, 3).eval()(x)
    torch.testing.assert_close(realism, trained(x, torch.zeros(5, dtype=torch.int64, device=CPU)))
    assert logits.shape == (5, 3)


def two_kinds():
    """Public pictures of all tones, and a target that names bright ones (class 1) and dark ones (class 0)."""
    tone = torch.rand(200, 1, 1, 1, generator=generator(977), device=CPU)
    images = (tone + 0.03 * torch.randn(200, 1, 8, 8, generator=generator(1), device=CPU)).clamp(0, 1)
    linear = nn.Linear(64, 2)
    linear.weight.data = torch.stack([torch.full((64,), sign * 0.3, device=CPU) for sign in (-1, 1)])
    linear.bias.data = tensor(9.6, -9.6)
    return images, classifier_target(nn.Sequential(nn.Flatten(), linear), CPU)


SMALL = lokt.LoktConfig(
    gan_steps=60, batch=32, gan_lr=5e-3, samples=32, surrogate_widths=(2,), surrogate_epochs=10, steps=20, views=1,
    prior_steps=150, prior_width=4, ema=0.8,
)  # fmt: skip


def toy(**changes):
    """Mean tone of the pictures of each class (2,), and the queries of the attack."""
    images, target = two_kinds()
    oracle = target.grant("label-only")
    found = lokt.attack(oracle, Knowledge(public_images=images, num_classes=2), dataclasses.replace(SMALL, **changes))
    assert found.data.shape == (2, 2, 1, 8, 8)
    return found.data.mean(dim=(1, 2, 3, 4)), oracle.queries


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path_factory.getbasetemp() / "lokt"))  # one prior for all tests here


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("attacked", ["surrogates", "classifier"])
def test_labels_alone_bring_the_classes_back(cache, seed, attacked):
    tones, _ = toy(seed=seed, attacked=attacked)
    assert tones[1] > tones[0] + 0.3


def test_without_the_targets_answers_it_is_a_toss_which_class_is_which(cache):
    differences = [tones[1] - tones[0] for tones, _ in (toy(seed=seed, answers="shuffled") for seed in range(2))]
    assert min(differences) < 0


def test_every_way_asks_as_often_and_never_in_the_search(cache):
    expected = 3 * 2 * 32 + 2 * 32
    for changes in ({}, {"asks_about": "public"}, {"answers": "shuffled"}, {"steps": 5}):
        small = {"gan_steps": 3, "discriminator_steps": 2, "surrogate_epochs": 1, "steps": 2}
        assert toy(**{**small, **changes})[1] == expected


def test_shuffled_answers_are_the_same_labels_in_another_order():
    images, target = two_kinds()
    config = dataclasses.replace(SMALL, answers="shuffled")
    ask = lokt.Asker(target.grant("label-only"), config, generator())
    told = target.grant("label-only")(images)
    assert torch.equal(ask(images).sort().values, told.sort().values)
    assert not torch.equal(ask(images), told)


def test_surrogates_are_taught_what_they_are_told():
    images, target = two_kinds()
    answers = target.grant("label-only")(images)
    (surrogate,) = lokt.taught(images, answers, 2, SMALL, generator())
    assert isinstance(surrogate, StudentCNN)
    assert (surrogate(images).argmax(dim=1) == answers).float().mean() > 0.9


@pytest.mark.parametrize(
    "wrong",
    [
        {"asks_about": "private"}, {"answers": "none"}, {"attacked": "target"}, {"alpha": -1.0}, {"ema": 1.0},
        {"surrogate_widths": ()},
    ],
)  # fmt: skip
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        lokt.LoktConfig(**wrong)


def test_rejects_empty_counts():
    with pytest.raises(ValueError, match="counts"):
        lokt.LoktConfig(samples=0)
