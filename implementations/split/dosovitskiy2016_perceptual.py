r"""DeePSiM: an inversion network trained on pixels, features and a discriminator at once, so that its pictures are sharp.

Paper: "Generating Images with Perceptual Similarity Metrics based on Deep Networks", Alexey Dosovitskiy, Thomas Brox,
NeurIPS 2016. https://arxiv.org/abs/1602.02644

Idea. A network that inverts features under the distance of pixels answers with the mean of all pictures that fit: a blur. Three
losses together do better. Distances in the features of a comparator do not mind where exactly a detail sits. They alone would
let unnatural patterns through which the comparator does not see; a discriminator, which learns to tell rebuilt pictures from
real ones while it sees the features too, forbids them. The distance of pixels keeps training stable. The paper shows what
networks keep and has no private data in view. As an attack its pictures look right, though details are made up where the
features leave them open.

Mathematics. With the generator $G_\theta$, the features $\phi_i = \Phi(x_i)$ of pictures $x_i$, the comparator $C$ and the
discriminator $D_\varphi$ (Sec. 3), $\mathcal L = \lambda_{feat} \mathcal L_{feat} + \lambda_{adv} \mathcal L_{adv} +
\lambda_{img} \mathcal L_{img}$ where

$$\mathcal L_{feat} = \sum_i \|C(G_\theta(\phi_i)) - C(x_i)\|_2^2, \qquad
\mathcal L_{adv} = -\sum_i \log D_\varphi(G_\theta(\phi_i)), \qquad
\mathcal L_{img} = \sum_i \|G_\theta(\phi_i) - x_i\|_2^2,$$

$$\mathcal L_{discr} = -\sum_i \log D_\varphi(x_i) + \log\big(1 - D_\varphi(G_\theta(\phi_i))\big).$$

Deviations
1. The losses were checked in reviews of the paper; the three weights, the order of updates and the rule that pauses a network
   in training that was derived from the authors' code (KamitaniLab/End2EndDeepImageReconstruction), not in their own release.
2. The three weights were chosen anew: pictures in [0, 1], features in units of their deviation, sums over fewer values.
3. The comparator is the client, whose features are inverted; the paper takes AlexNet, also up to another layer. So the
   client's weights are needed, while the distance of pixels alone needs queries only.
4. The generator is the inversion network of the authors' earlier paper as it is here, without 3x3 convolutions between its
   up-convolutions. The discriminator has three convolutions, leaky ReLU, a mean over places and no dropout; features enter
   through one linear layer after a mean over places. That the authors' sees them at all is read off the derived code's remark.
5. ADAM with one cycle of the step for the generator and a constant one for the discriminator; in the derived code 0.0002 for
   both, halved in stages, over a million steps.
6. Here the comparator alone makes the pictures sharper; the discriminator changes hardly anything (`no_discriminator`). Part of
   what is measured as sharpness is the checkerboard of up-convolutions, and to the eye the gain is small. On some seeds the
   discriminator runs away from the generator, whose pictures end noisy (one of the three recorded).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.progress import progress
from ..common.training import in_batches, seeded_weights
from ..experiment import Claim, Experiment, Metrics, Reconstruction, Run, require
from ..threat_model import Features, Knowledge
from .dosovitskiy2016_inverting import InversionConfig, squared_error, untrained
from .portraits import PortraitSetting


@dataclass(frozen=True, kw_only=True)
class PerceptualConfig(InversionConfig):
    """The three weights and the discriminator; the generator and its training are those of the inversion network."""

    steps: int = 600  # training steps (derived code: a million)
    feature_weight: float = 0.05  # lambda_feat, in squared deviations of the features (derived code: 0.01 / 2, other units)
    adversarial_weight: float = 1.0  # lambda_adv (derived code: 100)
    image_weight: float = 1.0  # lambda_img, in squared pixel values (derived code: 2e-6 / 2, pixels up to 255)
    critic_width: int = 16  # channels of the discriminator's first convolution, doubled twice (derived code: 32)
    critic_lr: float = 5e-4  # ADAM step of the discriminator (derived code: 2e-4, as the generator)
    pause_below: float = 0.1  # the discriminator rests where its loss is less than this part of L_adv (derived code: 0.1)
    resume_above: float = 0.5  # it goes on from this part (derived code: 0.5)
    wait_above: float = 10.0  # the generator rests above this part (derived code: 10)

    def __post_init__(self):
        super().__post_init__()
        weights = (self.feature_weight, self.adversarial_weight, self.image_weight)
        require(min(weights) >= 0 and max(weights) > 0, "weights must be at least 0, one of them above")
        require(self.error == "image", "error must be image: the three weights say what is minimised")
        require(self.pairs == "matched", "pairs must be matched")
        require(self.critic_width >= 1 and self.critic_lr > 0, "critic_width must be at least 1 and critic_lr above 0")
        require(0 < self.pause_below < self.resume_above < self.wait_above, "pause_below < resume_above < wait_above")


# --- the losses (Sec. 3), mean over a batch -----------------------------------------------------------------------------


def adversarial_loss(judged: Tensor) -> Tensor:
    """L_adv = -log D of rebuilt pictures from the discriminator's logits (B,), a scalar."""
    return F.softplus(-judged).mean()


def discriminator_loss(real: Tensor, rebuilt: Tensor) -> Tensor:
    """L_discr = -log D(x) - log(1 - D(G)) from logits (B,) of real and of rebuilt pictures, a scalar."""
    return F.softplus(-real).mean() + F.softplus(rebuilt).mean()


