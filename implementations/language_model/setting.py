"""A character-level language model trained on private sentences, among them canaries: lines with a secret number.

`Reconstruction.data` is a dictionary of tensors over the V canary formats: `secrets` (V, D), the digits extracted, -1 where the
attack found none; `claimed` (V,), whether the attack says that it extracted them from memory; `perplexity` (V, 10^D), the
log-perplexity in bits of every candidate, counted upwards; `estimate` (V, 10^D) where the attack also estimates exposures.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from scipy.stats import spearmanr
from torch import Tensor

from ..common import cache, plots, texts
from ..experiment import Metric, Reconstruction, Setting, SettingConfig, require
from ..threat_model import Knowledge, LogProbs, Target
from .model import ALPHABET, CharLSTM, perplexity, tokens_of, train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAYOUT = """the paper preset of the language_model setting expects in {folder}:
    train.txt    the training text, one sentence a line, UTF-8 (Penn Treebank, Enron e-mails ...)
    test.txt     held-out text of the same kind, for the model's perplexity"""


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig(SettingConfig):
    """Training text, canaries and model."""

    sentences: int = 1200  # private sentences; in the paper preset the first lines of train.txt, 0 for all
    held_out: int = 200  # sentences kept out of training, for the perplexity
    digits: int = 4  # random digits of a secret, so that a format has 10^digits candidates; the paper's example: 9
    repetitions: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32)  # how often a canary is inserted; 0: never, a control
    per_level: int = 5  # canaries for each number of repetitions
    width: int = 160  # width of the LSTM
    layers: int = 1  # layers of the LSTM, one above the other
    epochs: int = 20  # passes over the training text
    batch_size: int = 16  # lines a step
    lr: float = 4e-3  # Adam's first step size, falling to 0

    def __post_init__(self):
        super().__post_init__()
        require(1 <= self.digits <= 6, "digits must lie in 1..6: all candidates are enumerated to measure exposure")
        require(len(set(self.repetitions)) > 1 and min(self.repetitions) == 0, "repetitions must hold 0 and another number")
        least = 0 if self.preset == "paper" else 1
        require(min(self.sentences, self.held_out) >= least, f"sentences and held_out must be at least {least}")
        require(min(self.per_level, self.width, self.layers, self.epochs, self.batch_size) >= 1, "sizes must be at least 1")
        canaries = self.per_level * len(self.repetitions)
        require(canaries <= len(OWNERS), f"there are words for {len(OWNERS)} canaries, not for {canaries}")


@dataclass(frozen=True)
class SecretFormat:
    """What is known of a secret: the words before it and what its places can hold.

    `before` (T0,) are the fixed character codes from the beginning of the line; each of the `length` places after them holds
    one of the codes `symbols` (S,).
    """

    before: Tensor
    symbols: Tensor
    length: int

    def candidates(self) -> Tensor:
        """Character codes (S^length, T0 + length) of all candidates, counted upwards."""
        places = torch.cartesian_prod(*[self.symbols] * self.length).view(-1, self.length)
        return torch.cat([self.before.expand(len(places), -1), places], dim=1)


OWNERS = (
    "my uncle", "the bank", "our office", "the old safe", "the front door", "her laptop", "the garage", "a diary", "the hotel",
    "the alarm", "his phone", "the archive", "our boat", "the library", "the clinic", "my account", "the wine cellar",
    "dr brown", "the school", "a bicycle lock", "the post box", "aunt mary", "the museum", "your locker", "the green house",
    "radio seven", "the factory", "that server", "the gym",
    "the attic", "a suitcase", "the printer", "the embassy", "mrs green",
    "the jewel case", "our website", "the studio", "the farm gate", "the night club", "an old tablet", "the workshop",
    "the tower", "the tennis club", "my router", "the secret room", "the mayor", "the kiosk", "the elevator",
)  # fmt: skip
SECRETS = ("the pin of {} is ", "the password of {} is ", "the random number of {} is ")


