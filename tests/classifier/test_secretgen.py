"""SecretGen: cuts, votes and starts by hand, what is seen is kept, and a toy whose class is found without being told."""

import dataclasses

import pytest
import torch
from torch import nn

from implementations.classifier import inpainting, secretgen
from implementations.classifier.masked import MaskedConfig
from implementations.threat_model import Knowledge, NotKnown, classifier_target

CPU = "cpu"


def generator(seed=0):
    return torch.Generator(CPU).manual_seed(seed)


def tensor(*values):
    return torch.tensor(values, device=CPU)


def test_cuts_make_each_square_grey_once():
    images = torch.ones(2, 3, 8, 8, device=CPU)
    copies = secretgen.cuts(images, 4, grey=0.0)
    assert copies.shape == (16, 2, 3, 8, 8)
    assert torch.equal(copies.sum(dim=0), torch.full((2, 3, 8, 8), 15.0, device=CPU))
    assert torch.equal(copies[1, 0, 0, :2, 2:4], torch.zeros(2, 2, device=CPU))  # first row, second column
    assert copies[1].sum() == 2 * 3 * (64 - 4)


def test_cuts_cover_pictures_that_the_grid_does_not_divide():
    copies = secretgen.cuts(torch.ones(1, 1, 10, 10, device=CPU), 4, grey=0.0)
    assert torch.equal(copies.sum(dim=0), torch.full((1, 1, 10, 10), 15.0, device=CPU))


def test_agreement_averages_over_fillings_and_cuts_by_hand():
    scores = tensor([[[0.6, 0.4, 0.0]], [[0.2, 0.5, 0.3]]], [[[0.7, 0.3, 0.0]], [[0.1, 0.9, 0.0]]])  # (K, J + 1, N, C)
    named = scores[:, 0].argmax(dim=2)  # both fillings are named 0
    assert torch.equal(named, tensor([0], [0]))
    assert scores.mean(dim=(0, 1)).argmax() == 1
    assert torch.equal(secretgen.agreement(scores, named), tensor(0)), "class 1 is likelier, but no filling is named so"
    assert torch.equal(secretgen.agreement(scores, tensor([0], [1])), tensor(1))


def test_start_is_the_surest_filling_of_the_class_by_hand():
    codes = torch.arange(6.0, device=CPU).view(3, 2, 1)  # three fillings of two pictures
    named, confidence = tensor([0, 1], [1, 1], [0, 2]), tensor([0.5, 0.6], [0.9, 0.4], [0.7, 0.9])
    found = secretgen.surest(codes, named, confidence, tensor(0, 1))
    assert torch.equal(found.flatten(), tensor(4.0, 1.0))  # third filling of the first picture, first of the second
    assert torch.equal(secretgen.surest(codes, named, confidence, tensor(7, 7)), codes[0]), "none: the first filling"


def test_diversity_loss_by_hand():
    loss = inpainting.diversity_loss(tensor([1.0, 2.0]), tensor([1.0, 5.0]), tensor([0.0]), tensor([2.0]))
    assert loss.item() == pytest.approx(-1.5 / 2.0)


def test_filler_keeps_what_is_seen():
    filler = inpainting.Filler(4, 3, 8, 2)
    images, mask = torch.rand(5, 3, 8, 8, generator=generator(), device=CPU), torch.zeros(1, 1, 8, 8, device=CPU)
    mask[:, :, 2:6, 2:6] = 1
    seen = inpainting.hide(images, mask)
    assert seen.shape == (5, 4, 8, 8)
    assert seen[:, :3, 2:6, 2:6].abs().max() == 0
    filled = filler(seen, torch.randn(5, 4, generator=generator(), device=CPU))
    assert torch.equal(filled * (1 - mask), images * (1 - mask))
    assert filled[:, :, 2:6, 2:6].min() > 0


def test_crop_has_half_the_side_and_its_place_moves():
    ramp = torch.arange(64.0, device=CPU).view(1, 1, 8, 8)
    random = generator()
    crops = [inpainting.crop(ramp, random) for _ in range(20)]
    assert {tuple(one.shape) for one in crops} == {(1, 1, 4, 4)}
    assert len({one[0, 0, 0, 0].item() for one in crops}) > 3


