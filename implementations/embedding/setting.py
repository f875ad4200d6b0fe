"""Sentence embeddings: somebody obtained the vectors of private sentences and may ask the same encoder about other texts.

`Reconstruction.data` is a list of V texts, one for each observed vector, in order.
"""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ..common import cache, plots, texts
from ..experiment import Metric, Reconstruction, Setting, SettingConfig, require
from ..threat_model import Embeddings, Knowledge, Target, fingerprint
from .encoder import POOLINGS, Encoder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAYOUT = """the paper preset of the embedding setting expects in {folder}:
    train.txt    the adversary's texts, one sentence a line, UTF-8 (PersonaChat, QNLI ...)
    test.txt     the private texts, one sentence a line"""


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig(SettingConfig):
    """How many sentences, and which encoder."""

    private: int = 200  # private sentences V whose vectors are exposed; in the paper preset the first V lines, 0 for all
    public: int = 6000  # the adversary's own sentences; in the paper preset the first lines, 0 for all
    encoder: str = ""  # folder or hub id of the encoder; empty: all-MiniLM-L6-v2 from its package
    pooling: str = "mean"  # how the encoder pools token vectors: mean or cls

    def __post_init__(self):
        super().__post_init__()
        least = 0 if self.preset == "paper" else 1
        require(self.private >= least and self.public >= least, f"private and public must be at least {least}")
        require(self.pooling in POOLINGS, f"pooling is one of {', '.join(POOLINGS)}, not {self.pooling!r}")


def read_lines(folder: str, count: int, name: str) -> list[str]:
    """The first `count` non-empty lines of a file (0 for all). Raises FileNotFoundError that shows the expected tree."""
    path = Path(folder) / name
    if not path.is_file():
        raise FileNotFoundError(f"no {name} there: {LAYOUT.format(folder=folder)}")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path} has no text: {LAYOUT.format(folder=folder)}")
    return lines[:count] if count else lines


def marked_details(text: str) -> tuple[tuple[str, str], ...]:
    """Stand-in for labels where a data set has none: numbers, and capitalised words after the first word."""
    found = []
    for index, word in enumerate(text.split()):
        bare = word.strip(".,;:!?\"'()")
        if any(letter.isdigit() for letter in bare):
            found.append(("number", bare))
        elif index and bare[:1].isupper() and len(bare) > 1:
            found.append(("name", bare))
    return tuple(found)


def token_f1(rebuilt: str, private: str) -> float:
    """Harmonic mean of precision and recall over words with their multiplicity, in [0, 1]; order does not count."""
    a, b = Counter(texts.words(rebuilt)), Counter(texts.words(private))
    common = sum((a & b).values())
    return 2 * common / (sum(a.values()) + sum(b.values())) if common else 0.0


def contains(text: str, detail: str) -> bool:
    """Whether the words of a detail stand together, in order, in a text."""
    return f" {' '.join(texts.words(detail))} " in f" {' '.join(texts.words(text))} "


def embedding_target(
    model: torch.nn.Module,
    observed: Tensor,
    encode: Callable[[Sequence[str]], Tensor],
    device: torch.device | str,
    name: str = "undefended",
) -> Target:
    """A Target that exposes `observed` (V, D) and answers for other texts with `encode`."""
    return Target(
        model,
        {"embeddings": lambda budget=None: Embeddings(observed, device, encode, budget)},
        name,
    )