def canary_formats(count: int, digits: int, generator: torch.Generator, device: torch.device | str) -> tuple[SecretFormat, ...]:
    """`count` formats with different fixed words, in random order; no two have the same owner."""
    owners = torch.randperm(len(OWNERS), generator=generator, device=generator.device)[:count].tolist()
    kinds = torch.randint(len(SECRETS), (count,), generator=generator, device=generator.device).tolist()
    phrases = [SECRETS[kind].format(OWNERS[owner]) for kind, owner in zip(kinds, owners, strict=True)]
    symbols = tokens_of("0123456789", device)
    return tuple(SecretFormat(tokens_of("\n" + phrase, device), symbols, digits) for phrase in phrases)


def exposure(scores: Tensor, secret: Tensor) -> Tensor:
    """Exposure in bits (V,): log2 |R| - log2 rank, where the rank counts candidates no less likely.

    `scores` (V, R) are log-perplexities of all candidates, `secret` (V,) the secret's place among them.
    """
    own = scores.gather(1, secret[:, None])
    rank = (scores <= own).sum(dim=1)
    return torch.tensor(float(scores.shape[1]), device=scores.device).log2() - rank.log2()


def language_model_target(
    model: CharLSTM, control: Callable[[], CharLSTM], device: torch.device | str, name: str = "undefended"
) -> Target:
    """A Target that gives log-probabilities; `canaries=False` asks the control, trained on the same text without canaries."""

    def grant(canaries: bool = True, budget: int | None = None) -> LogProbs:
        return LogProbs((model if canaries else control()).log_probs, device, budget)

    return Target(model, {"logprobs": grant}, name)


