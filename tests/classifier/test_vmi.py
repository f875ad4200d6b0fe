"""VMI: the flow's determinant and divergence in closed form, the objective by hand, and a posterior that is known exactly."""

import math

import pytest
import torch
from torch import nn

from implementations.classifier import vmi
from implementations.common.training import seeded_weights

CPU = "cpu"


def seeded(seed=0):
    return torch.Generator(CPU).manual_seed(seed)


def flows(count=2, size=4, steps=3, hidden=5, spread=0.0):
    with seeded_weights(0):
        made = vmi.Flows(count, size, steps, hidden)
        for parameter in made.parameters():
            parameter.data += spread * torch.randn(parameter.shape, device=CPU)
    return made


def test_flows_start_as_the_prior():
    noise = torch.randn(2, 50, 4, generator=seeded(), device=CPU)
    z, log_det = flows()(noise)
    assert torch.equal(z.sort(dim=2).values, noise.sort(dim=2).values), "only the order of coordinates changes"
    assert log_det.abs().max() == 0
    assert vmi.kl_to_prior(noise, z, log_det).abs().max() < 1e-5


def test_log_determinant_is_that_of_the_jacobian():
    made = flows(spread=0.3)
    noise = torch.randn(2, 1, 4, generator=seeded(), device=CPU)
    _, log_det = made(noise)
    for flow in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda e, i=flow: made(torch.stack([e, e]))[0][i, 0], noise[flow])
        assert jacobian.view(4, 4).slogdet().logabsdet.item() == pytest.approx(log_det[flow].item(), abs=1e-4)


def test_each_flow_has_its_own_weights():
    made = flows(spread=0.3)
    noise = torch.randn(1, 3, 4, generator=seeded(), device=CPU).expand(2, 3, 4)
    z, log_det = made(noise)
    assert not torch.allclose(z[0], z[1])
    assert log_det[0] != log_det[1]


def test_divergence_of_a_known_normal():
    """z = m + s e has KL = (s^2 + m^2 - 1) / 2 - log s in each coordinate."""
    mean, scale, size = 0.7, 0.5, 3
    noise = torch.randn(1, 200_000, size, generator=seeded(), device=CPU)
    log_det = torch.tensor([size * math.log(scale)], device=CPU)
    found = vmi.kl_to_prior(noise, mean + scale * noise, log_det).item()
    assert found == pytest.approx(size * ((scale**2 + mean**2 - 1) / 2 - math.log(scale)), rel=0.01)


def test_objective_by_hand():
    nll, kl = torch.tensor([[1.0, 3.0]], device=CPU), torch.tensor([[10.0, 20.0]], device=CPU)
    assert vmi.variational_loss(nll, kl, 0.1).item() == pytest.approx(2.0 + 1.5)
    assert vmi.variational_loss(nll, kl, 0.0).item() == pytest.approx(2.0)


def test_points_lack_the_entropy():
    start = torch.tensor([[[3.0, 4.0]]], device=CPU)
    z, divergence = vmi.Points(start, layers=2)(start)
    assert z.shape == (1, 2, 1, 2)
    assert divergence.tolist() == [[12.5, 12.5]]


class Layered(nn.Module):
    """A generator without pictures: the picture is the mean over layers of the codes."""

    def mapping(self, z):
        return z

    def synthesis(self, w):
        return w.mean(dim=1)


def test_pictures_take_each_layer_from_its_own_code():
    z = torch.arange(12.0, device=CPU).view(1, 2, 3, 2)  # C L B Z
    expected = (z[0, 0] + z[0, 1]) / 2
    torch.testing.assert_close(vmi.pictures(Layered(), z), expected)


def fitted(kl_weight, steps=400):
    """One class whose likelihood is that of N(2, 1) in the first of two coordinates: the posterior there is N(1, 1/2)."""
    config = vmi.VmiConfig(flow_steps=2, hidden=4, kl_weight=kl_weight, lr=0.02)
    with seeded_weights(0):
        family = vmi.Family(1, 1, 2, config)
    random = seeded()
    optimizer = torch.optim.Adam(family.parameters(), config.lr)
    for _ in range(steps):
        z, kl = family(torch.randn(1, 64, 2, generator=random, device=CPU))
        nll = (vmi.pictures(Layered(), z)[:, 0] - 2).square().view(1, -1) / 2
        loss = vmi.variational_loss(nll, kl, kl_weight).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return family(torch.randn(1, 5000, 2, generator=random, device=CPU))[0][0, 0]


def test_the_fitted_distribution_is_the_posterior():
    z = fitted(1.0)
    assert z[:, 0].mean().item() == pytest.approx(1.0, abs=0.15)
    assert z[:, 0].var().item() == pytest.approx(0.5, abs=0.15)
    assert z[:, 1].mean().item() == pytest.approx(0.0, abs=0.15)
    assert z[:, 1].var().item() == pytest.approx(1.0, abs=0.25)


def test_without_the_divergence_it_collapses_to_a_point():
    z = fitted(0.0)
    assert z[:, 0].mean().item() == pytest.approx(2.0, abs=0.1)
    assert z[:, 0].var() < 0.05


@pytest.mark.parametrize("changes", [{"family": "mixture"}, {"kl_weight": -1.0}, {"batch": 0}])
def test_impossible_options_are_refused(changes):
    with pytest.raises(ValueError, match="must"):
        vmi.VmiConfig(**changes)


def test_codes_of_odd_size_are_refused():
    with pytest.raises(ValueError, match="even"):
        vmi.Flows(1, 3, 1, 1)
