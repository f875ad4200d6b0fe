r"""Label-only inversion by a diffusion model that learns public pictures under the labels the target gives them.

Paper: "Unstoppable Attack: Label-Only Model Inversion via Conditional Diffusion Model", Rongke Liu, Dong Wang, Yizhi Ren, Zhen
Wang, Kaitian Guo, Qianqian Qin, Xiaolei Liu, IEEE TIFS 2024. https://arxiv.org/abs/2307.08424

Idea. A target that answers labels only gives a search almost nothing to go by. So nothing is searched: the target labels public
pictures of its own kind once, and a diffusion model learns to make pictures under these labels. Each label tells on which side
of the target's boundaries a picture lies; all of them together tell the model what the target takes for a class. Noise and a
class's label then give pictures of that class, a guidance strength fixed beforehand makes the class prevail, and of several
draws the most robust and representative are kept. Where earlier label-only attacks took over the generator of white-box
attacks, the generator is here the attack.

Mathematics. With public pictures $x_0$, the target's labels $y = \arg\max_c f_c(x_0)$, noise $\epsilon$ and noisy pictures
$x_t = \alpha_t x_0 + \sigma_t \epsilon$, the model is trained with the label hidden now and then ($\varnothing$) and drawn from
with guidance $w$:

$$\min_\theta\; \mathbb E_{x_0, t, \epsilon}
\big\| \epsilon - \epsilon_\theta(x_t, t, y \text{ or } \varnothing) \big\|^2, \qquad
\hat\epsilon = w\, \epsilon_\theta(x_t, t, y) - (w - 1)\, \epsilon_\theta(x_t, t, \varnothing).$$

Deviations
1. The paper's text and code were not at hand, its abstract was. The training, the guidance and the filter below are our reading
   of it: classifier-free guidance in its usual form; robust is a picture that keeps its label when it is cropped, mirrored,
   turned and lit otherwise; representative is, among equally robust ones, the picture nearest to the mean of its class's draws.
2. A small network predicts the picture and not the noise, which is the same up to a weight of the times
   (`common.diffusion`); 16 deterministic steps of sampling.
3. Similarity is measured as distance in an unseen evaluator's features and as error of the face's parameters, where the paper
   brings in LPIPS, which needs pretrained weights.
4. The generator of earlier attacks is a conditional GAN that learns the same labels at about the same cost (the ablation
   `gan`); its draws pass the same filter.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.conditional_gan import conditional_gan
from ..common.diffusion import DiffusionConfig, conditional_diffusion
from ..common.priors import GanConfig
from ..common.training import in_batches
from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, LabelOnly
from .judging import recognised
from .plg_mi import PlgMiConfig, augment
from .setting import ClassifierSetting


@dataclass(frozen=True, kw_only=True)
class Liu2024UnstoppableConfig(Config):
    """Defaults are for 32-pixel pictures on a CPU."""

    kind: str = "diffusion"  # of the generator: diffusion, or gan, a conditional GAN on the same labels (the ablation)
    condition: str = "label"  # what is drawn: label, or nothing: pictures without a class (an ablation); diffusion only
    guidance: float = 3.0  # w, how many times the class's prediction counts; 1 is none
    draw_steps: int = 16  # steps of sampling a picture
    draws: int = 8  # pictures drawn for each class
    per_class: int = 2  # pictures kept of these
    views: int = 8  # changed views of each draw whose labels tell how robust it is; 0 keeps the first draws
    prior_steps: int = 1400  # updates of the diffusion model
    prior_width: int = 32  # channels of its finest layer
    gan_steps: int = 1800  # generator updates of the GAN, about the same seconds
    gan_width: int = 12  # channels of its finest layer
    prior_seed: int = 0  # seed of the generator's training; apart from `seed` so that one model serves all seeds

    def __post_init__(self):
        require(self.kind in ("diffusion", "gan"), f"kind must be diffusion or gan, not {self.kind!r}")
        require(self.condition in ("label", "nothing"), f"condition must be label or nothing, not {self.condition!r}")
        require(self.guidance >= 1, f"guidance must be at least 1, not {self.guidance}")
        require(1 <= self.per_class <= self.draws, f"per_class must lie in 1 to draws, not {self.per_class}")
        require(self.views >= 0, f"views must not be negative, not {self.views}")
        require(self.draw_steps >= 1, f"draw_steps must be at least 1, not {self.draw_steps}")


def robustness(oracle: LabelOnly, images: Tensor, labels: Tensor, random: torch.Generator, views: int) -> Tensor:
    """Share of changed views of each picture (B, c, s, s) that the target still gives its label (B,), (B,)."""
    hits = [(in_batches(oracle, augment(images, random, PlgMiConfig())) == labels).float() for _ in range(views)]
    return torch.stack(hits).mean(dim=0)


def representativeness(images: Tensor) -> Tensor:
    """Minus the distance of each picture to the mean of its class's draws, from (C, K, c, s, s) to (C, K), in [-1, 0]."""
    distance = (images - images.mean(dim=1, keepdim=True)).flatten(2).norm(dim=2)
    return -distance / distance.max().clamp(min=1e-12)


