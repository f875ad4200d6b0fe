"""The informed adversary: clipped gradients against autograd, privacy by hand, the bound against a grid, a toy attack."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from implementations.classifier import balle2022_informed as balle
from implementations.classifier import informed_setting as informed
from implementations.threat_model import Knowledge, WhiteBox


def random(seed=0):
    return torch.Generator("cpu").manual_seed(seed)


def problem(count=3, records=5, inputs=(1, 4, 4), classes=3, seed=0):
    """Known records, extra records and initial weights of a small problem."""
    g = random(seed)
    known = torch.rand(records, *inputs, generator=g, device="cpu"), torch.arange(records, device="cpu") % classes
    extra = torch.rand(count, *inputs, generator=g, device="cpu"), torch.arange(count, device="cpu") % classes
    return known, extra, informed.initial_weights(math.prod(inputs), 6, classes, g)


def recipe(**changes):
    return dataclasses.replace(informed.Recipe(steps=5, lr=0.3, momentum=0.9, clip=math.inf, noise=0.0), **changes)


def one_gradient(weights, x, label):
    """One record's gradient by autograd, flat."""
    leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
    logits = (x @ leaves["w1"] + leaves["b1"]).relu() @ leaves["w2"] + leaves["b2"]
    gradients = torch.autograd.grad(F.cross_entropy(logits[None], label[None]), list(leaves.values()))
    return dict(zip(leaves, gradients, strict=True))


@pytest.mark.parametrize("clip", [math.inf, 0.5])
def test_clipped_gradients_are_those_of_autograd(clip):
    (images, labels), (own, own_labels), weights = problem(count=1)
    x, own = images.flatten(1), own.flatten(1)
    expected = {name: torch.zeros_like(value) for name, value in weights.items()}
    for picture, label in zip(torch.cat([x, own]), torch.cat([labels, own_labels]), strict=True):
        gradient = one_gradient(weights, picture, label)
        norm = torch.cat([part.flatten() for part in gradient.values()]).norm().item()
        for name in expected:
            expected[name] += gradient[name] * min(1.0, clip / norm)
    stacked = {name: value[None] for name, value in weights.items()}
    found = informed.clipped_gradient_sum(stacked, (x, labels), (own, own_labels), clip)
    for name in expected:
        torch.testing.assert_close(found[name][0], expected[name], rtol=1e-4, atol=1e-5)


