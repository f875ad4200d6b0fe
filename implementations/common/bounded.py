"""A batch through a large frozen network within a bound on memory: in pieces, which are run once more for their gradient.

Attacks search all classes and restarts as one batch. What autograd keeps of such a batch grows with it; a picture through
ResNet-152 leaves hundreds of megabytes. Here the batch is cut into as large pieces as the bound allows and each piece is
checkpointed: only its input is kept, and the pass is repeated when its gradient is asked for. Values and gradients are those
of the undivided batch, since a network in evaluation mode treats every picture by itself.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

FREE_SHARE = 0.5  # of the memory free on a GPU that activations may take
ELSEWHERE = 4 * 2**30  # bytes that they may take on other devices


def allowance(device: torch.device) -> int:
    """Bytes that activations may take on a device, where no bound was given."""
    return int(FREE_SHARE * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else ELSEWHERE


def kept_bytes(network: nn.Module, x: Tensor) -> int:
    """Bytes that autograd keeps of one pass of x (B, ...) until its gradient is taken; parameters and buffers apart."""
    own = {value.untyped_storage().data_ptr() for value in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        result = network(x.detach().clone().requires_grad_(True))  # held until all is counted, so that no address is used twice
    total = sum(kept.values())
    del result
    return total


def watched(network: nn.Module) -> bool:
    """Whether somebody listens to layers of the network, such as statistics over a batch, and so must hear whole batches."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def bounded(network: nn.Module, x: Tensor, limit: int | None = None) -> Tensor:
    """`network(x)` for x (B, ...), with at most about `limit` bytes of activations at a time (None: see `allowance`).

    In training mode, where pictures of a batch depend on each other, and while hooks listen to its layers, a batch stays whole.
    """
    if network.training or len(x) < 2 or watched(network):
        return network(x)
    limit = allowance(x.device) if limit is None else limit
    size = max(1, limit // max(1, kept_bytes(network, x[:1])))
    if len(x) <= size:
        return network(x)
    again = torch.is_grad_enabled() and x.requires_grad
    return torch.cat(
        [
            checkpoint(network, piece, use_reentrant=False, preserve_rng_state=False) if again else network(piece)
            for piece in x.split(size)
        ]
    )