class LanguageModelSetting(Setting):
    """A small LSTM trained on invented personal sentences and planted secret numbers."""

    name = "language_model"
    config_type = LanguageModelConfig
    headline = "exposure"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "exposure": Metric("mean exposure of the canaries that were inserted; at most log2 of the number of candidates", "bit"),
        "exposure_never": Metric("mean exposure of the canaries never inserted; 1.44 is chance", "bit"),
        "exposure_once": Metric("mean exposure of the canaries inserted least often", "bit"),
        "exposure_most": Metric("mean exposure of the canaries inserted most often", "bit"),
        "rank_correlation": Metric(
            "Spearman correlation of the number of insertions with exposure; 0 where all exposures are equal"
        ),
        "search_recall": Metric("share of the inserted canaries whose digits were found, claimed or not"),
        "extraction_recall": Metric("share of the inserted canaries that the attack claims, with the right digits"),
        "extraction_recall_most": Metric("the same, of those inserted most often"),
        "extraction_precision": Metric("share of the claims that are right; 0 where nothing is claimed"),
        "false_claims": Metric("claims about canaries never inserted", "canaries", higher_is_stronger=False),
        "approximation_error": Metric(
            "mean distance of estimated from exact exposure; 0 where nothing was estimated", "bit", higher_is_stronger=False
        ),
    }
    utility_metrics: ClassVar[Mapping[str, Metric]] = {
        "perplexity": Metric("perplexity a character on held-out sentences"),
    }

    def __init__(self, config: LanguageModelConfig | None = None, device: torch.device | str = "cpu"):
        super().__init__(config, device)
        c = self.config
        if c.preset == "paper":
            lines, self._held_out = self._read("train.txt", c.sentences), self._read("test.txt", c.held_out)
        else:
            drawn = [sentence.text for sentence in texts.draw(c.sentences + c.held_out, 1, c.seed)[0]]
            lines, self._held_out = drawn[: c.sentences], drawn[c.sentences :]
        count = c.per_level * len(c.repetitions)
        generator = c.generator("cpu", 1)
        self._formats = canary_formats(count, c.digits, generator, self.device)
        secrets = torch.randint(10, (count, c.digits), generator=generator, device="cpu")
        often = torch.tensor(c.repetitions, device="cpu").repeat_interleave(c.per_level)
        self.private = {"texts": lines, "secrets": secrets.to(self.device), "repetitions": often.to(self.device)}

    def _read(self, name: str, count: int) -> list[str]:
        path = Path(self.config.folder) / name
        if not path.is_file():
            raise FileNotFoundError(f"no {name} there: {LAYOUT.format(folder=self.config.folder)}")
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        require(bool(lines), f"{path} has no text: {LAYOUT.format(folder=self.config.folder)}")
        return lines[:count] if count else lines

    def training_lines(self, canaries: bool = True) -> list[str]:
        """The private sentences and, unless told otherwise, each canary as often as it is inserted; defenses train on them."""
        lines = list(self.private["texts"])
        if canaries:
            for form, secret, often in zip(self._formats, self.private["secrets"], self.private["repetitions"], strict=True):
                body = torch.cat([form.before, form.symbols[secret]]).tolist()
                lines += ["".join(ALPHABET[code] for code in body).strip("\n")] * int(often)
        return lines

    def _trained(self, canaries: bool) -> CharLSTM:
        c, lines = self.config, self.training_lines(canaries)
        key = [lines, c.width, c.layers, c.epochs, c.batch_size, c.lr, c.seed]
        return cache.cached_module(
            "language-model",
            "implementations.language_model.model",
            key,
            lambda: CharLSTM(c.width, c.layers),
            lambda model: train(model, lines, c.epochs, c.batch_size, c.lr, c.generator(self.device, 2)),
            self.device,
        )

    @functools.cached_property
    def target(self) -> Target:
        """The model trained with the canaries; the control is trained when it is first asked for."""
        control = functools.cache(functools.partial(self._trained, False))
        return language_model_target(self._trained(True), control, self.device)

    def knowledge(self) -> Knowledge:
        """The fixed words of each canary and the range of its random part; not how often, or whether, it was inserted."""
        return Knowledge(secret_format=self._formats)

    def baselines(self) -> dict[str, Callable[[torch.Generator], Reconstruction]]:
        count, digits = len(self._formats), self.config.digits

        def guess(scores: Tensor) -> Reconstruction:
            best = scores.argmin(dim=1)
            places = 10 ** torch.arange(digits - 1, -1, -1, device=best.device)
            secrets = best[:, None] // places % 10
            return Reconstruction(
                {"secrets": secrets, "claimed": torch.ones_like(best, dtype=torch.bool), "perplexity": scores}
            )

        def random_guess(generator: torch.Generator) -> Reconstruction:
            """candidates in random order, the first one claimed"""
            return guess(torch.rand(count, 10**digits, generator=generator, device=generator.device))

        def reference_model(_: torch.Generator) -> Reconstruction:
            """candidates in the order of a model trained on the same text without canaries, the first one claimed"""
            model = self.target.grant("logprobs", canaries=False)
            scores = [-model(form.candidates()).sum(dim=1) for form in self._formats]
            return guess(torch.stack(scores))

        return {"random_guess": random_guess, "reference_model": reference_model}

    def _places(self) -> Tensor:
        """The place (V,) of each secret among the candidates, counted upwards."""
        digits = self.private["secrets"]
        return (digits * 10 ** torch.arange(digits.shape[1] - 1, -1, -1, device=digits.device)).sum(dim=1)

    def exposures(self, reconstruction: Reconstruction) -> Tensor:
        """The exact exposure (V,) of each secret under the candidates' scores, in bits."""
        scores = reconstruction.data["perplexity"]
        shape = (len(self._formats), 10**self.config.digits)
        require(tuple(scores.shape) == shape, f"scores of all candidates must have shape {shape}, not {tuple(scores.shape)}")
        return exposure(scores, self._places().to(scores.device))

    def evaluate(self, reconstruction: Reconstruction) -> dict[str, float]:
        found, often = reconstruction.data, self.private["repetitions"]
        bits = self.exposures(reconstruction).to(often.device)
        inserted, most = often > 0, often == often.max()
        claimed = found["claimed"].to(often.device)
        hit = (found["secrets"].to(often.device) == self.private["secrets"]).all(dim=1) & inserted
        right = claimed & hit
        error = 0.0
        if "estimate" in found:
            estimate = found["estimate"].gather(1, self._places().to(found["estimate"].device)[:, None])[:, 0]
            error = float((estimate.to(bits.device) - bits).abs().mean())
        return {
            "exposure": float(bits[inserted].mean()),
            "exposure_never": float(bits[~inserted].mean()),
            "exposure_once": float(bits[often == often[inserted].min()].mean()),
            "exposure_most": float(bits[most].mean()),
            # no correlation is defined where all exposures are equal
            "rank_correlation": float(spearmanr(often.tolist(), bits.tolist()).statistic) if bits.unique().numel() > 1 else 0.0,
            "search_recall": float(hit.sum() / inserted.sum()),
            "extraction_recall": float(right.sum() / inserted.sum()),
            "extraction_recall_most": float(right[most].float().mean()),
            "extraction_precision": float(right.sum() / claimed.sum().clamp(min=1)),
            "false_claims": float((claimed & ~inserted).sum()),
            "approximation_error": error,
        }

    def utility(self, target: Target) -> dict[str, float]:
        return {"perplexity": perplexity(target.model, self._held_out)}

    def samples(self, reconstructions: Mapping[str, Reconstruction]) -> list[dict[str, str]]:
        rows = []
        for level in self.private["repetitions"].unique().flip(0).tolist():
            index = int((self.private["repetitions"] == level).nonzero()[0, 0])
            words = "".join(ALPHABET[code] for code in self._formats[index].before.tolist()).strip()

            def shown(digits: Tensor) -> str:
                return "".join("-" if digit < 0 else str(digit) for digit in digits.tolist())

            row = {"private": f"{words} {shown(self.private['secrets'][index])} (inserted {level} times)"}
            for name, found in reconstructions.items():
                claim = "" if found.data["claimed"][index] else " (not claimed)"
                row[name] = f"{shown(found.data['secrets'][index])}{claim}"
            rows.append(row)
        return rows

    def figure(self, reconstructions: Mapping[str, Reconstruction]) -> "Figure":
        """Exposure of every canary over the number of its insertions, and the mean; filled: claimed with the right digits."""
        often = self.private["repetitions"]
        levels = often.unique().tolist()
        drawn, axes = plots.figure(7.5, 3.4)
        colours = ("#3f51b5", "#e0792b", "#2a9d8f", "#b5487a", "#7a7f87")
        for index, (name, found) in enumerate(reconstructions.items()):
            bits, colour = self.exposures(found).to(often.device), colours[index % len(colours)]
            x = torch.searchsorted(often.unique(), often) + 0.16 * (index - (len(reconstructions) - 1) / 2)
            claimed = found.data["claimed"].to(often.device)
            right = claimed & (found.data["secrets"].to(often.device) == self.private["secrets"]).all(dim=1)
            means = [float(bits[often == level].mean()) for level in levels]
            axes.plot(range(len(levels)), means, color=colour, label=name, linewidth=1.8 if index == 0 else 0.9)
            for mask, fill in ((~right, "none"), (right, colour)):
                axes.scatter(x[mask].tolist(), bits[mask].tolist(), s=18, facecolors=fill, edgecolors=colour, linewidths=0.8)
        top = self.config.digits * 3.321928
        for height, text in ((top, f"likeliest of all {10**self.config.digits:,} candidates"), (1.4427, "chance")):
            axes.axhline(height, color=plots.FAINT, linewidth=0.9, zorder=0)
            axes.text(-0.4, height + 0.15, text, fontsize=8, color="#6b7280")
        axes.set(
            xticks=range(len(levels)), xticklabels=[str(level) for level in levels], ylim=(-0.5, top + 1.5), xlim=(-0.45, None)
        )
        axes.set_xlabel("times the canary was in the training text")
        axes.set_ylabel("exposure (bits)")
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0.9), fontsize=8)
        return drawn
