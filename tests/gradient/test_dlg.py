"""DLG: the distance by hand, closed-form recovery, and recovery that fails when the gradients are not matched."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from implementations.gradient.dlg import EXPERIMENT, DLGConfig, attack, gradient_distance, norm_distance
from implementations.gradient.matching import leading, match, start_images
from implementations.gradient.networks import client_gradients
from implementations.gradient.setting import GradientConfig, GradientSetting, gradient_target
from implementations.threat_model import Knowledge


def linear_clients(clients=3, classes=5, size=4):
    """A linear classifier with bias on grey pictures, its clients' target, and their pictures and labels."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(size * size, classes))
    generator = torch.Generator().manual_seed(1)
    images = torch.rand((clients, 1, 1, size, size), generator=generator)
    labels = torch.randint(classes, (clients, 1), generator=generator)
    return gradient_target(network, images, labels), images, labels


def test_distance_by_hand():
    one = {"w": torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]]), "b": torch.tensor([[1.0], [0.0]])}
    two = {"w": torch.tensor([[[0.0, 4.0]], [[0.0, 0.0]]]), "b": torch.tensor([[4.0], [0.0]])}
    assert gradient_distance(one, two).tolist() == [1 + 4 + 9, 0]
    expected = (5**0.5 - 4) ** 2 + 9
    assert norm_distance(one, two).tolist() == pytest.approx([expected, 0])


def test_distance_is_zero_for_the_truth_and_for_nothing_near_it():
    setting = GradientSetting(GradientConfig(victims=2))
    images, labels = setting.private["images"], setting.private["labels"]
    observed, gradients = setting.target.grant("gradients").update, client_gradients(setting.network)
    truth = F.one_hot(labels, 10).float()
    assert gradient_distance(gradients(images, truth), observed).max() < 1e-8
    assert gradient_distance(gradients(images + 0.01, truth), observed).min() > 1e-4
    assert gradient_distance(gradients(images, truth.roll(1, -1)), observed).min() > 1


def test_a_linear_layer_gives_its_input_away():
    """Weight gradient over bias gradient is the input exactly (batch of one): gradients leak before any search."""
    target, images, _ = linear_clients()
    update = target.grant("gradients").update
    ratio = update["1.weight"][:, 0] / update["1.bias"][:, :1]
    torch.testing.assert_close(ratio, images.flatten(1), rtol=1e-4, atol=1e-5)


def test_matching_finds_that_same_input_and_label():
    target, images, labels = linear_clients()
    knowledge = Knowledge(image_shape=(1, 4, 4), num_classes=5, batch_size=1)
    found = attack(target.grant("gradients"), knowledge, DLGConfig(evaluations=300, tolerance=1e-10))
    torch.testing.assert_close(found.data["images"], images, rtol=0, atol=1e-2)
    assert torch.equal(found.data["labels"], labels)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_crops_are_recovered_and_norms_alone_recover_nothing(seed):
    setting = GradientSetting(GradientConfig(victims=2, size=16))
    config = DLGConfig(seed=seed, evaluations=250)
    oracle, knowledge = EXPERIMENT.observe(setting)
    found, norms, none = (
        setting.evaluate(attack(oracle, knowledge, dataclasses.replace(config, **changes)))
        for changes in ({}, {"compare": "norms"}, {"evaluations": 1, "starts": 1})
    )
    assert found["psnr"] > 25
    assert found["label_accuracy"] == 1
    assert norms["psnr"] < 15
    assert none["psnr"] < 15


def test_batches_of_two_are_searched_together():
    setting = GradientSetting(GradientConfig(victims=1, batch_size=2, size=16, num_classes=4))
    found = attack(*EXPERIMENT.observe(setting), DLGConfig(evaluations=60))
    assert found.data["images"].shape == (1, 2, 3, 16, 16)
    assert found.data["labels"].shape == (1, 2)
    values = found.history["median distance"]
    assert values[-1] < 0.05 * values[0]


def test_starts_are_compared_by_distance_alone():
    values = torch.tensor([3.0, 1.0, torch.nan, 5.0, 7.0, torch.inf])
    assert leading(values, 3).tolist() == [1, 3, 4]


def test_the_race_stops_beaten_starts():
    setting = GradientSetting(GradientConfig(victims=2, size=16))
    oracle, knowledge = EXPERIMENT.observe(setting)
    config = DLGConfig(evaluations=30, starts=3, race=10)
    notes = attack(oracle, knowledge, config).notes
    assert notes["runs"] == 6
    assert notes["evaluations"] == 2 * (30 + 2 * 10), "two of three starts end after the race"


def test_starts_have_the_stated_form():
    generator = torch.Generator().manual_seed(0)
    plain = start_images(DLGConfig(start="flat"), (50, 1, 3, 8, 8), generator)
    assert plain.flatten(3).std(dim=3).mean().item() == pytest.approx(0.01, rel=0.1)
    assert 0.2 < plain.mean() < 0.8
    assert start_images(DLGConfig(start="normal"), (50, 1, 3, 8, 8), generator).std().item() == pytest.approx(1, rel=0.05)


def test_known_labels_are_kept():
    target, _, labels = linear_clients()
    wrong = (labels + 1) % 5
    found = match(
        target.grant("gradients"), gradient_distance, DLGConfig(evaluations=5, race=2), (1, 1, 4, 4), torch.Generator(), wrong
    )
    assert torch.equal(found.data["labels"], wrong)


@pytest.mark.parametrize(
    "wrong", [{"labels": "known"}, {"compare": "angles"}, {"start": "zero"}, {"starts": 0}, {"tolerance": -1.0}]
)
def test_wrong_options_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DLGConfig(**wrong)