def whose_turn(ratio: float, critic: bool, generator: bool, config: PerceptualConfig) -> tuple[bool, bool]:
    """Whether discriminator and generator learn in the next step, from L_discr / L_adv and who learnt in this one."""
    if ratio < config.pause_below and critic:
        critic, generator = False, True
    if ratio > config.resume_above and not critic:
        critic, generator = True, True
    if ratio > config.wait_above and generator:
        critic, generator = True, False
    return critic, generator


class Discriminator(nn.Module):
    """Pictures (B, C, S, S) and the features (B, ...) they should have, to logits of being real (B,)."""

    def __init__(self, channels: int, features: int, width: int, slope: float):
        super().__init__()
        self.see = nn.Sequential(
            nn.Conv2d(channels, width, 5, 2, 2),
            nn.LeakyReLU(slope),
            nn.Conv2d(width, 2 * width, 5, 2, 2),
            nn.LeakyReLU(slope),
            nn.Conv2d(2 * width, 4 * width, 3, 1, 1),
            nn.LeakyReLU(slope),
        )
        self.know = nn.Linear(features, 4 * width)
        self.judge = nn.Sequential(nn.Linear(8 * width, 4 * width), nn.LeakyReLU(slope), nn.Linear(4 * width, 1))

    def forward(self, images: Tensor, features: Tensor) -> Tensor:
        seen = self.see(images).mean(dim=(2, 3))
        known = self.know(features.flatten(2).mean(dim=2) if features.dim() > 2 else features)
        return self.judge(torch.cat([seen, known], dim=1)).squeeze(1)


# --- training and inversion ---------------------------------------------------------------------------------------------


def train_generator(
    client: nn.Module, images: Tensor, config: PerceptualConfig, random: torch.Generator
) -> tuple[nn.Module, dict[str, list[float]], int]:
    """G from public pictures (N, C, S, S) and the client, the losses a step, and how often the discriminator learnt."""
    with torch.no_grad():
        answers = in_batches(client, images)
    generator = untrained(answers, images, config)
    with seeded_weights(config.seed):
        critic = Discriminator(images.shape[1], answers.shape[1], config.critic_width, config.slope).to(images.device)
    optimizer = torch.optim.Adam(generator.parameters(), lr=config.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=config.steps + 1)
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=config.critic_lr)
    history: dict[str, list[float]] = {"features": [], "adversarial": [], "image": [], "discriminator": []}
    critic_learns, generator_learns, learnt = True, True, 0
    for _ in progress(range(config.steps), "training the generator"):
        chosen = torch.randint(0, len(images), (config.batch,), generator=random, device=images.device)
        x, features = images[chosen], answers[chosen]
        hint = (features - generator.mean) / generator.deviation
        rebuilt = generator(features)

        discriminator = discriminator_loss(critic(x, hint), critic(rebuilt.detach(), hint))
        if critic_learns and config.adversarial_weight > 0:
            critic_optimizer.zero_grad()
            discriminator.backward()
            critic_optimizer.step()
            learnt += 1

        losses = {
            "features": squared_error(client(rebuilt), features) / generator.deviation**2,
            "adversarial": adversarial_loss(critic(rebuilt, hint)),
            "image": squared_error(rebuilt, x),
        }
        if generator_learns:
            optimizer.zero_grad()
            total = config.feature_weight * losses["features"] + config.image_weight * losses["image"]
            (total + config.adversarial_weight * losses["adversarial"]).backward()
            optimizer.step()
        schedule.step()
        for name, loss in (losses | {"discriminator": discriminator}).items():
            history[name].append(loss.item())
        ratio = history["discriminator"][-1] / history["adversarial"][-1]
        critic_learns, generator_learns = whose_turn(ratio, critic_learns, generator_learns, config)
    return generator.eval(), history, learnt


def attack(oracle: Features, knowledge: Knowledge, config: PerceptualConfig) -> Reconstruction:
    """One picture for each observed activation, (V, C, S, S) in [0, 1]: one pass of the trained generator."""
    random = config.generator(oracle.device)
    generator, history, learnt = train_generator(oracle.client, knowledge.public_images, config, random)
    with torch.no_grad():
        rebuilt = generator(oracle.observed)
    return Reconstruction(rebuilt.clamp(0, 1), history, [], {"discriminator_steps": learnt})


# --- what is measured ---------------------------------------------------------------------------------------------------


def sharper_than_pixel_loss(method: Metrics, runs: Mapping[str, Metrics]) -> bool:
    """More of the private picture's fine detail, not more than there is, and closer to it for an unseen network."""
    blurred = runs["pixel_loss"]
    sharper = 1.25 * blurred["sharpness"] <= method["sharpness"] <= 1.25
    return sharper and method["perceptual_error"] <= 0.98 * blurred["perceptual_error"]


EXPERIMENT = Experiment(
    paper="dosovitskiy2016_perceptual",
    setting=PortraitSetting,
    config=PerceptualConfig(),
    attack=attack,
    knowledge=("public-images", "client-weights"),
    grant={"client": "weights"},
    options={"cut": "relu32"},
    ablations={
        "pixel_loss": Run(
            says="the distance of pixels alone, with as many steps",
            config={"feature_weight": 0.0, "adversarial_weight": 0.0},
        ),
        "no_discriminator": Run(says="features and pixels, no discriminator", config={"adversarial_weight": 0.0}),
        "no_comparator": Run(says="discriminator and pixels, no features", config={"feature_weight": 0.0}),
    },
    claims={"sharper-than-pixel-loss": Claim(check=sharper_than_pixel_loss, ablation="pixel_loss")},
    smoke={"steps": 3},
    paper_scale={"width": 128, "steps": 1_000_000, "batch": 64, "lr": 2e-4, "critic_lr": 2e-4, "critic_width": 32},
)
