r"""GEIA: a language model that says the sentence behind an embedding.

Paper: "Sentence Embedding Leaks More Information than You Expect: Generative Embedding Inversion Attack to Recover the Whole
Sentence", Haoran Li, Mingshi Xu, Yangqiu Song, Findings of ACL 2023. https://arxiv.org/abs/2305.03010

Idea. Whoever holds the vector f(x) of a sentence x and may ask the encoder about sentences of their own can train a language
model to say the sentence. A linear layer aligns the vector with the width of a generative decoder and the result stands in the
place of the first word's vector; the decoder learns by teacher forcing to continue with the sentence, word by word, up to an
end mark. Earlier attacks treated words as labels (multi-label classification) and so recovered a set of words; a decoder
recovers them in order, and with each word knows which ones it has said already.

Mathematics. For a sentence $w_1 \dots w_T$ with embedding $f(x)$, aligned to the decoder's width by a linear map, the decoder
$\Phi$ is trained by teacher forcing on public sentences:

$$L = -\sum_{t=1}^{T} \log \Pr_\Phi\big(w_t \mid \mathrm{Align}(f(x)),\, w_1, \dots, w_{t-1}\big).$$

Deviations
1. The decoder is a small GPT trained from scratch on the public sentences with byte-pair pieces learnt from them: no
   pretrained model ships with this project. The authors' code fine-tunes GPT-2 or DialoGPT (`--decoder FOLDER` takes one) and
   has a variant with a randomly initialised GPT-2.
2. Learning rate, batch and epochs suit 6,000 sentences and a new model; the authors' code fine-tunes with AdamW at 3e-5
   in batches of 16 for 10 epochs.
3. The loss is the mean over the tokens of the sentence and its end mark. The authors' code also counts the padding after it.
4. Beam search adds logarithms of probabilities and keeps all beams of all sentences in one batch. The authors' code adds
   probabilities and follows one queue a sentence.
"""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..common import cache
from ..common.progress import progress
from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Embeddings, Knowledge, fingerprint
from .decoder import Pretrained, SmallGPT, Tokenizer, code_of
from .setting import EmbeddingSetting


@dataclass(frozen=True, kw_only=True)
class GEIAConfig(Config):
    """Decoder, training and decoding."""

    decoder: str = ""  # folder of a pretrained causal language model; empty: a small GPT from scratch; authors: DialoGPT-large
    width: int = 256  # width of the small GPT; it bounds how much of the embedding passes
    layers: int = 1  # layers of the small GPT
    heads: int = 8  # attention heads of the small GPT
    pieces: int = 1500  # size of the byte-pair vocabulary learnt from public texts
    length: int = 48  # longest sentence in tokens, end mark included; the authors' code: 40
    epochs: int = 4  # passes over the public sentences; the authors' code: 10
    batch_size: int = 32  # sentences a step; the authors' code: 16
    lr: float = 2e-3  # peak learning rate, falling to 0 along a cosine after 5 % warm-up; the authors' code: 3e-5
    weight_decay: float = 0.01  # AdamW's decay of the weights, as in the authors' code
    label_smoothing: float = 0.02  # share of a target's probability spread over all tokens, as in the authors' code
    beams: int = 5  # hypotheses kept while decoding, 1 for greedy; the authors' code: 5
    condition: bool = True  # False hides the embedding (zeros in its place): what is left is a language model (ablation)

    def __post_init__(self):
        require(self.width % self.heads == 0, f"width {self.width} must be a multiple of heads {self.heads}")
        require(min(self.layers, self.epochs, self.batch_size, self.beams) >= 1, "counts must be at least 1")
        require(self.length >= 2, "length must leave room for a token and the end mark")
        require(0 <= self.label_smoothing < 1, "label_smoothing must lie in [0, 1)")


