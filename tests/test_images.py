"""Natural-image crops: shapes, contrast, disjoint pictures, the same from the same seed."""

import pytest
import torch

from implementations.common.images import CONTRAST, PICTURES, natural_crops, picture, scaled


@pytest.mark.parametrize("split", ["private", "public"])
def test_crops_have_shape_range_and_contrast(split):
    crops = natural_crops(40, size=32, seed=3, split=split)
    assert crops.shape == (40, 3, 32, 32)
    assert 0 <= crops.min() < crops.max() <= 1
    assert (crops.flatten(1).std(dim=1) >= CONTRAST - 1e-3).all(), "no flat crops"


def test_private_and_public_come_from_disjoint_pictures():
    assert not set(PICTURES["private"]) & set(PICTURES["public"])


@pytest.mark.parametrize("name", [name for names in PICTURES.values() for name in names])
def test_every_picture_ships_with_the_package_and_offers_windows(name, no_network):
    picture.cache_clear()
    shown = picture(name)
    assert shown.shape[0] == 3
    assert min(shown.shape[1:]) >= 300
    assert len(scaled(name, 2.0, 32)[1]) > 50


def test_a_crop_is_a_window_of_its_scaled_picture():
    crop = natural_crops(3, seed=1)[0]  # the pictures take turns: the first one's
    small = [scaled(PICTURES["private"][0], zoom, 32)[0] for zoom in (1.5, 2.0, 3.0, 4.0)]
    windows = [s.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4).flatten(0, 1) for s in small]
    assert any((window == crop).flatten(1).all(dim=1).any() for window in windows)


def test_seeds_decide():
    first, again, other = (natural_crops(6, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, natural_crops(6, seed=0, split="public"))


def test_grey_and_other_sizes():
    assert natural_crops(2, size=64, grey=True).shape == (2, 1, 64, 64)


@pytest.mark.parametrize("wrong", [{"split": "both"}, {"size": 4}, {"count": 0}])
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        natural_crops(**{"count": 1, **wrong})
