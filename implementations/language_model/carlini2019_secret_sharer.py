r"""Exposure and extraction of secrets that a language model has memorised.

Paper: "The Secret Sharer: Evaluating and Testing Unintended Memorization in Neural Networks", Nicholas Carlini, Chang Liu,
Úlfar Erlingsson, Jernej Kos, Dawn Song, USENIX Security 2019. https://arxiv.org/abs/1802.08232

Idea. A model that has memorised a secret finds it less surprising than the same words with any other number. So a planted
canary is ranked by its log-perplexity among all candidates of its format, and log2 |R| minus the logarithm of its rank is its
exposure: how many bits of a guess the model saves. Where |R| is large, a skew-normal distribution fitted to the
log-perplexities of a random sample stands in for the ranking. A secret whose exposure comes near log2 |R|, the most there is,
can be extracted: a shortest-path search in the tree of beginnings, whose edges weigh -log2 of the next character's
probability, finds the likeliest candidate without visiting most of the tree.

Mathematics. The log-perplexity of a text and the exposure of a canary $s$ among all candidates $R$ of its format are

$$P_\theta(x) = \sum_i -\log_2 \Pr(x_i \mid x_1, \dots, x_{i-1}), \qquad
\mathrm{exposure}_\theta(s) = \log_2 |R| - \log_2 \mathrm{rank}_\theta(s).$$

Deviations
1. The model is a one-layer character LSTM of width 160, trained for less than a minute on 1,200 invented sentences, and secrets
   have four digits; the paper's example is nine digits in Penn Treebank. So |R| is 10,000 and every rank is exact.
2. Canaries of one model have different fixed words and different numbers of insertions, so that one training gives the whole
   curve; the authors' example has one canary.
3. The skew-normal distribution is fitted by its first three moments, for all canaries at once, and not by maximum likelihood
   as in TensorFlow Privacy's version of the method.
4. An attacker does not know which secrets were memorised. Here the attack claims a secret that the search found where the
   model gives it more than half of all probability after the format's words (`confidence`). The rule is ours.
5. The search expands several beginnings of every canary at once, and gives up on a canary after `expansions`. The authors
   describe theirs as a mixture of Dijkstra's algorithm and beam search.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from scipy.stats import skewnorm
from torch import Tensor

from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, LogProbs
from .setting import LanguageModelSetting, SecretFormat


@dataclass(frozen=True, kw_only=True)
class SecretSharerConfig(Config):
    """Search, estimate and decision."""

    search: str = "shortest-path"  # shortest-path, or random: the best of as many random candidates (ablation)
    expansions: int = 60  # beginnings expanded for each canary before the search gives up; the paper's search runs to the end
    width: int = 4  # beginnings of each canary expanded together; 1 is Dijkstra's order
    samples: int = 1000  # random candidates of each format that the skew-normal distribution is fitted to
    confidence: float = 0.5  # least probability of a found secret, given the words before it, for a claim

    def __post_init__(self):
        require(self.search in ("shortest-path", "random"), f"search is shortest-path or random, not {self.search!r}")
        require(min(self.expansions, self.width) >= 1, "expansions and width must be at least 1")
        require(self.samples >= 10, "three moments need at least 10 samples")
        require(0 <= self.confidence <= 1, "confidence must lie in [0, 1]")


def log_perplexity(log_probs: Tensor) -> Tensor:
    """Px(x_1 ... x_n) = -sum log2 P(x_i | x_1 ... x_i-1), in bits. Log-probabilities (B, T) in nats; (B,)."""
    return -log_probs.sum(dim=1) / math.log(2)


def exposure_by_sampling(scores: Tensor, sample: Tensor) -> Tensor:
    """-log2 of the share of sampled candidates no more perplexing than each score, in bits: the paper's estimate by sampling.

    Scores (V, R) and sample (V, N). The share is at least 1 / N, so the result is at most log2 N.
    """
    ordered = sample.sort(dim=1).values
    below = torch.searchsorted(ordered, scores.contiguous(), right=True).clamp(min=1)
    return -(below / sample.shape[1]).log2()


def fit_skew_normal(sample: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shape, location and scale (V,) of the skew-normal distributions with the moments of each row of a sample (V, N).

    With δ = α / sqrt(1 + α²), the skewness is (4 - π) / 2 · (δ sqrt(2 / π))³ / (1 - 2 δ² / π)^(3/2), at most 0.995 in size;
    larger sample skewness is cut to 0.99.
    """
    sample = sample.double()
    mean, deviation = sample.mean(dim=1), sample.std(dim=1, correction=0).clamp(min=1e-12)
    skewness = ((sample - mean[:, None]) / deviation[:, None]).pow(3).mean(dim=1).clamp(-0.99, 0.99)
    ratio = skewness.abs().pow(2 / 3)
    delta = (math.pi / 2 * ratio / (ratio + ((4 - math.pi) / 2) ** (2 / 3))).sqrt() * skewness.sign()
    scale = deviation / (1 - 2 * delta.square() / math.pi).sqrt()
    return delta / (1 - delta.square()).sqrt(), mean - scale * delta * math.sqrt(2 / math.pi), scale


