"""DeepInversion: every term by hand, and toys that only the statistics term, or only the competition, can satisfy."""

import math

import pytest
import torch
from torch import nn

from implementations.classifier import data_free, deepinversion
from implementations.threat_model import Knowledge, classifier_target

CPU = "cpu"


def random(seed=0):
    return torch.Generator(CPU).manual_seed(seed)


def test_statistics_distance_by_hand():
    features = torch.tensor([[1.0, 0.0], [3.0, 0.0]], device=CPU)  # means 2, 0; variances 1, 0
    mean, variance = torch.tensor([2.0, 3.0], device=CPU), torch.tensor([5.0, 3.0], device=CPU)
    assert deepinversion.statistics_distance(features, mean, variance).item() == pytest.approx(3 + math.hypot(4, 3))


def test_statistics_distance_of_maps_is_zero_at_their_own_statistics():
    features = torch.randn(4, 3, 5, 5, generator=random(), device=CPU)
    variance, mean = torch.var_mean(features, dim=(0, 2, 3), correction=0)
    assert deepinversion.statistics_distance(features, mean, variance).item() < 1e-5
    assert deepinversion.statistics_distance(features + 1, mean, variance).item() == pytest.approx(math.sqrt(3), rel=1e-4)


def test_total_variation_by_hand_and_zero_on_a_flat_picture():
    x = torch.tensor([[[[0.0, 3.0], [4.0, 0.0]]]], device=CPU)
    # across 3, -4; down 4, -3; falling 0; rising 4 - 3
    assert deepinversion.total_variation(x).item() == pytest.approx(5 + 5 + 0 + 1)
    assert deepinversion.total_variation(torch.ones(2, 3, 4, 4, device=CPU)).item() == 0


def test_competition_is_one_for_agreement_and_falls_with_disagreement():
    target = torch.tensor([[4.0, -4.0], [4.0, -4.0]], device=CPU)
    assert deepinversion.competition(target, target, 1.0).item() == pytest.approx(1.0, abs=1e-5)
    p, m = (0.99, 0.01), (0.5, 0.5)  # probabilities are clamped to [0.01, 0.99]
    divergence = sum(b * math.log(b / a) for a, b in zip(p, m, strict=True))
    assert deepinversion.competition(target, -target, 0.5).item() == pytest.approx(1 - min(divergence, 1), abs=1e-3)
    mild = torch.tensor([[0.6, 0.0]], device=CPU)
    agreed, apart = deepinversion.competition(mild, mild, 1.0), deepinversion.competition(mild, -mild, 1.0)
    assert apart < agreed
    assert apart < deepinversion.competition(mild, -mild, 3.0) < agreed, "a higher temperature softens disagreement"


def normalised(channels=3):
    """Batch normalisation on pixels whose stored statistics are (mean 0.4, deviation 0.2), then the class by one channel."""
    layer = nn.BatchNorm2d(channels, affine=False)
    layer.running_mean.fill_(0.4)
    layer.running_var.fill_(0.04)
    head = nn.Linear(channels, 2, bias=False)
    head.weight.data = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]], device=CPU)
    return nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def test_watched_statistics_sees_every_layer_at_each_pass_and_goes_away():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.BatchNorm1d(48)).eval()
    x = torch.zeros(2, 3, 4, 4, device=CPU)
    with deepinversion.watched_statistics(network) as distances:
        network(x)
        assert len(distances) == 2
        assert distances[0].item() == pytest.approx(math.sqrt(3))  # variance 0 against 1, three channels
    network(x)
    assert len(distances) == 2


def rebuilt(**changes):
    oracle = classifier_target(normalised(), CPU).grant("white-box")
    knowledge = Knowledge(num_classes=2, image_shape=(3, 8, 8))
    config = deepinversion.DeepInversionConfig(**{"steps": 150, "per_class": 2, "jitter": 1, **changes})
    return deepinversion.attack(oracle, knowledge, config)


def test_pictures_take_on_the_stored_statistics_only_with_the_term():
    for weight, close in ((10.0, True), (0.0, False)):
        found = rebuilt(feature_weight=weight).data
        assert found.shape == (2, 2, 3, 8, 8)
        variance, mean = torch.var_mean(found.flatten(0, 1), dim=(0, 2, 3), correction=0)
        assert ((mean[1:] - 0.4).abs().max().item() < 0.02) is close
        assert ((variance[1:] - 0.04).abs().max().item() < 0.01) is close


