"""TB-MIA: truncation by hand and against its limits, the decoder's form, and what alignment does on a toy with known answer."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from implementations.classifier import tb_mia
from implementations.threat_model import Knowledge, classifier_target


def test_truncation_by_hand():
    scores = torch.tensor([[0.6, 0.1, 0.3]], device="cpu")
    expected = torch.tensor([[math.log(0.6) + 50, 0.0, math.log(0.3) + 50]], device="cpu")
    torch.testing.assert_close(tb_mia.truncate(scores, 2), expected)


def test_truncation_to_all_scores_keeps_all_and_more_is_all():
    scores = torch.rand(4, 6, generator=torch.Generator("cpu").manual_seed(0), device="cpu").softmax(dim=1)
    torch.testing.assert_close(tb_mia.truncate(scores, 6), scores.log() + 50)
    assert torch.equal(tb_mia.truncate(scores, 9), tb_mia.truncate(scores, 6))


def test_truncated_vectors_are_never_negative_even_for_scores_of_zero():
    scores = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]], device="cpu")
    whole = tb_mia.truncate(scores, 3)
    assert torch.isfinite(whole).all()
    assert (whole >= 0).all()
    assert whole[0].argmax() == 0
    torch.testing.assert_close(whole[0, 0] - whole[0, 1], torch.tensor(1000.0, device="cpu"))  # log 0 counts as -1000


def test_one_hot_vectors_stay_one_hot():
    vectors = tb_mia.truncate(torch.eye(3, device="cpu"), 1)
    torch.testing.assert_close(vectors, 50 * torch.eye(3, device="cpu"))


def test_loss_by_hand():
    rebuilt, images = torch.tensor([[[[0.5]]]], device="cpu"), torch.tensor([[[[0.1]]]], device="cpu")
    torch.testing.assert_close(tb_mia.reconstruction_loss(rebuilt, images), torch.tensor(0.16, device="cpu"))


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32)])
def test_decoder_makes_pictures(channels, size):
    pictures = tb_mia.Decoder(5, channels, size, 4)(torch.zeros(2, 5, device="cpu"))
    assert pictures.shape == (2, channels, size, size)
    assert pictures.min() >= 0
    assert pictures.max() <= 1


def test_decoder_refuses_other_sizes():
    with pytest.raises(ValueError, match="12"):
        tb_mia.Decoder(5, 1, 12, 4)


class Brightness(nn.Module):
    """Three classes: dark, medium and bright pictures."""

    def forward(self, x):
        mean = x.flatten(1).mean(dim=1, keepdim=True)
        levels = torch.tensor([0.1, 0.5, 0.9], device=x.device)
        return -40 * (mean - levels).square()


def toy(**changes):
    """Grey pictures of all brightnesses; the brightness that each class's reconstruction has, and the notes."""
    levels = torch.rand(600, 1, 1, 1, generator=torch.Generator("cpu").manual_seed(977), device="cpu")
    public = levels.expand(-1, 1, 8, 8).contiguous()
    oracle = classifier_target(Brightness(), "cpu").grant("scores")
    knowledge = Knowledge(public_images=public, image_shape=(1, 8, 8))
    config = tb_mia.TbMiaConfig(steps=250, batch=64, width=8, **changes)
    found = tb_mia.attack(oracle, knowledge, config)
    assert oracle.queries == 600, "the target is asked once for each public picture"
    return found.data.mean(dim=(1, 2, 3, 4)), found.notes


@pytest.mark.parametrize("seed", range(3))
def test_classes_come_back_and_only_with_true_pairs_and_alignment(seed):
    true = torch.tensor([0.15, 0.5, 0.85], device="cpu")  # means of what the target calls dark, medium and bright
    error, notes = toy(seed=seed)
    assert (error - true).abs().max() < 0.1
    assert notes["input_error"] < 0.4 * notes["mean_error"]
    shuffled, notes = toy(seed=seed, pairs="shuffled")
    assert (shuffled - true).abs().max() > 0.25
    assert notes["input_error"] > 0.9 * notes["mean_error"]
    _, whole = toy(seed=seed, aligned=False)
    _, aligned = toy(seed=seed)
    assert whole["input_error"] > 1.5 * aligned["input_error"]


def test_more_scores_rebuild_inputs_better():
    assert toy(top=3)[1]["input_error"] < 0.7 * toy(top=1)[1]["input_error"]


@pytest.mark.parametrize("wrong", [{"pairs": "none"}, {"top": 0}, {"held_out": 1.0}, {"steps": 0}])
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(tb_mia.TbMiaConfig(), **wrong)
