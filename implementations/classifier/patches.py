"""A vision transformer that looks at some of its patches only: the rest is left out of every block."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .networks import SmallViT


class Watch:
    """Which patches are seen, and what entered the last block."""

    def __init__(self) -> None:
        self.kept: Tensor | None = None  # (B, K) patches that are seen, None for all
        self.tokens: Tensor | None = None  # (B, 1 + K, D) before the last block, class token first

    def select(self, _: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        if self.kept is None:
            return None
        cls, patches = inputs[0].split([1, inputs[0].shape[1] - 1], dim=1)
        chosen = patches.gather(1, self.kept[:, :, None].expand(-1, -1, patches.shape[2]))
        return (torch.cat([cls, chosen], dim=1),)

    def remember(self, _: nn.Module, inputs: tuple[Tensor]) -> None:
        self.tokens = inputs[0].detach()


@contextlib.contextmanager
def watched_patches(model: nn.Module) -> Iterator[Watch]:
    """Until the block ends, `model` (a SmallViT) sees the patches in the watch's `kept` alone, with their own positions."""
    if not isinstance(model, SmallViT):
        raise ValueError(f"only a vision transformer can leave patches out, not a {type(model).__name__}")
    watch = Watch()
    hooks = [
        model.blocks[0].register_forward_pre_hook(watch.select),
        model.blocks[-1].register_forward_pre_hook(watch.remember),
    ]
    yield watch
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def class_attention(model: SmallViT, tokens: Tensor) -> Tensor:
    """Attention of the class token to each patch (B, K) in the last block, mean over heads, for its input (B, 1 + K, D)."""
    return model.blocks[-1].attend(tokens)[1].mean(dim=1)[:, 0, 1:]


def patch_mask(kept: Tensor, side: int, patch: int) -> Tensor:
    """1 on the pixels of kept patches (B, K) of a side x side grid, 0 elsewhere: (B, 1, side * patch, side * patch)."""
    grid = torch.zeros((len(kept), side * side), device=kept.device).scatter(1, kept, 1.0).view(-1, 1, side, side)
    return grid.repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)


def visible_patches(images: Tensor, patch: int) -> Tensor:
    """Indices (B, K) of the patches of pictures (B, c, s, s) that are not black, K that of the fullest picture."""
    blocks = images.unfold(2, patch, patch).unfold(3, patch, patch)  # (B, c, side, side, patch, patch)
    lit = (blocks > 0).any(dim=5).any(dim=4).any(dim=1).flatten(1)
    order = lit.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    return order[:, : int(lit.sum(dim=1).max().item())]