def test_models_trained_in_a_stack_are_those_trained_alone():
    known, extra, start = problem(count=5)
    together = informed.flat(informed.train_models(start, known, extra, recipe(), random(), chunk=3))
    alone = [
        informed.train_models(start, known, (extra[0][i : i + 1], extra[1][i : i + 1]), recipe(), random()) for i in range(5)
    ]
    torch.testing.assert_close(together, torch.cat([informed.flat(one) for one in alone]), rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-4, "one record must make a difference"


def test_stacked_starts_are_used_model_by_model():
    known, extra, start = problem(count=3)
    starts = {name: torch.stack([value, value, 2 * value]) for name, value in start.items()}
    same = (extra[0][:1].expand(3, -1, -1, -1), extra[1][:1].expand(3))
    trained = informed.flat(informed.train_models(starts, known, same, recipe(), random(), chunk=2))
    assert torch.equal(trained[0], trained[1])
    assert not torch.allclose(trained[0], trained[2])


def test_noise_has_the_size_that_privacy_is_accounted_for():
    known, extra, start = problem(count=2000)
    same = (extra[0][:1].expand(2000, -1, -1, -1), extra[1][:1].expand(2000))
    one_step = recipe(steps=1, lr=1.0, momentum=0.0, clip=0.7, noise=3.0)
    trained = informed.flat(informed.train_models(start, known, same, one_step, random()))
    assert abs(trained.std(dim=0).mean().item() / (3.0 * 0.7 / 6) - 1) < 0.02  # the sum's noise over six records


def test_privacy_by_hand():
    assert informed.concentrated_privacy(recipe(steps=8, clip=1.0, noise=2.0)) == 1.0
    assert informed.concentrated_privacy(recipe()) == math.inf
    assert informed.epsilon_of(1.0, math.exp(-4)) == pytest.approx(5.0)
    assert informed.epsilon_of(math.inf, 1e-5) == math.inf


@pytest.mark.parametrize(("kappa", "rho"), [(0.01, 0.1), (0.03, 0.94), (0.5, 0.2)])
def test_bound_is_the_best_over_all_orders(kappa, rho):
    orders = torch.logspace(1e-5, 5, 200001, dtype=torch.float64, device="cpu")
    grid = ((orders - 1) / orders * (math.log(kappa) + orders * rho)).exp().min().item()
    assert informed.reconstruction_bound(kappa, rho) == pytest.approx(grid, rel=1e-4)


def test_bound_at_its_limits():
    assert informed.reconstruction_bound(0.02, 0.0) == pytest.approx(0.02), "no leak: what a blind guess hits"
    assert informed.reconstruction_bound(0.02, 100.0) == 1.0
    assert informed.reconstruction_bound(0.02, math.inf) == 1.0


def test_bound_holds_for_the_best_adversary_of_a_toy():
    """One bit in Gaussian noise: the likelihood test is optimal and stays below the bound."""
    for sigma in (0.6, 1.0, 3.0):  # the Gaussian mechanism releases 0 or 1; 0.5 lies between
        hit = 0.5 * (1 + math.erf(0.5 / sigma / math.sqrt(2)))
        assert hit <= informed.reconstruction_bound(0.5, 1 / (2 * sigma**2))


def test_blind_success_by_hand():
    pictures = torch.tensor([0.0, 0.1, 0.2, 1.0], device="cpu").view(4, 1, 1, 1)
    assert informed.blind_success(pictures, 0.11) == 0.75  # about 0.1
    assert informed.blind_success(pictures, 0.05) == 0.25


def test_loss_by_hand():
    rebuilt, records = torch.tensor([[[[0.5]]]], device="cpu"), torch.tensor([[[[0.1]]]], device="cpu")
    torch.testing.assert_close(balle.reconstruction_loss(rebuilt, records), torch.tensor(0.56, device="cpu"))


def test_weights_that_never_change_do_not_divide_by_zero():
    shadows = torch.tensor([[1.0, 2.0], [1.0, 4.0]], device="cpu")
    assert torch.isfinite(balle.Reconstructor(shadows, (1, 2, 2), 4)(shadows)).all()


def toy(seed=0, **changes):
    """Mean squared error of the attack on 20 models that differ in one of 21 grey records, and that of the mean record."""
    g = random(77)
    pictures = torch.rand(640, 1, 1, 1, generator=g, device="cpu").expand(-1, 1, 4, 4)
    labels = (pictures[:, 0, 0, 0] > 0.5).long()
    known, extra, secret = ((pictures[a:b], labels[a:b]) for a, b in ((0, 20), (40, 640), (20, 40)))
    start = informed.initial_weights(16, 6, 2, g)
    released = informed.StackedModels(informed.train_models(start, known, secret, recipe(), random()), recipe())
    oracle = WhiteBox(released, "cpu")
    knowledge = Knowledge(public_records={"known": known, "others": extra}, random_seed=start, image_shape=(1, 4, 4))
    found = balle.attack(oracle, knowledge, balle.BalleConfig(shadows=600, width=32, epochs=15, lr=5e-3, seed=seed, **changes))
    assert found.data.shape == (20, 1, 1, 4, 4)
    mean = pictures[40:].mean(dim=0)
    return (found.data[:, 0] - secret[0]).square().mean().item(), (mean - secret[0]).square().mean().item()


@pytest.mark.parametrize("seed", range(2))
def test_the_last_record_is_read_off_only_where_all_else_is_known(seed):
    error, blind = toy(seed)
    assert error < 0.15 * blind
    assert toy(seed, start="own")[0] > 3 * error
    assert toy(seed, pairs="shuffled")[0] > 0.8 * blind


@pytest.mark.parametrize("wrong", [{"start": "none"}, {"pairs": "none"}, {"shadows": 0}])
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(balle.BalleConfig(), **wrong)


@pytest.mark.parametrize("wrong", [{"data": "faces"}, {"size": 20}, {"victims": 0}, {"noise": 1.0}])
def test_setting_rejects_impossible_options(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        informed.InformedConfig(**wrong)
