"""RLB-MI: transition and reward by hand, soft actor-critic against torch's distributions and on known problems, the search."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from implementations.classifier import rlb_mi
from implementations.common.priors import Prior
from implementations.common.soft_actor_critic import AgentConfig, Agents, Perceptrons, squashed_sample
from implementations.threat_model import Knowledge, Scores


def test_transition_by_hand():
    state, action = torch.tensor([4.0], device="cpu"), torch.tensor([-2.0], device="cpu")
    torch.testing.assert_close(rlb_mi.next_state(state, action, 0.25), torch.tensor([-0.5], device="cpu"))
    assert torch.equal(rlb_mi.next_state(state, action, 0.0), action)


def test_reward_by_hand():
    new = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1]], device="cpu")
    acted = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], device="cpu")
    labels = torch.tensor([0, 0], device="cpu")
    config = rlb_mi.RlbMiConfig()
    first = 2 * math.log(0.7) + 2 * math.log(0.5) + 8 * math.log(0.5)
    second = 2 * math.log(0.3) + 2 * math.log(0.1) + 8 * math.log(1e-7)  # another class is ahead: the floor
    expected = torch.tensor([first, second], device="cpu")
    torch.testing.assert_close(rlb_mi.reward(new, acted, labels, config), expected)


def test_reward_of_certainty_is_zero_and_of_nothing_finite():
    labels = torch.zeros(1, dtype=torch.int64, device="cpu")
    sure, none = torch.tensor([[1.0, 0.0]], device="cpu"), torch.tensor([[0.0, 1.0]], device="cpu")
    assert rlb_mi.reward(sure, sure, labels, rlb_mi.RlbMiConfig()) == 0
    assert torch.isfinite(rlb_mi.reward(none, none, labels, rlb_mi.RlbMiConfig())).all()


def test_squashed_density_is_torchs():
    random = torch.Generator("cpu").manual_seed(0)
    mean, log_std, noise = (torch.randn(2, 5, 3, generator=random, device="cpu") for _ in range(3))
    action, density = squashed_sample(mean, log_std, noise)
    known = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform(cache_size=1)])
    close = action.abs() < 0.999  # torch's inverse of tanh loses digits near 1
    expected = known.log_prob(action)
    assert close.all(dim=-1).any()
    torch.testing.assert_close(density[close.all(-1)], expected.mean(-1)[close.all(-1)], rtol=1e-3, atol=1e-3)


def test_squashed_density_stays_finite():
    large = torch.full((1, 1, 2), 50.0, device="cpu")
    assert torch.isfinite(squashed_sample(large, torch.zeros_like(large), torch.zeros_like(large))[1]).all()


def test_perceptrons_share_nothing():
    together = Perceptrons(3, 4, 8, 2)
    x = torch.randn(3, 5, 4, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    together(x)[1].sum().backward()
    for parameter in together.parameters():
        assert parameter.grad[1].abs().sum() > 0
        assert parameter.grad[0].abs().sum() == 0
        assert parameter.grad[2].abs().sum() == 0


def trained(lasting: bool, steps: int = 300):
    """Two agents whose reward is the closeness of the action to (0.5, -0.5) and (-0.5, 0.5)."""
    random = torch.Generator("cpu").manual_seed(0)
    centres = torch.tensor([[0.5, -0.5], [-0.5, 0.5]], device="cpu")
    agents = Agents(2, 1, 2, AgentConfig(hidden=32, lr_actor=5e-3, lr_critic=5e-3, temperature=0.01, discount=0.5), random)
    state = torch.zeros(2, 64, 1, device="cpu")
    for _ in range(steps):
        action = torch.rand(2, 64, 2, generator=random, device="cpu") * 2 - 1
        reward = -(action - centres[:, None]).square().sum(dim=-1)
        last = torch.full((2, 64), not lasting, device="cpu")
        agents.learn(state, action, reward, state, last)
    return agents, centres, state


@pytest.mark.parametrize("lasting", [False, True])
def test_agents_find_the_best_action_each_its_own(lasting):
    agents, centres, state = trained(lasting)
    torch.testing.assert_close(agents.act(state).mean(dim=1), centres, rtol=0, atol=0.15)


def test_slow_critics_follow():
    agents, _, _ = trained(False, steps=1)
    for slow, fast in zip(agents.slow, agents.critics, strict=True):
        apart = [(a - b).abs().max().item() for a, b in zip(slow.parameters(), fast.parameters(), strict=True)]
        assert 0 < max(apart) < 0.01


class Codes(nn.Module):
    latent = 8

    def forward(self, z):
        return z.view(-1, 1, 1, self.latent)


def hunt(monkeypatch, seed, **changes):
    """Three classes round corners of the cube; the distance of the code found to its class's corner."""
    signs = torch.randn(3, 8, generator=torch.Generator("cpu").manual_seed(5), device="cpu").sign()
    monkeypatch.setattr(rlb_mi, "public_gan", lambda images, options: Prior(Codes(), nn.Identity(), 0.0))
    oracle = Scores(lambda x: (-torch.cdist(x.flatten(1), 0.8 * signs).square()).softmax(dim=1), "cpu")
    knowledge = Knowledge(public_images=torch.zeros(1, device="cpu"), num_classes=3)
    config = rlb_mi.RlbMiConfig(seed=seed, rounds=50, batch=32, **changes)
    found = rlb_mi.attack(oracle, knowledge, config)
    return oracle.queries, found


def test_queries_are_known_in_advance_and_equal(monkeypatch):
    agent, _ = hunt(monkeypatch, 0)
    random, _ = hunt(monkeypatch, 0, search="random")
    assert agent == random == 3 * 50 * 4
    assert hunt(monkeypatch, 0, inertia=0.5, length=2)[0] == 2 * 2 * agent, "two steps, and the action's own picture"


def test_the_agent_learns_and_random_search_does_not(monkeypatch):
    for seed in range(3):
        for search, learns in (("agent", True), ("random", False)):
            rewards = hunt(monkeypatch, seed, search=search)[1].history["mean reward"]
            first, last = sum(rewards[:8]) / 8, sum(rewards[-8:]) / 8
            assert (last > 0.6 * first) == learns, (search, seed, first, last)


def test_best_score_only_rises_and_sharing_never_hurts(monkeypatch):
    _, alone = hunt(monkeypatch, 1, search="random")
    _, shared = hunt(monkeypatch, 1, search="random", shared=True)
    curve = alone.history["best score"]
    assert curve == sorted(curve)
    assert shared.notes["best_score"] >= alone.notes["best_score"]


@pytest.mark.parametrize(
    "wrong", [{"search": "grid"}, {"inertia": 1.0}, {"floor": 0.0}, {"temperature": 0.0}, {"rounds": 0}, {"batch": 0}]
)
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        rlb_mi.RlbMiConfig(**wrong)
