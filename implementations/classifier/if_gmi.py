r"""IF-GMI: after the code, the generator's inner features are searched, layer by layer, within a small l1 ball.

Paper: "A Closer Look at GAN Priors: Exploiting Intermediate Features for Enhanced Model Inversion Attacks", Yixiang Qiu,
Hao Fang, Hongyao Yu, Bin Chen, MeiKang Qiu, Shu-Tao Xia, ECCV 2024. https://arxiv.org/abs/2407.13863

Idea. A code can only say what the generator learnt to make of codes. Where private and public pictures differ, the private
person lies outside. So the generator is taken apart: the code is searched first, then the features that its first block
makes of it, then those of the next block. Inner features can say more than codes. Too much, in fact: free features end in
patterns that fool the target, so each layer may move only within an l1 ball round the features that the layer before
arrived at. Loss, start and random crops are those of Plug & Play.

Mathematics. Let $G = G_L \circ \dots \circ G_1$ and $f_i^0$ the features that the search of layer $i - 1$ arrived at. Then
layer $i$ is searched inside a ball:

$$\hat f_i = \arg\min_{f}\; L\big(F(G_L \circ \dots \circ G_{i+1}(f)),\, y\big)
\quad \text{subject to} \quad \|f - f_i^0\|_1 \le r_i.$$

Deviations
1. A small GAN trained on the public pictures stands for StyleGAN2. It has no styles that enter every block, so that only
   the features are searched once the code is left behind; the official code goes on with the style beside them.
2. The radius is given as a share of the l1 norm that the features have on average, the same for all layers, instead of one
   number a layer: the official radii of 1000 to 8000 belong to StyleGAN2's blocks.
3. The pictures of the last layer count. The official evaluation reports the layer that the evaluator likes best.
4. The setting is `public_domain="shifted"`: public faces under other light, backgrounds and poses, the case that the paper
   stresses.
5. Fewer steps with larger learning rates; as in the official code there is no choice among results.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.priors import GanConfig, Generator, public_gan
from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, WhiteBox
from .ppa import PpaConfig, first_codes, poincare_loss, random_views
from .setting import ClassifierSetting


@dataclass(frozen=True, kw_only=True)
class IfGmiConfig(Config):
    """Defaults are for 32-pixel pictures on a CPU."""

    layers: int = 3  # L, layers of features searched after the code; 0 is the ablation; official configuration: 8
    code_steps: int = 30  # of the search of the code; official configuration: 50
    layer_steps: int = 10  # of the search of each layer; official configuration: 10
    all_steps_on_codes: bool = False  # the steps of the layers go to the code instead (the ablation, on the same budget)
    radius: float = 0.1  # of the l1 ball, as a share of the features' mean l1 norm
    ball: bool = True  # False: features may go anywhere (an ablation)
    code_lr: float = 0.05  # of Adam on codes; official configuration: 0.005 in the style space
    feature_lr: float = 0.15  # of Adam on features, as a share of their mean magnitude; official configuration: 0.005
    betas: tuple[float, float] = (0.1, 0.1)  # of Adam; official configuration: 0.1, 0.1
    pool: int = 2000  # random codes from which the starts are chosen; official configuration: 2000
    truncation: float = 0.7  # factor on random codes; official configuration: psi 0.5 in the style space
    per_class: int = 3  # reconstructions of each class; official configuration: 50
    search_area: tuple[float, float] = (0.9, 1.0)  # share of the picture kept by random crops; official: 0.9 to 1
    prior_steps: int = 1200  # generator updates of the GAN on public pictures
    prior_width: int = 12  # channels of the GAN's finest layer
    prior_seed: int = 0  # seed of the GAN's training; apart from `seed` so that one prior serves all seeds

    def __post_init__(self):
        require(self.layers >= 0, f"layers must not be negative, not {self.layers}")
        require(self.radius > 0, f"radius must be positive, not {self.radius}")
        require(min(self.code_steps, self.layer_steps, self.per_class) >= 1, "steps and per_class must be at least 1")
        low, high = self.search_area
        require(0 < low <= high <= 1, f"search_area must be 0 < low <= high <= 1, not {self.search_area}")


def blocks(generator: Generator) -> list[torch.nn.Sequential]:
    """The generator after its linear layer, cut before each upsampling: the last block ends in the picture's logits."""
    stages = list(generator.stages)
    cuts = [i for i, stage in enumerate(stages) if isinstance(stage, torch.nn.Upsample)]
    bounds = [0, *cuts, len(stages)]
    return [torch.nn.Sequential(*stages[a:b]) for a, b in itertools.pairwise(bounds)]


class Disassembled:
    """G = G_L ... G_1 G_0: layer 0 takes codes (B, Z), layer i > 0 the features that the blocks before it made."""

    def __init__(self, generator: Generator):
        self.generator, self.blocks = generator, blocks(generator)

    def next(self, h: Tensor, layer: int) -> Tensor:
        """What enters layer + 1, for what enters this layer."""
        if layer == 0:
            h = self.generator.project(h).view(-1, self.generator.first, 4, 4)
        return self.blocks[layer](h)

    def image(self, h: Tensor, layer: int) -> Tensor:
        """The picture (B, c, s, s) in [0, 1] that comes of what enters this layer."""
        for i in range(layer, len(self.blocks)):
            h = self.next(h, i)
        return h.sigmoid()