def filter_draws(images: Tensor, robust: Tensor, keep: int, views: int) -> Tensor:
    """Of draws (C, K, c, s, s) the `keep` most robust (C, K), and among equals the most representative.

    The second is scaled below one vote in `views`, so that it decides between equals only.
    """
    order = (robust + 0.5 / views * representativeness(images)).topk(keep, dim=1).indices  # (C, k)
    return images[torch.arange(len(images), device=images.device)[:, None], order]


def draw(
    public: Tensor, labelled: Tensor, wanted: Tensor, classes: int, random: torch.Generator, config: Liu2024UnstoppableConfig
) -> tuple[Tensor, float]:
    """Pictures (B, c, s, s) of the classes `wanted` (B,), and the seconds of training.

    The generator learns public pictures (N, c, s, s) under the target's labels (N,), which is all that it gets of the target.
    """
    if config.kind == "gan":
        options = GanConfig(steps=config.gan_steps, width=config.gan_width, seed=config.prior_seed)
        gan = conditional_gan(public, labelled, classes, options)
        with torch.no_grad():
            return gan.generator(gan.sample(len(wanted), random), wanted), gan.seconds
    model = conditional_diffusion(
        public, labelled, classes, DiffusionConfig(steps=config.prior_steps, width=config.prior_width, seed=config.prior_seed)
    )
    if config.condition == "nothing":  # the label `classes` stands for no class
        return model.sample(torch.full_like(wanted, classes), random, config.draw_steps, 1.0), model.seconds
    return model.sample(wanted, random, config.draw_steps, config.guidance), model.seconds


def attack(oracle: LabelOnly, knowledge: Knowledge, config: Liu2024UnstoppableConfig) -> Reconstruction:
    """Pictures (classes, per_class, c, s, s); the snapshots are draws before and after the filter."""
    public, classes = knowledge.public_images, knowledge.num_classes
    random = config.generator(oracle.device)
    labelled = in_batches(oracle, public)  # (N,)
    wanted = torch.arange(classes, device=oracle.device).repeat_interleave(config.draws)
    images, seconds = draw(public, labelled, wanted, classes, random, config)
    by_class = images.view(classes, config.draws, *images.shape[1:])
    notes = {"prior_seconds": seconds, "rarest_class": labelled.bincount(minlength=classes).min().item()}
    kept = by_class[:, : config.per_class]
    if config.views:
        robust = robustness(oracle, images, wanted, random, config.views).view(classes, config.draws)
        notes["robustness"] = robust.mean().item()
        kept = filter_draws(by_class, robust, config.per_class, config.views)
    return Reconstruction(kept, {}, [by_class, kept], notes)


EXPERIMENT = Experiment(
    paper="liu2024_unstoppable",
    setting=ClassifierSetting,
    config=Liu2024UnstoppableConfig(),
    attack=attack,
    knowledge=("public-images", "num-classes"),
    ablations={
        "gan": Run(says="a conditional GAN in place of the diffusion model, same labels and filter", config={"kind": "gan"}),
        "no_class": Run(says="drawn without a class, the filter still asks for it", config={"condition": "nothing"}),
        "no_guidance": Run(says="drawn with the class but without guidance", config={"guidance": 1.0}),
    },
    variants={
        "unfiltered": Run(says="the first draws of each class, not filtered", config={"views": 0}),
        "gan_unfiltered": Run(says="the first draws of the conditional GAN", config={"kind": "gan", "views": 0}),
    },
    references={"brep_mi": Run(says="BREP-MI: a label-only search in a public GAN", paper="brep_mi")},
    claims={
        "beats-earlier-generators-on-labels": Claim(
            check=lambda method, runs: (
                recognised(method) >= recognised(runs["gan"]) + 0.05
                and method["feature_distance"] <= runs["gan"]["feature_distance"] - 0.3
            ),
            ablation="gan",
        ),
        "labels-suffice-without-optimisation": Claim(
            check=lambda method, runs: recognised(method) >= recognised(runs["no_class"]) + 0.3,
            ablation="no_class",
        ),
        "guidance-makes-the-class-prevail": Claim(
            check=lambda method, runs: (
                method["accuracy_open"] >= runs["no_guidance"]["accuracy_open"] + 0.05
                and method["feature_distance"] <= runs["no_guidance"]["feature_distance"] - 0.5
            ),
            ablation="no_guidance",
        ),
    },
    smoke={"prior_steps": 2, "gan_steps": 2, "draw_steps": 2, "draws": 2, "per_class": 1, "views": 1},
    paper_scale={"prior_steps": 200000, "prior_width": 128, "draw_steps": 100, "gan_steps": 30000, "gan_width": 64},
)