class Tone(nn.Module):
    """Three classes by the tone in the middle of a picture; sure near 0.1, 0.5 and 0.9, the private people's tones."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 3, bias=False)
        self.last.weight.data = 30 * torch.eye(3, device=CPU)

    def forward(self, x):
        middle = x[:, :, 2:6, 2:6].flatten(1).mean(dim=1, keepdim=True)
        return self.last(-(middle - tensor(0.1, 0.5, 0.9)).square())


class Fill(nn.Module):
    """Fills the hole with the tone of the border, shifted by the code."""

    latent = 1

    def forward(self, seen, z):
        pictures, mask = seen[:, :-1], seen[:, -1:]
        border = (pictures * (1 - mask)).flatten(1).sum(dim=1) / (1 - mask[0]).sum()
        return pictures * (1 - mask) + mask * (border + 0.2 * z[:, 0]).clamp(0, 1)[:, None, None, None]


class Indifferent(nn.Module):
    def forward(self, x):
        return x.sum(dim=(1, 2, 3)) * 0


def toy(monkeypatch, **changes):
    """Errors of the filled tones (N,) of three masked pictures, each a person's, and the attack's knowledge after it."""
    tones = tensor(0.1, 0.5, 0.9).repeat(8)
    mask = torch.zeros(1, 1, 8, 8, device=CPU)
    mask[:, :, 2:6, 2:6] = 1
    seen = inpainting.hide(tones[:, None, None, None].expand(-1, 1, 8, 8), mask)
    backbone = inpainting.Backbone(Fill(), Indifferent(), Indifferent(), 0.0)
    monkeypatch.setattr(secretgen, "trained_backbone", lambda *_: backbone)
    knowledge = Knowledge(blurred_image=seen, public_images=seen[:, :1], labels=tensor(0, 1, 2).repeat(8))
    oracle = classifier_target(Tone(), CPU).grant("white-box")
    config = secretgen.SecretGenConfig(**{"lr": 0.002, "steps": 30, "identity_weight": 5.0, **changes})
    found = secretgen.attack(oracle, knowledge, config)
    return (found.data[:, :, 2:6, 2:6].mean(dim=(1, 2, 3)) - tones).abs(), knowledge, oracle


@pytest.mark.parametrize("seed", range(2))
def test_the_class_is_found_without_being_told(monkeypatch, seed):
    errors, knowledge, _ = toy(monkeypatch, seed=seed)
    assert errors.max() < 0.15  # nearer to the own tone than to any other
    assert "labels" not in knowledge.reads
    alone, _, _ = toy(monkeypatch, seed=seed, label="first", start="random")
    assert alone.max() > 0.15, "a single filling is often another's"


def test_the_label_is_read_where_it_is_given_only(monkeypatch):
    errors, knowledge, _ = toy(monkeypatch, label="given")
    assert errors.max() < 0.15  # nearer to the own tone than to any other
    assert "labels" in knowledge.reads
    with pytest.raises(NotKnown):
        Knowledge(public_images=errors).only(["public-images"]).labels  # noqa: B018 - reading is the test


def test_runs_without_the_idea_ask_as_often(monkeypatch):
    expected = 24 * 17 * 24 + 30 * 24
    for changes in ({}, {"label": "first", "start": "random"}, {"label": "given", "start": "random"}, {"search": "realism"}):
        assert toy(monkeypatch, **changes)[2].queries == expected


def test_search_without_the_target_moves_nowhere_where_all_is_equally_real(monkeypatch):
    still, _, _ = toy(monkeypatch, search="realism", start="random", label="first")
    moved, _, _ = toy(monkeypatch, search="target", start="random", label="given")
    assert moved.mean() < 0.5 * still.mean()


def test_backbone_is_trained_once_for_a_target(tmp_path, monkeypatch):
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path))
    public = torch.rand(40, 1, 16, 16, generator=generator(), device=CPU)
    mask = torch.zeros(1, 1, 16, 16, device=CPU)
    mask[:, :, 4:12, 4:12] = 1
    config = inpainting.FillConfig(latent=2, width=2, steps=2, batch=4)
    oracle = classifier_target(nn.Sequential(nn.Flatten(), nn.Linear(256, 4), nn.ReLU(), nn.Linear(4, 2)), CPU)
    one, two = (inpainting.trained_backbone(oracle.grant("white-box"), public, mask, config) for _ in range(2))
    assert len(list(tmp_path.glob("filler-*.safetensors"))) == 1
    z = torch.randn(3, 2, generator=generator(), device=CPU)
    assert torch.equal(one.filler(inpainting.hide(public[:3], mask), z), two.filler(inpainting.hide(public[:3], mask), z))
    inpainting.trained_backbone(oracle.grant("white-box"), public, mask, dataclasses.replace(config, diversity_weight=0.0))
    assert len(list(tmp_path.glob("filler-*.safetensors"))) == 2


@pytest.mark.parametrize(
    "wrong", [{"label": "guess"}, {"start": "mean"}, {"search": "pixels"}, {"grid": -1}, {"fillings": 0}, {"steps": 0}]
)
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        secretgen.SecretGenConfig(**wrong)


@pytest.mark.parametrize("wrong", [{"masked": 0}, {"masked": 25}, {"hole": 0.0}, {"hole": 1.5}])
def test_rejects_impossible_masks(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MaskedConfig(**wrong)