class Inverter(nn.Module):
    """The aligning layer, Align(f(x)) in the paper, and the decoder."""

    def __init__(self, decoder: nn.Module, dimension: int, condition: bool = True):
        super().__init__()
        self.decoder, self.align, self.condition = decoder, nn.Linear(dimension, decoder.width), condition

    def first(self, vectors: Tensor) -> Tensor:
        """The first input (B, 1, W): the aligned embedding (B, D) in the place of a word's vector."""
        return self.align(vectors if self.condition else torch.zeros_like(vectors)).unsqueeze(1)

    def forward(self, vectors: Tensor, tokens: Tensor) -> Tensor:
        """Logits (B, T, vocabulary) for each of the tokens (B, T) from the embedding and the true tokens before it."""
        inputs = torch.cat([self.first(vectors), self.decoder.embed(tokens[:, :-1])], dim=1)  # (B, T, W)
        return self.decoder(inputs)[0]


def sequence_loss(logits: Tensor, tokens: Tensor, end: int, smoothing: float = 0.0) -> Tensor:
    """Teacher forcing: -log P(token t | embedding, tokens before t), mean over all tokens up to the first end mark.

    Logits (B, T, vocabulary), tokens (B, T) that are filled up with end marks.
    """
    before = (tokens == end).cumsum(dim=1) - (tokens == end).long()  # end marks strictly before
    target = tokens.masked_fill(before > 0, -100)
    return nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), label_smoothing=smoothing)


