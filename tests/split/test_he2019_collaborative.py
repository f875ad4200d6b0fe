"""He, Zhang, Lee (2019): objective by hand, exact recovery where theory says so, both attacks with and without their idea."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from implementations.common.metrics import psnr
from implementations.split.he2019_collaborative import (
    EXPERIMENT,
    CollaborativeConfig,
    InverseNetwork,
    attack,
    euclidean_distance,
    pixel_loss,
    shuffled_weights,
    total_variation,
)
from implementations.split.networks import cnn_layers, cut_after, cuts, lenet_layers
from implementations.split.setting import SplitConfig, SplitSetting
from implementations.threat_model import AccessDenied, Features, Knowledge

CPU = torch.device("cpu")


def generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def smooth_images(count: int, seed: int, size: int = 8) -> torch.Tensor:
    """Random pictures with large structures, (count, 1, size, size) in [0, 1]."""
    coarse = torch.rand((count, 1, 4, 4), generator=generator(seed), device=CPU)
    return nn.functional.interpolate(coarse, size=size, mode="bilinear")


class Rotation(nn.Module):
    """An orthogonal matrix on the pixels: nothing of the input is lost."""

    def __init__(self, pixels: int):
        super().__init__()
        square = torch.randn((pixels, pixels), generator=generator(3), device=CPU)
        self.matrix = nn.Parameter(torch.linalg.qr(square).Q)

    def forward(self, x):
        return x.flatten(1) @ self.matrix.T


# --- formulas


def test_total_variation_by_hand():
    two = torch.tensor([[[[0.0, 1.0], [2.0, 4.0]]]], device=CPU)
    # corner (0, 0): down 2, right 1; (0, 1): down 3; (1, 0): right 2; (1, 1): nothing
    assert total_variation(two).item() == pytest.approx(math.sqrt(5) + 3 + 2)
    assert total_variation(two, beta=2.0).item() == pytest.approx(5 + 9 + 4)
    point = torch.zeros((1, 1, 3, 3), device=CPU)
    point[0, 0, 1, 1] = 1.0  # the point itself has two differences of 1, its upper and its left neighbour one each
    assert total_variation(point).item() == pytest.approx(math.sqrt(2) + 2)


def test_total_variation_is_one_value_an_image_summed_over_channels():
    image = torch.rand((1, 1, 4, 4), generator=generator(0), device=CPU)
    batch = torch.cat([image.expand(1, 3, 4, 4), torch.zeros((1, 3, 4, 4), device=CPU)])
    assert total_variation(batch).tolist() == pytest.approx([3 * total_variation(image).item(), 0.0])


def test_total_variation_has_gradients_everywhere():
    x = torch.rand((2, 1, 3, 3), generator=generator(1), dtype=torch.float64, device=CPU).requires_grad_(True)
    assert torch.autograd.gradcheck(total_variation, (x,))
    flat = torch.full((1, 1, 3, 3), 0.5, device=CPU, requires_grad=True)
    total_variation(flat).sum().backward()
    assert torch.equal(flat.grad, torch.zeros_like(flat)), "the start is constant grey: no NaN may come from it"


def test_distance_and_pixel_loss_by_hand():
    sent = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]], device=CPU)
    observed = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]], device=CPU)
    assert euclidean_distance(sent, observed).tolist() == [0.0, 25.0]
    assert pixel_loss(sent, observed).item() == pytest.approx(12.5)


def test_the_truth_has_no_distance_and_others_have():
    x = smooth_images(3, 0)
    client = Rotation(64)
    assert torch.equal(euclidean_distance(client(x), client(x)), torch.zeros(3))
    assert (euclidean_distance(client(x.flip(0)), client(x))[[0, 2]] > 0).all()


def test_shuffled_weights_keep_the_values_and_lose_their_places():
    client = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    before = {name: value.clone() for name, value in client.state_dict().items()}
    other = shuffled_weights(client, generator(0))
    for name, value in other.state_dict().items():
        assert torch.equal(client.state_dict()[name], before[name]), "the granted client must stay as it is"
        assert torch.equal(value.flatten().sort().values, before[name].flatten().sort().values)
    assert not torch.equal(other[0].weight, client[0].weight)


# --- closed-form recovery


def white_box(client: nn.Module, x: torch.Tensor, **changes):
    oracle = Features(client, client(x), CPU, client="weights")
    config = CollaborativeConfig(**{"steps": 400, "lr": 0.02, "tv_weight": 0.0, **changes})
    return oracle, attack(oracle, Knowledge(image_shape=tuple(x.shape[1:])), config)


def test_an_orthogonal_client_is_inverted_exactly():
    x = smooth_images(3, 0)
    oracle, found = white_box(Rotation(64), x)
    torch.testing.assert_close(found.data, x, atol=2e-3, rtol=0)
    assert oracle.queries == 3 * 400
    assert oracle.reads == {"client-weights"}
    assert found.history["feature_distance"][-1] < 1e-4 < found.history["feature_distance"][0]


def test_without_the_right_client_nothing_is_inverted():
    x = smooth_images(3, 0)
    _, found = white_box(Rotation(64), x, weights="shuffled")
    assert (found.data - x).abs().max() > 0.2


def test_the_prior_chooses_among_pictures_with_equal_activations():
    """A client that sees only every second column: likelihood leaves the others grey, the prior fills them in."""
    x = smooth_images(4, 5, size=16)
    client = nn.Conv2d(1, 1, 1, stride=(1, 2), bias=False)
    nn.init.ones_(client.weight)
    client.requires_grad_(False)
    _, bare = white_box(client, x)
    _, regularised = white_box(client, x, tv_weight=0.02)
    torch.testing.assert_close(bare.data[..., 1::2], torch.full_like(x[..., 1::2], 0.5))
    assert (psnr(regularised.data, x) > psnr(bare.data, x) + 3).all()


def test_a_heavy_prior_flattens():
    x = smooth_images(3, 0)
    _, exact = white_box(Rotation(64), x)
    _, flat = white_box(Rotation(64), x, tv_weight=10.0)
    assert (total_variation(flat.data) < 0.3 * total_variation(exact.data)).all()


def black_box(client: nn.Module, x: torch.Tensor, **changes):
    oracle = Features(client, client(x), CPU, client="queries")
    config = CollaborativeConfig(variant="inverse-network", net_width=16, **{"net_steps": 300, **changes})
    return oracle, attack(oracle, Knowledge(public_images=smooth_images(200, 1)), config)


def test_the_inverse_network_of_an_identity_is_the_identity():
    x = smooth_images(5, 0)
    oracle, found = black_box(nn.Identity(), x)
    assert psnr(found.data, x).min() > 25
    assert oracle.queries == 200
    assert oracle.reads == {"client-queries"}


def test_the_inverse_network_needs_answers_to_its_own_queries():
    x = smooth_images(5, 0)
    _, found = black_box(nn.Identity(), x, pairs="shuffled")
    assert psnr(found.data, x).mean() < 20
    _, noisy = black_box(nn.Identity(), x, queries="noise")
    assert noisy.data.shape == x.shape
    assert not torch.equal(noisy.data, found.data)


@pytest.mark.parametrize("architecture", ["cnn", "lenet"])
@pytest.mark.parametrize("size", [28, 32])
def test_inverse_networks_fit_every_cut(architecture, size):
    shape = (3 if architecture == "cnn" else 1, size, size)
    for cut in cuts(architecture):
        layers = cnn_layers(3, size, 10, 4) if architecture == "cnn" else lenet_layers(1, size, 10)
        sent = cut_after(layers, cut).client(torch.rand((2, *shape), generator=generator(0), device=CPU))
        rebuilt = InverseNetwork(tuple(sent.shape[1:]), shape, 8)(sent)
        assert tuple(rebuilt.shape) == (2, *shape), cut


# --- threat model and options


def test_each_variant_needs_its_own_grant():
    x = smooth_images(2, 0)
    for variant, wrong in (("rmle", "queries"), ("inverse-network", "weights"), ("rmle", "none"), ("inverse-network", "none")):
        oracle = Features(Rotation(64), Rotation(64)(x), CPU, client=wrong)
        with pytest.raises(AccessDenied):
            attack(oracle, Knowledge(image_shape=(1, 8, 8), public_images=x), CollaborativeConfig(variant=variant, steps=1))


@pytest.mark.parametrize(
    "changes",
    [
        {"variant": "grey-box"},
        {"weights": "none"},
        {"queries": "few"},
        {"pairs": "odd"},
        {"steps": 0},
        {"lr": 0.0},
        {"beta": 0.0},
    ],
)
def test_wrong_options_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        CollaborativeConfig(**changes)


# --- it works, and the test has power


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_beats_the_baselines_on_digits_and_its_ablations_do_not(seed):
    setting = SplitSetting(SplitConfig(data="digits", images=1000, public_images=500, victims=6, epochs=8, seed=seed))
    best = max(setting.evaluate(make(generator(seed)))["psnr"] for make in setting.baselines().values())
    config = CollaborativeConfig(seed=seed, steps=200, tv_weight=0.1)

    def measured(client: str = "weights", **changes) -> float:
        oracle = setting.target.grant("features", client=client)
        return setting.evaluate(attack(oracle, setting.knowledge(), dataclasses.replace(config, **changes)))["psnr"]

    full = measured()
    assert full >= best + 3
    assert measured(weights="shuffled") < best
    assert measured(tv_weight=0.0) < full - 3
    assert measured(steps=1) < best
    small = {"variant": "inverse-network", "net_steps": 200, "net_batch": 16}
    assert measured("queries", **small) >= best + 1
    assert measured("queries", pairs="shuffled", **small) < best + 1


def test_claims_fail_where_the_numbers_say_no():
    """Checks on made-up metrics: each claim needs what it says, in both directions."""
    good = {"psnr": 20.0, "ssim": 0.6, "recognizable": 1.0}
    runs = {
        "public_mean": {"psnr": 14.0, "ssim": 0.2, "recognizable": 0.2},
        "nearest_public": {"psnr": 13.0, "ssim": 0.2, "recognizable": 0.2},
        "noise": {"psnr": 8.0, "ssim": 0.0, "recognizable": 0.0},
        "method": good,
        "black_box": {"psnr": 18.0, "ssim": 0.5, "recognizable": 1.0},
        "no_prior": {"psnr": 12.0, "ssim": 0.1, "recognizable": 0.1},
        "wrong_client": {"psnr": 11.0, "ssim": 0.1, "recognizable": 0.1},
        "wrong_pairs": {"psnr": 15.0, "ssim": 0.2, "recognizable": 0.2},
        "noise_queries": {"psnr": 12.0, "ssim": 0.2, "recognizable": 0.1},
        "shallow_cut": {"psnr": 60.0, "ssim": 1.0, "recognizable": 1.0},
        "deep_cut": {"psnr": 11.0, "ssim": 0.2, "recognizable": 0.2},
    }
    for name, claim in EXPERIMENT.claims.items():
        assert claim.holds(runs), name
        assert not claim.holds(runs, of=claim.ablation), name
    assert not EXPERIMENT.claims["deeper-is-harder"].holds({**runs, "deep_cut": good})
    assert not EXPERIMENT.claims["queries-suffice"].holds({**runs, "method": {**good, "psnr": 30.0}})
