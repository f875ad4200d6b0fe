r"""The server of a split network rebuilds the client's input, with the client's weights or with queries alone.

Paper: "Model Inversion Attacks Against Collaborative Inference", Zecheng He, Tianwei Zhang, Ruby B. Lee, ACSAC 2019.
https://doi.org/10.1145/3359789.3359824

Idea. What a client sends in place of its input is still a function of that input, and its first layers lose little. A server
that knows those layers looks for the smooth picture whose activations are those it received: a maximum-likelihood estimate
with total variation as the prior (rMLE). A server that does not know them, but may query the client, sends pictures of its
own and trains a network that maps the answers back to the pictures (Inverse-Network); one pass of it then inverts any input.
The deeper the cut, the less the activations say, and the more the prior has to.

Mathematics. With the client's layers $f$ and the observed activations $f(x_0)$, the white-box attack solves (Eq. 3)

$$\hat x = \arg\min_x\; \|f(x) - f(x_0)\|_2^2 + \lambda\,\mathrm{TV}(x), \qquad
\mathrm{TV}(x) = \sum_{i,j} \big(|x_{i+1,j} - x_{i,j}|^2 + |x_{i,j+1} - x_{i,j}|^2\big)^{\beta/2},$$

and the black-box attack trains an inverse on the adversary's own pictures (Eq. 4):

$$\hat g = \arg\min_g\; \frac1m \sum_{i=1}^{m} \|g(f(x_i)) - x_i\|_2^2.$$

Deviations
1. The query-free attack (Sec. 6), which trains a shadow client behind the server's layers, is not here.
2. lambda of Eq. 3c is not printed in the paper. Ours was chosen for the default and for the deep cut on another data seed.
3. Fewer and larger steps of ADAM (the paper: 500 of 0.01 for shallow cuts, 5,000 of 0.001 for deep ones). All inputs in one
   batch; the objective is a sum over them and ADAM works pixel by pixel, so that each input is descended for itself.
4. The default cut is after the third of six convolutions. The paper's middle cut, after the fourth, is the setting's
   `relu22`; with a quarter of the paper's channels it keeps less of the input there.
5. The Inverse-Network is trained by ADAM (Algorithm 2: gradient descent), on activations that are standardised first. One
   transposed convolution for each halving of the client and a last convolution, whatever the cut; linear layers before them
   where activations are vectors. The paper has a network of its own for each cut.
6. Queries of pure noise are drawn around mid-grey with the spread that the client's scaling makes standard normal.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.progress import progress
from ..common.training import in_batches, seeded_weights
from ..experiment import Claim, Config, Experiment, Metrics, Reconstruction, Run, require
from ..threat_model import Features, Knowledge
from .setting import SplitSetting


@dataclass(frozen=True, kw_only=True)
class CollaborativeConfig(Config):
    """Both attacks; the first group is Algorithm 1's, the second Algorithm 2's."""

    variant: str = "rmle"  # rmle (needs the client's weights) or inverse-network (needs queries)

    steps: int = 400  # T, descent steps of rMLE; paper: 500 for shallow cuts, 5000 for deep ones
    lr: float = 0.1  # epsilon, ADAM step in pixel values; paper: 0.01 for shallow cuts, 0.001 for deep ones
    tv_weight: float = 0.02  # lambda, weight of the prior (Eq. 3c); not in the paper, its code's value has other units
    beta: float = 1.0  # exponent of the total variation (Eq. 3b); paper: 1
    weights: str = "granted"  # granted, or shuffled: each layer's weights change places (ablation)

    queries: str = "public"  # inputs of the queries: public (images) or noise (the paper's third case)
    pairs: str = "matched"  # matched, or shuffled: the network is trained on other queries' answers (ablation)
    net_steps: int = 600  # training steps of the Inverse-Network
    net_batch: int = 16  # k, pairs in each
    net_lr: float = 1e-2  # largest step of its training, one cycle; paper: 1e-3
    net_width: int = 32  # channels between its layers

    def __post_init__(self):
        require(self.variant in ATTACKS, f"variant must be one of {', '.join(ATTACKS)}, not {self.variant!r}")
        require(self.weights in ("granted", "shuffled"), f"weights must be granted or shuffled, not {self.weights!r}")
        require(self.queries in ("public", "noise"), f"queries must be public or noise, not {self.queries!r}")
        require(self.pairs in ("matched", "shuffled"), f"pairs must be matched or shuffled, not {self.pairs!r}")
        require(min(self.steps, self.net_steps, self.net_batch, self.net_width) >= 1, "steps and sizes must be at least 1")
        require(self.tv_weight >= 0 and self.beta > 0, "tv_weight must be at least 0 and beta above 0")
        require(min(self.lr, self.net_lr) > 0, "lr and net_lr must be above 0")


# --- white-box: regularised maximum likelihood (Sec. 4) -----------------------------------------------------------------


def euclidean_distance(sent: Tensor, observed: Tensor) -> Tensor:
    """ED(x, x0) = ||f(x) - f(x0)||^2 for activations (B, ...), one value an input (B,) (Eq. 3a)."""
    return (sent - observed).square().flatten(1).sum(dim=1)


def total_variation(x: Tensor, beta: float = 1.0) -> Tensor:
    """TV(x) of images (B, C, H, W), summed over channels, (B,) (Eq. 3b). Differences across the border count as 0.

    Where both differences are 0 the root has no derivative; 0 is taken.
    """
    down = F.pad(x[:, :, 1:] - x[:, :, :-1], (0, 0, 0, 1))
    right = F.pad(x[..., 1:] - x[..., :-1], (0, 1))
    squared = down.square() + right.square()  # (B, C, H, W)
    flat = squared == 0
    return squared.masked_fill(flat, 1).pow(beta / 2).masked_fill(flat, 0).flatten(1).sum(dim=1)


def shuffled_weights(client: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy in which the entries of each parameter changed places: the right layers with the right spread, knowing nothing."""
    other = copy.deepcopy(client)
    for parameter in other.parameters():
        order = torch.randperm(parameter.numel(), generator=generator, device=generator.device)
        parameter.data = parameter.data.flatten()[order].view_as(parameter)
    return other


