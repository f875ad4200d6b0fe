"""Soft actor-critic (Haarnoja et al., 2018) for many independent agents at once: one tensor of weights, an agent a row.

Two critics with slow copies, a policy of a squashed normal distribution with reparameterised samples, and a temperature that
is tuned so that the policy keeps a given entropy. All tensors begin with the dimension of agents A; nothing is shared among
them. Where every transition ends its episode the slow copies are never asked, and the method is a contextual bandit.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .training import seeded_weights


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """How agents learn."""

    hidden: int = 64  # units of each of two hidden layers
    lr_actor: float = 1e-3  # Adam
    lr_critic: float = 1e-3  # Adam
    discount: float = 0.99  # of the value of the next state
    tau: float = 0.01  # share by which the slow critics follow at each update
    temperature: float = 1.0  # first weight of the entropy
    target_entropy: float = -1.0  # a dimension of the action; a uniform policy on [-1, 1] has log 2
    seed: int = 0  # seed of the first weights


class Perceptrons(nn.Module):
    """A perceptrons with two hidden layers: (A, B, inputs) to (A, B, outputs)."""

    def __init__(self, agents: int, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for before, after in ((inputs, hidden), (hidden, hidden), (hidden, outputs)):
            bound = before**-0.5
            self.weights.append(nn.Parameter(torch.empty(agents, before, after, device="cpu").uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(agents, 1, after, device="cpu").uniform_(-bound, bound)))

    def forward(self, x: Tensor) -> Tensor:
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            x = F.relu(x) if layer < 2 else x
        return x


def squashed_sample(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """tanh(mean + std * noise) and the mean over its dimensions of log density, (A, B, D) to (A, B, D) and (A, B).

    log density a dimension: that of the normal less log(1 - tanh^2), written so that it stays finite for large values.
    """
    before = mean + log_std.exp() * noise
    normal = -0.5 * noise.square() - log_std - 0.5 * torch.log(torch.tensor(2 * torch.pi, device=mean.device))
    correction = 2 * (torch.log(torch.tensor(2.0, device=mean.device)) - before - F.softplus(-2 * before))
    return before.tanh(), (normal - correction).mean(dim=-1)


class Agents:
    """A agents with states (A, B, S) and actions (A, B, D) in [-1, 1]."""

    def __init__(self, agents: int, states: int, actions: int, config: AgentConfig, random: torch.Generator):
        self.config, self.random, self.actions = config, random, actions
        with seeded_weights(config.seed):
            self.actor = Perceptrons(agents, states, config.hidden, 2 * actions).to(random.device)
            self.critics = [Perceptrons(agents, states + actions, config.hidden, 1).to(random.device) for _ in range(2)]
            self.slow = [Perceptrons(agents, states + actions, config.hidden, 1).to(random.device) for _ in range(2)]
        for slow, fast in zip(self.slow, self.critics, strict=True):
            slow.load_state_dict(fast.state_dict())
            slow.requires_grad_(False)
        self.log_temperature = torch.full((agents,), config.temperature, device=random.device).log().requires_grad_(True)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), config.lr_actor)
        self.critic_optimizer = torch.optim.Adam([p for c in self.critics for p in c.parameters()], config.lr_critic)
        self.temperature_optimizer = torch.optim.Adam([self.log_temperature], config.lr_actor)

    def policy(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """A sampled action (A, B, D) for each state and its mean log density (A, B)."""
        mean, log_std = self.actor(state).split(self.actions, dim=-1)
        noise = torch.randn(mean.shape, generator=self.random, device=mean.device)
        return squashed_sample(mean, log_std.clamp(-20, 2), noise)

    @torch.no_grad()
    def act(self, state: Tensor) -> Tensor:
        """Actions (A, B, D) sampled from the policy."""
        return self.policy(state)[0]

    def learn(self, state: Tensor, action: Tensor, reward: Tensor, following: Tensor, last: Tensor) -> None:
        """One update of critics, actor and temperature on transitions; reward (A, B), `last` (A, B) ends an episode."""
        config, temperature = self.config, self.log_temperature.detach().exp()[:, None]
        value = reward
        if not last.all():
            with torch.no_grad():
                then, log_density = self.policy(following)
                ahead = torch.minimum(*(slow(torch.cat([following, then], dim=-1)).squeeze(-1) for slow in self.slow))
                value = reward + config.discount * (~last) * (ahead - temperature * log_density)
        pair = torch.cat([state, action], dim=-1)
        loss = sum(0.5 * (critic(pair).squeeze(-1) - value).square().mean(dim=1).sum() for critic in self.critics)
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()

        chosen, log_density = self.policy(state)
        worth = self.critics[0](torch.cat([state, chosen], dim=-1)).squeeze(-1)
        self.actor_optimizer.zero_grad()
        (temperature * log_density - worth).mean(dim=1).sum().backward(inputs=list(self.actor.parameters()))
        self.actor_optimizer.step()
        self.temperature_optimizer.zero_grad()
        (-self.log_temperature[:, None] * (log_density.detach() + config.target_entropy)).mean(dim=1).sum().backward()
        self.temperature_optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(self.slow, self.critics, strict=True):
                for kept, new in zip(slow.parameters(), fast.parameters(), strict=True):
                    kept.lerp_(new, config.tau)