class EmbeddingSetting(Setting):
    """Vectors of private sentences with invented personal details, made by the real all-MiniLM-L6-v2."""

    name = "embedding"
    config_type = EmbeddingConfig
    headline = "token_f1"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "token_f1": Metric("harmonic mean of word precision and recall, order left out, mean over all private sentences"),
        "exact_match": Metric("share of private sentences rebuilt word for word"),
        "bleu": Metric("corpus BLEU of up to four words in a row (sacrebleu, divided by 100)"),
        "rouge_l": Metric("longest common word sequence, as F1 (ROUGE-L)"),
        "cosine": Metric("cosine between the encoder's vectors of rebuilt and private sentence, mean"),
        "entity_recovery": Metric("share of all personal details that stand in the rebuilt sentence"),
        "name_recovery": Metric("share of people's first names and surnames recovered"),
        "number_recovery": Metric("share of ages, amounts, codes and other numbers recovered"),
        "unseen_recovery": Metric("share recovered of the details that occur in no public sentence"),
    }
    utility_metrics: ClassVar[Mapping[str, Metric]] = {
        "neighbour_recall": Metric(
            "share of vectors whose nearest public sentence is among the ten nearest by the undefended encoder",
            higher_is_stronger=False,
        ),
    }

    def __init__(self, config: EmbeddingConfig | None = None, device: torch.device | str = "cpu"):
        super().__init__(config, device)
        c = self.config
        if c.preset == "paper":
            public = read_lines(c.folder, c.public, "train.txt")
            private = read_lines(c.folder, c.private, "test.txt")
            details = [marked_details(text) for text in private]
        else:
            secret, open_ = texts.draw(c.private, c.public, c.seed)
            private, details = [s.text for s in secret], [s.details for s in secret]
            public = [s.text for s in open_]
        self._public: list[str] = public
        self.private = {"sentences": private, "details": details}

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The encoder, frozen."""
        return Encoder(self.config.encoder, self.config.pooling).to(self.device).eval()

    def _vectors(self, sentences: Sequence[str]) -> Tensor:
        """Vectors (B, D) of many sentences, from disk if they were made before."""
        key = [fingerprint(self.encoder), self.encoder.pooling, list(sentences)]

        def build() -> dict[str, Tensor]:
            return {"vectors": self.encoder.encode(sentences)}

        return cache.cached("embeddings", "implementations.embedding.encoder", key, build, self.device)["vectors"]

    @functools.cached_property
    def public_vectors(self) -> Tensor:
        """Vectors (P, D) of the public sentences."""
        return self._vectors(self._public)

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        return {text: row for row, text in enumerate(self._public)}

    def encode(self, sentences: Sequence[str]) -> Tensor:
        """The undefended encoder's vectors (B, D); those of public sentences are remembered, as encoding costs most."""
        sentences = list(sentences)
        new = [text for text in dict.fromkeys(sentences) if text not in self._rows]
        pool, places = self.public_vectors, dict(self._rows)
        if new:
            places |= {text: len(pool) + row for row, text in enumerate(new)}
            pool = torch.cat([pool, self.encoder.encode(new)])
        return pool[torch.tensor([places[text] for text in sentences], device=pool.device, dtype=torch.long)]

    @functools.cached_property
    def target(self) -> Target:
        """The encoder that exposes the private sentences' vectors."""
        observed = self._vectors(self.private["sentences"])
        return embedding_target(self.encoder, observed, self.encode, self.device)

    def knowledge(self) -> Knowledge:
        """The adversary has public sentences about other people."""
        return Knowledge(public_texts=list(self._public))

    def _nearest(self, vectors: Tensor, k: int) -> Tensor:
        return (vectors @ self.public_vectors.T).topk(k, dim=1).indices

    def baselines(self) -> dict[str, Callable[[torch.Generator], Reconstruction]]:
        observed = self.target.grant("embeddings").observed
        count = len(observed)

        def nearest_public(_: torch.Generator) -> Reconstruction:
            """the public sentence whose vector is nearest"""
            return Reconstruction([self._public[i] for i in self._nearest(observed, 1)[:, 0].tolist()])

        def multi_label(generator: torch.Generator) -> Reconstruction:
            """multi-label classification: a linear model predicts which words occur, without order"""
            from .word_set import predict_words

            return Reconstruction(predict_words(self._public, self.public_vectors, observed, generator))

        def frequent_words(_: torch.Generator) -> Reconstruction:
            """the most frequent public words, as many as a public sentence has on average"""
            counts = Counter(word for text in self._public for word in texts.words(text))
            length = round(sum(counts.values()) / len(self._public))
            return Reconstruction([" ".join(word for word, _ in counts.most_common(length))] * count)

        def random_public(generator: torch.Generator) -> Reconstruction:
            """a public sentence drawn at random"""
            rows = torch.randint(len(self._public), (count,), generator=generator, device=generator.device)
            return Reconstruction([self._public[i] for i in rows.tolist()])

        return {
            "nearest_public": nearest_public,
            "multi_label": multi_label,
            "frequent_words": frequent_words,
            "random_public": random_public,
        }

    @functools.cached_property
    def _public_text(self) -> str:
        return f" {'  '.join(' '.join(texts.words(text)) for text in self._public)} "

    def evaluate(self, reconstruction: Reconstruction) -> dict[str, float]:
        from sacrebleu import corpus_bleu
        from torchmetrics.functional.text.rouge import rouge_score

        rebuilt, private = [str(text) for text in reconstruction.data], self.private["sentences"]
        require(len(rebuilt) == len(private), f"{len(private)} vectors were observed, {len(rebuilt)} texts rebuilt")
        plain = [" ".join(texts.words(text)) for text in rebuilt]
        truth = [" ".join(texts.words(text)) for text in private]
        details = [
            (kind, contains(text, value), f" {' '.join(texts.words(value))} " in self._public_text)
            for text, found in zip(rebuilt, self.private["details"], strict=True)
            for kind, value in found
        ]

        def share(hits: list[bool]) -> float:
            return sum(hits) / len(hits) if hits else 0.0

        return {
            "token_f1": sum(map(token_f1, rebuilt, private)) / len(private),
            "exact_match": share([a == b for a, b in zip(plain, truth, strict=True)]),
            "bleu": corpus_bleu(plain, [truth]).score / 100,
            "rouge_l": float(rouge_score(plain, truth, rouge_keys="rougeL")["rougeL_fmeasure"]),
            "cosine": float((self.encode(rebuilt) * self.encode(private)).sum(-1).mean()),
            "entity_recovery": share([hit for _, hit, _ in details]),
            "name_recovery": share([hit for kind, hit, _ in details if kind == "name"]),
            "number_recovery": share([hit for kind, hit, _ in details if kind == "number"]),
            "unseen_recovery": share([hit for _, hit, seen in details if not seen]),
        }

    def utility(self, target: Target) -> dict[str, float]:
        vectors = target.grant("embeddings").observed
        true = self._nearest(self._vectors(self.private["sentences"]), min(10, len(self._public)))
        return {"neighbour_recall": float((self._nearest(vectors, 1) == true).any(dim=1).float().mean())}

    def samples(self, reconstructions: Mapping[str, Reconstruction]) -> list[dict[str, str]]:
        return [
            {"private": private, **{name: str(found.data[row]) for name, found in reconstructions.items()}}
            for row, private in enumerate(self.private["sentences"][:8])
        ]

    def figure(self, reconstructions: Mapping[str, Reconstruction]) -> "Figure":
        """A few private sentences above what was rebuilt; recovered words in colour, personal details in bold."""
        rows = list(zip(self.samples(reconstructions), self.private["details"], strict=False))[:4]
        names = ["private", *reconstructions]
        margin = max(map(len, names)) + 2
        width = margin + max(min(len(text), 120) for row, _ in rows for text in row.values()) + 1
        height = len(rows) * (len(names) + 0.7)
        drawn, axes = plots.figure(0.069 * width, 0.23 * height)
        axes.set_axis_off()
        axes.set(xlim=(0, width), ylim=(height, 0))
        style = {"family": "monospace", "fontsize": 8, "va": "top"}
        for index, (row, details) in enumerate(rows):
            private = Counter(texts.words(row["private"]))
            told = {word for _, value in details for word in texts.words(value)}
            for line, name in enumerate(names):
                y, x, left = index * (len(names) + 0.7) + line, margin, Counter(private)
                axes.text(margin - 1.5, y, name, ha="right", color="#6b7280", **style)
                for word in row[name][:120].split():
                    bare = texts.words(word)
                    hit = name != "private" and bool(bare) and all(left[part] > 0 for part in bare)
                    left.subtract(bare if hit else ())
                    colour = plots.INK if name == "private" else "#3f51b5" if hit else "#8b929c"
                    bold = "bold" if bare and set(bare) <= told else "normal"
                    axes.text(x, y, word, color=colour, weight=bold, **style)
                    x += len(word) + 1
        return drawn