def rmle(oracle: Features, knowledge: Knowledge, config: CollaborativeConfig) -> Reconstruction:
    """Algorithm 1: descends ED + lambda TV from constant grey, all inputs at once."""
    client, observed = oracle.client, oracle.observed
    if config.weights == "shuffled":
        client = shuffled_weights(client, config.generator(oracle.device))
    x = torch.full((len(observed), *knowledge.image_shape), 0.5, device=oracle.device, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=config.lr)
    history: dict[str, list[float]] = {"feature_distance": [], "total_variation": []}
    trajectory = []
    for step in progress(range(config.steps), "regularised maximum likelihood"):
        distance = euclidean_distance(client(x), observed)  # (V,)
        variation = total_variation(x, config.beta)  # (V,)
        loss = distance.sum() + config.tv_weight * variation.sum()  # Eq. 3c for each input
        (x.grad,) = torch.autograd.grad(loss, x)
        optimizer.step()
        history["feature_distance"].append(distance.mean().item())
        history["total_variation"].append(variation.mean().item())
        if step in (0, config.steps // 16, config.steps // 4):
            trajectory.append(x.detach().clamp(0, 1).clone())
    return Reconstruction(x.detach().clamp(0, 1), history, trajectory)


# --- black-box: Inverse-Network (Sec. 5) ----------------------------------------------------------------------------------


class InverseNetwork(nn.Module):
    """g: activations (B, F, h, w) or (B, F) to images (B, C, S, S); Xavier initialisation (Sec. 5.1)."""

    def __init__(self, sent: tuple[int, ...], image_shape: tuple[int, ...], width: int):
        super().__init__()
        channels, size = image_shape[0], image_shape[-1]
        layers: list[nn.Module] = []
        if len(sent) == 1:
            layers += [nn.Linear(sent[0], width * (size // 4) ** 2), nn.ReLU(), nn.Unflatten(1, (width, size // 4, size // 4))]
            sent = (width, size // 4, size // 4)
        before, side = sent[0], sent[-1]
        if 2 * side > size:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
        while 2 * side <= size:
            layers += [nn.ConvTranspose2d(before, width, 3, 2, 1, output_padding=1), nn.ReLU()]
            before, side = width, 2 * side
        short = size - side  # what convolutions without padding cut off, half on each side
        layers += [nn.ReplicationPad2d((short // 2, short - short // 2) * 2), nn.Conv2d(width, channels, 3, padding=1)]
        self.layers = nn.Sequential(*layers)
        for layer in self.layers:
            if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.register_buffer("mean", torch.zeros((), device="cpu"))
        self.register_buffer("deviation", torch.ones((), device="cpu"))

    def forward(self, v: Tensor) -> Tensor:
        return self.layers((v - self.mean) / self.deviation)


def pixel_loss(rebuilt: Tensor, x: Tensor) -> Tensor:
    """1/m sum ||g(f(x_i)) - x_i||^2 of images (m, C, S, S), a scalar (Eq. 4)."""
    return (rebuilt - x).square().flatten(1).sum(dim=1).mean()


def train_inverse(
    sent: Tensor, x: Tensor, config: CollaborativeConfig, generator: torch.Generator
) -> tuple[nn.Module, list[float]]:
    """Algorithm 2, TrainInverseNet: g from pairs of activations (N, ...) and images (N, C, S, S), and its loss a step."""
    with seeded_weights(config.seed):
        network = InverseNetwork(tuple(sent.shape[1:]), tuple(x.shape[1:]), config.net_width).to(x.device)
    network.mean.copy_(sent.mean())
    network.deviation.copy_(sent.std())
    optimizer = torch.optim.Adam(network.parameters(), lr=config.net_lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.net_lr, total_steps=config.net_steps + 1)
    losses = []
    for _ in progress(range(config.net_steps), "training the Inverse-Network"):
        chosen = torch.randint(0, len(x), (config.net_batch,), generator=generator, device=x.device)
        loss = pixel_loss(network(sent[chosen]), x[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return network.eval(), losses


def inverse_network(oracle: Features, knowledge: Knowledge, config: CollaborativeConfig) -> Reconstruction:
    """Algorithm 2: queries, trains g on the answers, applies it once to what was observed."""
    generator = config.generator(oracle.device)
    x = knowledge.public_images
    if config.queries == "noise":
        x = 0.5 + 0.25 * torch.randn(x.shape, generator=generator, device=oracle.device)
    sent = in_batches(oracle, x)  # (N, ...)
    if config.pairs == "shuffled":
        sent = sent[torch.randperm(len(x), generator=generator, device=oracle.device)]
    network, losses = train_inverse(sent, x, config, generator)
    with torch.no_grad():
        rebuilt = network(oracle.observed)
    return Reconstruction(rebuilt.clamp(0, 1), {"pixel_loss": losses})


ATTACKS = {"rmle": rmle, "inverse-network": inverse_network}


def attack(oracle: Features, knowledge: Knowledge, config: CollaborativeConfig) -> Reconstruction:
    """One picture for each observed activation, (V, C, S, S) in [0, 1]."""
    return ATTACKS[config.variant](oracle, knowledge, config)


# --- what is measured ---------------------------------------------------------------------------------------------------


def best_baseline(runs: Mapping[str, Metrics]) -> float:
    """The highest mean PSNR, in dB, that needs no attack."""
    return max(runs[name]["psnr"] for name in ("public_mean", "nearest_public", "noise"))


def white_box_recovers(method: Metrics, runs: Mapping[str, Metrics]) -> bool:
    """Recognisable by the paper's own bound (SSIM of 0.3, Sec. 4.2) and well above what needs no attack."""
    return method["psnr"] >= best_baseline(runs) + 2.5 and method["recognizable"] >= 0.8


def prior_is_needed(method: Metrics, runs: Mapping[str, Metrics]) -> bool:
    """Clearly better than likelihood alone, in both measures."""
    return method["psnr"] >= runs["no_prior"]["psnr"] + 3 and method["ssim"] >= runs["no_prior"]["ssim"] + 0.2


def queries_suffice(method: Metrics, runs: Mapping[str, Metrics]) -> bool:
    """Recognisable, and at least half of what the client's weights gain over the best baseline."""
    base = best_baseline(runs)
    gain, full = method["psnr"] - base, runs["method"]["psnr"] - base
    return method["recognizable"] >= 0.8 and gain >= 2 and gain >= 0.5 * full


def natural_queries_needed(method: Metrics, runs: Mapping[str, Metrics]) -> bool:
    """Well above the same network trained on answers to noise."""
    return method["psnr"] >= runs["noise_queries"]["psnr"] + 3


def deeper_is_harder(method: Metrics, runs: Mapping[str, Metrics]) -> bool:
    """Far below the first convolution's cut, well above the last one's."""
    return runs["shallow_cut"]["psnr"] - 10 >= method["psnr"] >= runs["deep_cut"]["psnr"] + 4


NETWORK = {"variant": "inverse-network"}
QUERIES = {"client": "queries"}

EXPERIMENT = Experiment(
    paper="he2019_collaborative",
    setting=SplitSetting,
    config=CollaborativeConfig(),
    attack=attack,
    knowledge=("image-shape", "client-weights", "public-images", "client-queries"),
    grant={"client": "weights"},
    ablations={
        "no_prior": Run(says="lambda = 0: likelihood alone, with as many steps", config={"tv_weight": 0.0}),
        "wrong_client": Run(
            says="the client's weights change places: right layers, no knowledge", config={"weights": "shuffled"}
        ),
        "wrong_pairs": Run(
            says="the Inverse-Network learns from the answers to other queries",
            config={**NETWORK, "pairs": "shuffled"},
            grant=QUERIES,
        ),
        "noise_queries": Run(
            says="the Inverse-Network learns from answers to Gaussian noise (Sec. 5, case 3)",
            config={**NETWORK, "queries": "noise"},
            grant=QUERIES,
        ),
    },
    variants={
        "black_box": Run(says="Inverse-Network trained on answers to public images (Sec. 5)", config=NETWORK, grant=QUERIES),
        "shallow_cut": Run(says="rMLE at a cut after the first convolution", options={"cut": "conv11"}),
        "deep_cut": Run(
            says="rMLE at a cut after the last convolution: more prior, smaller steps",
            config={"tv_weight": 0.3, "lr": 0.03},
            options={"cut": "relu32"},
        ),
    },
    claims={
        "white-box-recovers": Claim(check=white_box_recovers, ablation="wrong_client"),
        "prior-is-needed": Claim(check=prior_is_needed, ablation="no_prior"),
        "queries-suffice": Claim(check=queries_suffice, ablation="wrong_pairs", run="black_box"),
        "natural-queries-needed": Claim(check=natural_queries_needed, ablation="noise_queries", run="black_box"),
        "deeper-is-harder": Claim(check=deeper_is_harder, ablation="wrong_client"),
    },
    smoke={"steps": 3, "net_steps": 3},
    paper_scale={"steps": 5000, "lr": 0.01, "net_steps": 40_000, "net_batch": 32, "net_lr": 1e-3, "net_width": 64},
)