def test_the_class_is_kept_beside_the_statistics():
    means = rebuilt().data.mean(dim=(1, 3, 4))  # (class, channel)
    assert means[0, 0] > means[1, 0] + 0.1


def test_total_variation_smooths():
    rough, smooth = rebuilt(feature_weight=0.0).data, rebuilt(feature_weight=0.0, tv_weight=0.1).data
    assert deepinversion.total_variation(smooth[0]) < 0.5 * deepinversion.total_variation(rough[0])


def test_norm_pulls_towards_grey():
    free, held = rebuilt(feature_weight=0.0).data, rebuilt(feature_weight=0.0, l2_weight=1.0).data
    assert (held - 0.5).abs().mean() < 0.5 * (free - 0.5).abs().mean()


def test_competition_moves_pictures_to_where_the_student_is_wrong():
    """Target and student agree on the first channel; on the second only the target reads the class."""
    target, student = normalised(), normalised()
    target[-1].weight.data = torch.tensor([[1.0, 1.0, 0.0], [-1.0, -1.0, 0.0]], device=CPU)
    oracle = classifier_target(target, CPU).grant("white-box")
    student.eval().requires_grad_(False)
    labels, ends = torch.tensor([0, 1], device=CPU), {}
    for weight in (0.0, 20.0):
        config = deepinversion.DeepInversionConfig(feature_weight=0.0, competition_weight=weight, steps=60, jitter=0)
        start = torch.zeros(2, 3, 8, 8, device=CPU)
        images, _, _ = deepinversion.invert(oracle, student, start, labels, random(), config)
        ends[weight] = images.mean(dim=(2, 3))[0]
    assert ends[0.0][0] - ends[0.0][1] == pytest.approx(0.0, abs=1e-3)
    assert ends[20.0][1] > ends[20.0][0] + 0.2


def test_rounds_share_the_reconstructions():
    found = rebuilt(steps=2, rounds=2, per_class=4)
    assert found.data.shape == (2, 4, 3, 8, 8)
    assert len(found.history["class loss"]) == 4
    assert not torch.equal(found.data[:, :2], found.data[:, 2:])


def test_refuses_networks_without_batch_normalisation_unless_the_term_is_off():
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    knowledge = Knowledge(num_classes=2, image_shape=(3, 8, 8))
    oracle = classifier_target(network, CPU).grant("white-box")
    with pytest.raises(ValueError, match="batch normalisation"):
        deepinversion.attack(oracle, knowledge, deepinversion.DeepInversionConfig(steps=1))
    deepinversion.attack(oracle, knowledge, deepinversion.DeepInversionConfig(steps=1, feature_weight=0.0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"feature_weight": -1.0},
        {"competition_weight": -1.0},
        {"steps": 0},
        {"per_class": 0},
        {"rounds": 3},
        {"temperature": 0.0},
        {"jitter": -1},
    ],
)
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        deepinversion.DeepInversionConfig(**wrong)


def test_transfer_loss_by_hand_and_zero_for_equals():
    logits, taught = torch.tensor([[0.0, 0.0]], device=CPU), torch.tensor([[2 * math.log(3.0), 0.0]], device=CPU)
    expected = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))  # temperature 2 leaves odds of 3 to 1
    assert data_free.transfer_loss(logits, taught, 2.0).item() == pytest.approx(expected, rel=1e-5)
    assert data_free.transfer_loss(taught, taught, 2.0).abs().item() < 1e-6


def test_a_student_learns_what_the_pictures_teach():
    labels = torch.arange(2, device=CPU).repeat(16)
    images = labels[:, None, None, None] * 0.8 + 0.1 * torch.rand(32, 3, 16, 16, generator=random(), device=CPU)
    taught = 8.0 * nn.functional.one_hot(labels, 2).float()
    student = data_free.teach(images, taught, 2, 20, 1.0, 0)
    assert (student(images).argmax(dim=1) == labels).all()
    head = data_free.teach_head(images.mean(dim=(2, 3)), taught, 100, 1.0)
    assert (head(images.mean(dim=(2, 3))).argmax(dim=1) == labels).all()