def exposure_by_skew_normal(scores: Tensor, sample: Tensor) -> Tensor:
    """-log2 of the probability that a random candidate is no more perplexing, by a fitted skew-normal, in bits.

    Scores (V, R) and sample (V, N); unlike a rank it has no upper limit, and it is cut at 1,000 bits.
    """
    shape, location, scale = (part[:, None].cpu().numpy() for part in fit_skew_normal(sample))
    tail = skewnorm.logcdf(scores.double().cpu().numpy(), shape, location, scale) / -math.log(2)
    return torch.as_tensor(tail, device=scores.device).nan_to_num(posinf=1000.0).clamp(0, 1000).to(scores.dtype)


@dataclass
class Search:
    """The shortest-path search for one canary: a queue of (bits so far, symbols so far), the lightest first."""

    length: int
    queue: list[tuple[float, tuple[int, ...]]] = field(default_factory=lambda: [(0.0, ())])
    expanded: int = 0
    found: tuple[int, ...] | None = None

    def frontier(self, width: int, limit: int) -> list[tuple[float, tuple[int, ...]]]:
        """Takes up to `width` of the lightest beginnings to expand; none once the search has ended.

        It ends when the lightest entry is complete (no other can become lighter, as weights are not negative), or at the limit.
        """
        taken: list[tuple[float, tuple[int, ...]]] = []
        while self.found is None and len(taken) < min(width, limit - self.expanded) and self.queue:
            if len(self.queue[0][1]) == self.length:
                if not taken:
                    self.found = self.queue[0][1]
                break  # it is the lightest only if no beginning taken before it has a lighter end
            taken.append(heapq.heappop(self.queue))
        self.expanded += len(taken)
        return taken


Weights = Callable[[list[tuple[int, tuple[int, ...]]]], Tensor]


def shortest_paths(weights: Weights, lengths: Sequence[int], symbols: int, width: int, limit: int) -> list[Search]:
    """The likeliest candidate of each canary by a shortest-path search over beginnings, all canaries together.

    `weights` takes a list of (canary, beginning) and gives -log2 P(symbol | beginning), (entries, symbols), all of them not
    negative. `found` stays None where `limit` expansions did not suffice.
    """
    searches = [Search(length) for length in lengths]
    while True:
        batch = [(v, node) for v, search in enumerate(searches) for node in search.frontier(width, limit)]
        if not batch:
            return searches
        bits = weights([(v, beginning) for v, (_, beginning) in batch]).tolist()
        for (v, (so_far, beginning)), row in zip(batch, bits, strict=True):
            for symbol in range(symbols):
                heapq.heappush(searches[v].queue, (so_far + row[symbol], (*beginning, symbol)))


def next_symbol_bits(oracle: LogProbs, formats: Sequence[SecretFormat], nodes: list[tuple[int, tuple[int, ...]]]) -> Tensor:
    """-log2 P(symbol | words, beginning) of every symbol, (entries, S): one query each for texts that end in the symbol."""
    rows = []
    for v, beginning in nodes:
        form = formats[v]
        start = torch.cat([form.before, form.symbols[list(beginning)]])
        rows += [torch.cat([start, symbol[None]]) for symbol in form.symbols]
    lasts = torch.tensor([len(row) - 2 for row in rows], device=oracle.device)
    log_probs = oracle(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True))  # what follows a text cannot change it
    return (-log_probs.gather(1, lasts[:, None]) / math.log(2)).view(len(nodes), -1)


