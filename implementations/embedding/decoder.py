"""A small causal language model with the interface that decoding from embeddings needs, and the same around pretrained ones.

Both have `width`, `embed(tokens)` and `forward(inputs, past) -> (logits, past)`, where `inputs` are vectors, not tokens, so
that a sentence's embedding can stand in the place of a word. `past` is a list of (keys, values) a layer.
"""

import inspect
import math
import textwrap
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..common.provenance import essential

Past = list[tuple[Tensor, Tensor]]


class Block(nn.Module):
    """A transformer layer: attention over the past, then a feed-forward network, each after a layer norm (as in GPT-2)."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (B, T, W), past keys and values (B, H, S, W / H); only T = 1 may follow a past."""
        split = (*x.shape[:2], self.heads, -1)
        q, k, v = (part.view(split).transpose(1, 2) for part in self.qkv(self.norm_1(x)).chunk(3, dim=-1))  # (B, H, T, W / H)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=past is None)
        x = x + self.drop(self.out(mixed.transpose(1, 2).flatten(2)))
        return x + self.drop(self.mlp(self.norm_2(x))), (k, v)


class SmallGPT(nn.Module):
    """A GPT-2 in miniature: learnt positions, tied input and output words."""

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, length: int, dropout: float = 0.0):
        super().__init__()
        self.width, self.length = width, length
        self.words, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm, self.drop = nn.LayerNorm(width), nn.Dropout(dropout)

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Draws all weights anew as GPT-2 does: N(0, 0.02²), smaller where layers add up; biases 0, norms 1."""
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                deep = name.endswith(("out.weight", "mlp.2.weight"))
                parameter.normal_(0, 0.02 / math.sqrt(2 * len(self.blocks)) if deep else 0.02, generator=generator)
            else:
                parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)

    def embed(self, tokens: Tensor) -> Tensor:
        """Vectors (B, T, W) of tokens (B, T)."""
        return self.words(tokens)

    def forward(self, inputs: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        """Next-token logits (B, T, vocabulary) of input vectors (B, T, W), and the past with them."""
        seen = past[0][0].shape[2] if past else 0
        places = torch.arange(seen, seen + inputs.shape[1], device=inputs.device)
        x = self.drop(inputs + self.positions(places))
        kept = []
        for index, block in enumerate(self.blocks):
            x, found = block(x, past[index] if past else None)
            kept.append(found)
        return nn.functional.linear(self.norm(x), self.words.weight), kept


class Pretrained(nn.Module):
    """A causal language model of the `transformers` library (GPT-2, DialoGPT ...) from a folder, with the same interface."""

    def __init__(self, folder: str):
        super().__init__()
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        self.width = self.model.get_input_embeddings().weight.shape[1]

    def embed(self, tokens: Tensor) -> Tensor:
        """Vectors (B, T, W) of tokens (B, T)."""
        return self.model.get_input_embeddings()(tokens)

    def forward(self, inputs: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        """Next-token logits (B, T, vocabulary) of input vectors (B, T, W), and the past with them."""
        from transformers import DynamicCache

        cache = DynamicCache()
        for index, (keys, values) in enumerate(past or []):
            cache.update(keys, values, index)
        out = self.model(inputs_embeds=inputs, past_key_values=cache, use_cache=True)
        return out.logits, [(layer.keys, layer.values) for layer in out.past_key_values.layers]


class Tokenizer:
    """Texts to token ids and back. `end` marks the end of a text, and fills up shorter ones."""

    def __init__(self, texts: Sequence[str] = (), size: int = 1500, folder: str = ""):
        """Byte-pair pieces learnt from the texts given (digits apart), or the tokenizer in a folder."""
        if folder:
            from transformers import AutoTokenizer

            own = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._encode = lambda text: own.encode(text, add_special_tokens=False)
            self._decode, self.end, self.size = own.decode, own.eos_token_id, len(own)
            return
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        bpe.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False)
        bpe.train_from_iterator(texts, trainer)
        self._encode, self._decode = (lambda text: bpe.encode(text).ids), bpe.decode
        self.end, self.size = bpe.token_to_id("<end>"), bpe.get_vocab_size()

    def encode(self, texts: Sequence[str], length: int, device: torch.device | str) -> Tensor:
        """Token ids (B, length), each text cut where needed, ended and filled up with `end`."""
        rows = [self._encode(text)[: length - 1] for text in texts]
        return torch.tensor([row + [self.end] * (length - len(row)) for row in rows], device=device, dtype=torch.long)

    def decode(self, tokens: Tensor) -> list[str]:
        """Texts of token ids (B, T), each up to its first `end`."""
        return [self._decode(row[: row.index(self.end)] if self.end in row else row).strip() for row in tokens.tolist()]


def code_of(*parts: Callable | type) -> list[str]:
    """The source of functions and classes without comments and layout: a key for what they compute."""
    return [essential(textwrap.dedent(inspect.getsource(part))) for part in parts]