@torch.no_grad()
def decode(model: Inverter, vectors: Tensor, end: int, length: int, beams: int) -> Tensor:
    """The likeliest sentences found by beam search: token ids (B, length) for vectors (B, D), filled up with end marks.

    Finished hypotheses stay in the beam unchanged; at the end the best mean log-probability a token wins.
    """
    count = len(vectors)
    logits, past = model.decoder(model.first(vectors))
    scores = torch.zeros(count, 1, device=vectors.device)  # (B, k), k growing up to `beams`
    tokens = torch.zeros(count, 0, device=vectors.device, dtype=torch.long)  # (B k, t)
    done = torch.zeros(count, device=vectors.device, dtype=torch.bool)
    for t in range(length):
        step = logits[:, -1].log_softmax(-1)  # (B k, vocabulary)
        stay = torch.full_like(step[:1], -torch.inf)
        stay[:, end] = 0.0
        total = (scores.reshape(-1, 1) + torch.where(done[:, None], stay, step)).view(count, -1)
        scores, flat = total.topk(min(beams, total.shape[1]), dim=-1)
        old = total.shape[1] // step.shape[1]
        parents = (flat // step.shape[1] + old * torch.arange(count, device=flat.device)[:, None]).flatten()
        tokens = torch.cat([tokens[parents], (flat % step.shape[1]).reshape(-1, 1)], dim=1)
        done = tokens[:, -1] == end
        if bool(done.all()) or t + 1 == length:
            break
        past = [(keys[parents], values[parents]) for keys, values in past]
        logits, past = model.decoder(model.decoder.embed(tokens[:, -1:]), past)
    k, size = scores.shape[1], tokens.shape[1]
    sizes = (((tokens == end).cumsum(1) == 0).sum(1) + 1).clamp(max=size).view(count, k)
    best = (scores / sizes).argmax(dim=1) + k * torch.arange(count, device=scores.device)
    return nn.functional.pad(tokens[best], (0, length - size), value=end)


def train(model: Inverter, tokens: Tensor, vectors: Tensor, end: int, config: GEIAConfig, generator: torch.Generator) -> Tensor:
    """Trains on public token ids (P, T) and vectors (P, D); returns the loss of each epoch (epochs,), nats a token."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    steps = config.epochs * -(-len(tokens) // config.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.lr, total_steps=steps, pct_start=0.05, anneal_strategy="cos", cycle_momentum=False
    )
    lengths = ((tokens == end).cumsum(1) == 0).sum(1) + 1
    losses = torch.zeros(config.epochs, device=tokens.device)
    model.train()
    for epoch in progress(range(config.epochs), "training the decoder", config.epochs):
        order = torch.randperm(len(tokens), generator=generator, device=generator.device).to(tokens.device)
        for rows in order.split(config.batch_size):
            width = int(lengths[rows].max())
            loss = sequence_loss(model(vectors[rows], tokens[rows, :width]), tokens[rows, :width], end, config.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses[epoch] += loss.detach() * len(rows) / len(tokens)
    return losses


def fit(public: Sequence[str], vectors: Tensor, config: GEIAConfig) -> tuple[Inverter, Tokenizer, Tensor, float]:
    """The trained inverter, its tokenizer, the loss of each epoch and the seconds of training; kept on disk by its inputs."""
    device = vectors.device
    tokenizer = Tokenizer(public, config.pieces, config.decoder)
    if config.decoder:
        decoder: nn.Module = Pretrained(config.decoder)
    else:
        decoder = SmallGPT(tokenizer.size, config.width, config.layers, config.heads, config.length)
    model = Inverter(decoder, vectors.shape[1], config.condition).to(device)
    tokens = tokenizer.encode(public, config.length, device)

    def build() -> dict[str, Tensor]:
        generator, start = config.generator(device), time.perf_counter()
        if not config.decoder:
            model.decoder.reset(generator)
        with torch.no_grad():
            model.align.weight.normal_(0, 1, generator=generator)  # vectors have unit length, so the prefix has unit variance
            model.align.bias.zero_()
        losses = train(model, tokens, vectors, tokenizer.end, config, generator)
        seconds = torch.tensor(time.perf_counter() - start, device=device)
        weights = {f"model.{name}": value.clone() for name, value in model.state_dict().items()}  # tied ones are apart on disk
        return {**weights, "losses": losses, "seconds": seconds}

    # the key holds this file's training code, and not how the result is decoded: neither greedy search nor a new claim retrains
    code = code_of(Inverter, sequence_loss, train, fit)
    start_weights = fingerprint(decoder) if config.decoder else ""
    key = [dataclasses.replace(config, beams=1), code, start_weights, tokens, vectors]
    kept = cache.cached("geia", "implementations.embedding.decoder", key, build, device)
    model.load_state_dict({name[6:]: value for name, value in kept.items() if name.startswith("model.")})
    return model.eval(), tokenizer, kept["losses"], float(kept["seconds"])


def attack(oracle: Embeddings, knowledge: Knowledge, config: GEIAConfig) -> Reconstruction:
    """A sentence for each observed vector, by a decoder trained on public sentences and the encoder's vectors of them."""
    public = list(knowledge.public_texts)
    model, tokenizer, losses, seconds = fit(public, oracle(public), config)
    batches = oracle.observed.split(256)
    tokens = torch.cat([decode(model, batch, tokenizer.end, config.length, config.beams) for batch in batches])
    return Reconstruction(
        tokenizer.decode(tokens),
        history={"loss": losses.tolist()},
        notes={"training_seconds": seconds, "parameters": sum(p.numel() for p in model.parameters())},
    )


EXPERIMENT = Experiment(
    paper="geia",
    setting=EmbeddingSetting,
    config=GEIAConfig(),
    attack=attack,
    knowledge=("public-texts", "encoder-queries"),
    ablations={
        "no_embedding": Run(says="the decoder never sees the embedding: a language model alone", config={"condition": False})
    },
    variants={"greedy": Run(says="greedy decoding in place of beam search", config={"beams": 1})},
    claims={
        "order-beats-set": Claim(
            check=lambda m, runs: (
                m["bleu"] >= runs["multi_label"]["bleu"] + 0.2 and m["rouge_l"] >= runs["multi_label"]["rouge_l"] + 0.15
            ),
            ablation="no_embedding",
        ),
        "beats-retrieval": Claim(
            check=lambda m, runs: m["token_f1"] >= runs["nearest_public"]["token_f1"] + 0.05,
            ablation="no_embedding",
        ),
        "details-leak": Claim(
            check=lambda m, runs: m["name_recovery"] >= runs["nearest_public"]["name_recovery"] + 0.1,
            ablation="no_embedding",
        ),
        "words-beat-classification": Claim(
            check=lambda m, runs: m["token_f1"] > runs["multi_label"]["token_f1"],
            ablation="no_embedding",
            not_reproduced="On 6,000 sentences a linear classifier of words learns faster than a decoder from scratch, which "
            "must learn the language as well and always commits to some name; the paper fine-tunes a pretrained decoder on "
            "whole data sets.",
        ),
    },
    smoke={"epochs": 1, "width": 32, "heads": 2, "pieces": 400, "beams": 2},
    paper_scale={"epochs": 10, "batch_size": 16, "lr": 3e-5, "length": 40},
)