def attack(oracle: LogProbs, knowledge: Knowledge, config: SecretSharerConfig) -> Reconstruction:
    """Searches each canary's likeliest secret, decides what to claim, and ranks all candidates to measure exposure."""
    formats = knowledge.secret_format
    generator = config.generator(oracle.device)
    size, count = len(formats[0].symbols), len(formats)
    total = size ** formats[0].length
    candidates = [form.candidates() for form in formats]
    drawn = torch.randint(total, (count, config.samples), generator=generator, device=oracle.device)
    sample = torch.stack([log_perplexity(oracle(rows[pick])) for rows, pick in zip(candidates, drawn, strict=True)])

    before = oracle.queries
    secrets = torch.full((count, formats[0].length), -1, device=oracle.device, dtype=torch.long)
    if config.search == "shortest-path":
        done = shortest_paths(
            lambda nodes: next_symbol_bits(oracle, formats, nodes),
            [form.length for form in formats],
            size,
            config.width,
            config.expansions,
        )
        for v, search in enumerate(done):
            if search.found is not None:
                secrets[v] = torch.tensor(search.found, device=oracle.device)
    else:
        tried = torch.randint(total, (count, config.expansions * size), generator=generator, device=oracle.device)
        scores = torch.stack([log_perplexity(oracle(rows[pick])) for rows, pick in zip(candidates, tried, strict=True)])
        best = tried.gather(1, scores.argmin(dim=1, keepdim=True))
        secrets = best // size ** torch.arange(formats[0].length - 1, -1, -1, device=oracle.device) % size
    search_queries = oracle.queries - before

    # decide: how probable is each secret found, given the words before it?
    claimed = torch.zeros(count, device=oracle.device, dtype=torch.bool)
    for v in (secrets >= 0).all(dim=1).nonzero()[:, 0].tolist():
        form = formats[v]
        log_probs = oracle(torch.cat([form.before, form.symbols[secrets[v]]])[None])
        claimed[v] = log_perplexity(log_probs[:, -form.length :])[0] < -math.log2(max(config.confidence, 1e-30))

    # measure: the rank among all candidates needs every candidate, which the search does not
    perplexity = torch.stack([log_perplexity(oracle(rows)) for rows in candidates])  # (V, R)
    estimate = exposure_by_skew_normal(perplexity, sample).clamp(max=math.log2(total))
    return Reconstruction(
        {"secrets": secrets, "claimed": claimed, "perplexity": perplexity, "estimate": estimate},
        notes={
            "search_queries_per_canary": search_queries / count,
            "candidates_per_canary": total,
            "searches_finished": int((secrets >= 0).all(dim=1).sum()),
        },
    )


EXPERIMENT = Experiment(
    paper="carlini2019_secret_sharer",
    setting=LanguageModelSetting,
    config=SecretSharerConfig(),
    attack=attack,
    knowledge=("secret-format",),
    ablations={
        "without_canaries": Run(
            says="the same attack on a model trained on the same text without the canaries", grant={"canaries": False}
        ),
        "random_candidates": Run(
            says="no search: the likeliest of random candidates, as many as the search may query", config={"search": "random"}
        ),
    },
    claims={
        "exposure-rises-with-insertions": Claim(
            check=lambda m, runs: (
                m["rank_correlation"] >= 0.5 and m["exposure_most"] >= m["exposure_never"] + 5 and m["exposure_never"] <= 4
            ),
            ablation="without_canaries",
        ),
        "memorised-secrets-are-extracted": Claim(
            check=lambda m, runs: m["extraction_recall_most"] >= 0.75 and m["extraction_precision"] >= 0.9,
            ablation="random_candidates",
        ),
    },
    smoke={"expansions": 3, "samples": 20},
    paper_scale={"expansions": 100000, "width": 64, "samples": 10000},
)