def project_l1(x: Tensor, radius: float | Tensor) -> Tensor:
    """The nearest point to each row of x (B, D) in the l1 ball of that radius: points inside stay, others shrink by a number.

    Exact, by sorting (Duchi et al., 2008); `radius` is a number or (B,).
    """
    radius = torch.as_tensor(radius, device=x.device, dtype=x.dtype).expand(len(x))
    magnitudes = x.abs().sort(dim=1, descending=True).values
    surplus = magnitudes.cumsum(dim=1) - radius[:, None]
    counts = torch.arange(1, x.shape[1] + 1, device=x.device)
    last = (magnitudes * counts > surplus).sum(dim=1, keepdim=True).clamp(min=1)  # how many entries stay
    threshold = surplus.gather(1, last - 1) / last
    shrunk = x.sign() * (x.abs() - threshold).clamp(min=0)
    return torch.where((x.abs().sum(dim=1) <= radius)[:, None], x, shrunk)


def search_layer(
    oracle: WhiteBox,
    parts: Disassembled,
    h: Tensor,
    layer: int,
    labels: Tensor,
    steps: int,
    config: IfGmiConfig,
    random: torch.Generator,
    history: dict[str, list[float]],
) -> Tensor:
    """Adam on what enters one layer, each step followed by the projection round the start (features only)."""
    start = h.detach()
    h = start.clone().requires_grad_(True)
    scale = 1.0 if layer == 0 else start.abs().mean().item()
    lr = config.code_lr if layer == 0 else config.feature_lr * scale
    radius = config.radius * scale * start[0].numel()  # a share of the mean l1 norm of a picture's features
    optimizer = torch.optim.Adam([h], lr=lr, betas=config.betas)
    for _ in range(steps):
        shown = random_views(parts.image(h, layer), config.search_area, 1.0, 0.0, random)
        logits = oracle(shown)
        loss = poincare_loss(logits, labels)
        (h.grad,) = torch.autograd.grad(loss.sum(), h)
        optimizer.step()
        with torch.no_grad():
            if layer > 0 and config.ball:
                h.copy_(start + project_l1((h - start).flatten(1), radius).view_as(h))
        history["poincare"].append(loss.mean().item())
        history["target confidence"].append(logits.softmax(dim=1).gather(1, labels[:, None]).mean().item())
    return h.detach()


def attack(oracle: WhiteBox, knowledge: Knowledge, config: IfGmiConfig) -> Reconstruction:
    """Pictures (classes, per_class, c, s, s); the trajectory shows them after each layer."""
    public, classes = knowledge.public_images, knowledge.num_classes
    random = config.generator(oracle.device)
    options = GanConfig(steps=config.prior_steps, width=config.prior_width, seed=config.prior_seed)
    prior = public_gan(public, options)
    parts = Disassembled(prior.generator)
    require(config.layers < len(parts.blocks), f"this generator has {len(parts.blocks) - 1} layers of features")
    labels = torch.arange(classes, device=oracle.device).repeat_interleave(config.per_class)
    choice = PpaConfig(candidates=config.per_class, per_class=1, pool=config.pool, truncation=config.truncation)
    h = first_codes(oracle, prior, classes, choice, random).flatten(0, 1)
    history: dict[str, list[float]] = {"poincare": [], "target confidence": []}
    trajectory, notes = [], {"prior_seconds": prior.seconds}
    extra = config.layers * config.layer_steps if config.all_steps_on_codes else 0
    for layer in range(1 if config.all_steps_on_codes else config.layers + 1):
        steps = config.code_steps + extra if layer == 0 else config.layer_steps
        start = h if layer == 0 else parts.next(h, layer - 1)
        h = search_layer(oracle, parts, start, layer, labels, steps, config, random, history)
        if layer > 0:
            notes[f"moved_{layer}"] = ((h - start).abs().sum() / start.abs().sum()).item()  # l1, as the radius is
        with torch.no_grad():
            trajectory.append(parts.image(h, layer).view(classes, config.per_class, *public.shape[1:]))
    return Reconstruction(trajectory[-1], history, trajectory, notes)


EXPERIMENT = Experiment(
    paper="if_gmi",
    setting=ClassifierSetting,
    config=IfGmiConfig(),
    attack=attack,
    knowledge=("public-images", "num-classes"),
    options={"public_domain": "shifted"},
    ablations={
        "codes_only": Run(says="all steps on the code, none on features", config={"all_steps_on_codes": True}),
        "no_ball": Run(says="features without a ball", config={"ball": False}),
    },
    variants={
        "same_domain": Run(says="public pictures taken as the private ones are", options={"public_domain": "private"}),
    },
    claims={
        "features-beat-codes": Claim(
            check=lambda method, runs: method["accuracy_open"] >= runs["codes_only"]["accuracy_open"] + 0.05,
            ablation="codes_only",
        ),
        "ball-keeps-pictures-real": Claim(
            check=lambda method, runs: method["fid"] <= 0.8 * runs["no_ball"]["fid"],
            ablation="no_ball",
        ),
    },
    smoke={"code_steps": 1, "layer_steps": 1, "per_class": 1, "pool": 100},
    paper_scale={
        "code_steps": 50,
        "per_class": 50,
        "code_lr": 0.005,
        "feature_lr": 0.005,
        "truncation": 0.5,
        "prior_steps": 60000,
        "prior_width": 64,
    },
)
