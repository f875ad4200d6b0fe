"""The set-prediction baseline of embedding inversion: a linear model says which words of the public vocabulary occur."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..common import cache, texts


def predict_words(
    public: Sequence[str],
    vectors: Tensor,
    observed: Tensor,
    generator: torch.Generator,
    epochs: int = 25,
    batch_size: int = 256,
    lr: float = 2e-2,
    threshold: float = 0.5,
) -> list[str]:
    """Multi-label classification: words whose probability exceeds the threshold, the likeliest first, one text a vector.

    One linear layer with a sigmoid a word, trained with binary cross-entropy on public texts and their vectors (P, D), then
    applied to the observed vectors (V, D).
    """
    counts = Counter(word for text in public for word in set(texts.words(text)))
    vocabulary = [word for word, count in sorted(counts.items()) if count > 1]
    places = {word: place for place, word in enumerate(vocabulary)}
    device = vectors.device
    occurs = torch.zeros(len(public), len(vocabulary), device=device)
    for row, text in enumerate(public):
        for word in set(texts.words(text)) & places.keys():
            occurs[row, places[word]] = 1

    def build() -> dict[str, Tensor]:
        linear = nn.Linear(vectors.shape[1], len(vocabulary)).to(device)
        nn.init.zeros_(linear.weight)
        nn.init.constant_(linear.bias, -4.0)  # most words do not occur
        optimizer = torch.optim.Adam(linear.parameters(), lr=lr)
        for _ in range(epochs):
            order = torch.randperm(len(public), generator=generator, device=generator.device).to(device)
            for rows in order.split(batch_size):
                loss = nn.functional.binary_cross_entropy_with_logits(linear(vectors[rows]), occurs[rows], reduction="sum")
                optimizer.zero_grad()
                (loss / len(rows)).backward()
                optimizer.step()
        return dict(linear.state_dict())

    key = [list(public), vectors, epochs, batch_size, lr, generator.initial_seed()]
    found = cache.cached("word-set", "implementations.embedding.word_set", key, build, device)
    scores = (observed @ found["weight"].T + found["bias"]).sigmoid()
    return [
        " ".join(vocabulary[word] for word in row.argsort(descending=True).tolist() if row[word] > threshold) for row in scores
    ]
