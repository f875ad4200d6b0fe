"""Training of large classifiers: mixed precision, torch.compile, and several GPUs under torchrun.

    torchrun --nproc-per-node=8 <program>

starts the program once a GPU. `launched()` then joins the processes; every step of `train_large` shares its batch among them
(DistributedDataParallel), and `cached_large_module` lets the first process read and write the cache and hands its weights to
the others, so that all go on with the same network. Started without torchrun, the same code runs in one process.
"""

import contextlib
import copy
import datetime
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from ..experiment import require
from .cache import cached_module
from .progress import progress

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SCHEDULES: dict[str, Callable[[float], float]] = {  # share of the whole training that is over, 0 to 1, to a factor of lr
    "constant": lambda done: 1.0,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "steps": lambda done: 1.0 if done < 0.75 else 0.1 if done < 0.9 else 0.01,
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a large network is trained. Defaults are KED-MI's for its targets, but for the schedule, which there is constant."""

    epochs: int = 50  # passes over the pictures; KED-MI: 50 for VGG-16, 40 for IR-152; PPA: 100
    batch: int = 64  # pictures a step, over all processes; PPA: 128
    optimizer: str = "sgd"  # sgd (momentum 0.9) or adamw
    lr: float = 1e-2  # highest learning rate; PPA: 1e-3, with Adam
    weight_decay: float = 1e-4  # of every parameter; PPA: 0
    warmup: float = 0.02  # share of the steps in which the learning rate rises linearly
    schedule: str = "cosine"  # constant, cosine, or steps: a tenth after 75% and again after 90%, as in PPA
    label_smoothing: float = 0.0  # of the cross-entropy, 0 to below 1
    mirror: bool = True  # each picture is mirrored in every second epoch on average; not for digits
    precision: str = "bf16"  # of the forward pass on a GPU: fp32, bf16, or fp16 with a scaled loss; a CPU computes in fp32
    compile: bool = False  # torch.compile the network

    def __post_init__(self):
        require(self.optimizer in ("sgd", "adamw"), f"optimizer must be sgd or adamw, not {self.optimizer!r}")
        require(self.schedule in SCHEDULES, f"schedule must be one of {', '.join(SCHEDULES)}, not {self.schedule!r}")
        require(self.precision in PRECISIONS, f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        require(min(self.epochs, self.batch) >= 1, "epochs and batch must be at least 1")
        require(0 <= self.warmup < 1, f"warmup must lie in [0, 1), not {self.warmup}")
        require(0 <= self.label_smoothing < 1, f"label_smoothing must lie in [0, 1), not {self.label_smoothing}")


# --- processes


@contextlib.contextmanager
def launched(device: torch.device | str = "cuda") -> Iterator[torch.device]:
    """Joins the processes that torchrun started, and gives the device of this one; outside torchrun only gives the device."""
    device = torch.device(device)
    if "WORLD_SIZE" not in os.environ:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    patience = datetime.timedelta(days=1)  # others wait while the first process waits for the cache
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def place() -> tuple[int, int]:
    """This process's number, from 0, and how many there are; (0, 1) outside `launched`."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def cached_large_module(
    name: str,
    module: str,
    key: Any,
    make: Callable[[], nn.Module],
    train: Callable[[nn.Module], None],
    device: torch.device | str,
) -> nn.Module:
    """`cached_module`, whose `train` may use all processes: the first alone reads and writes the cache.

    All processes call it with the same arguments and get the same weights. Whether the cache has them is only known to the
    first, which tells the others whether they must help to train.
    """
    rank, world = place()
    if world == 1:
        return cached_module(name, module, key, make, train, device)
    if rank == 0:
        asked = []

        def train_with_others(network: nn.Module) -> None:
            asked.append(_tell(True, device))
            train(network)

        network = cached_module(name, module, key, make, train_with_others, device)
        if not asked:
            _tell(False, device)
    else:
        network = make().to(device)
        if _tell(False, device):
            with torch.enable_grad():  # as cached_module does: the caller may be evaluating
                train(network)
    for value in network.state_dict().values():
        dist.broadcast(value, src=0)
    return network.eval()


def _tell(needed: bool, device: torch.device | str) -> bool:
    """What the first process says, in all of them."""
    word = torch.tensor([int(needed)], device=device)
    dist.broadcast(word, src=0)
    return bool(word.item())


# --- training


def learning_rate(step: int, steps: int, plan: Plan) -> float:
    """The factor of `plan.lr` at a step of 0 to steps - 1: a linear rise, then the schedule."""
    rise = round(plan.warmup * steps)
    return (step + 1) / (rise + 1) if step < rise else SCHEDULES[plan.schedule](step / steps)


def batches(count: int, plan: Plan, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch: this process's share of each batch, as indices (b,) on the CPU, and which of them to mirror (b,).

    All processes draw the same permutation and take every world-th of each batch, so that together they see what one process
    would. An incomplete last batch is left out, since batch normalisation needs company.
    """
    rank, world = place()
    order = torch.randperm(count, generator=generator, device="cpu")
    mirrored = torch.rand(count, generator=generator, device="cpu") < (0.5 if plan.mirror else 0.0)
    for start in range(0, max(1, count // plan.batch) * plan.batch, plan.batch):
        chosen = order[start : start + plan.batch][rank::world]
        yield chosen, mirrored[chosen]


def train_large(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    plan: Plan,
    seed: int,
    name: str,
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None,
) -> None:
    """Trains a classifier in place on images (N, C, S, S) in [0, 1] and labels (N,), all on this process's device.

    `loss(network, x, y)` replaces the cross-entropy where a defense has its own; in several processes it must get all it needs
    from calling the network.

    In several processes all must call it, with the same network, pictures and seed. Batch normalisation uses each process's
    share of the batch: 16 pictures a process or more are wise. Raises ValueError where a batch cannot be shared evenly.
    """
    rank, world = place()
    require(plan.batch % world == 0, f"a batch of {plan.batch} cannot be shared evenly by {world} processes")
    require(len(images) >= 2 * world, f"{len(images)} pictures are too few for {world} processes")
    device, on_gpu = images.device, images.is_cuda
    trained = copy.deepcopy(network).to(memory_format=torch.channels_last)  # the caller's keeps its own memory format
    model: nn.Module = trained
    if dist.is_initialized():
        model = DistributedDataParallel(trained, device_ids=[device.index] if on_gpu else None)
    if plan.compile:
        model = torch.compile(model)
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    if plan.optimizer == "sgd":
        optimizer = torch.optim.SGD(parameters, plan.lr, momentum=0.9, weight_decay=plan.weight_decay)
    else:
        optimizer = torch.optim.AdamW(parameters, plan.lr, weight_decay=plan.weight_decay)
    steps = plan.epochs * max(1, len(images) // plan.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, steps, plan))
    scaler = torch.amp.GradScaler(device.type, enabled=on_gpu and plan.precision == "fp16")
    autocast = torch.autocast(device.type, PRECISIONS[plan.precision], enabled=on_gpu and plan.precision != "fp32")
    generator = torch.Generator("cpu").manual_seed(seed)
    model.train()
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.manual_seed(seed + rank)  # dropout
        for _ in progress(range(plan.epochs) if rank == 0 else [None] * plan.epochs, f"training {name}"):
            for chosen, mirrored in batches(len(images), plan, generator):
                chosen, mirrored = chosen.to(device), mirrored.to(device)
                x, y = images[chosen], labels[chosen]
                x = torch.where(mirrored[:, None, None, None], x.flip(3), x).contiguous(memory_format=torch.channels_last)
                with autocast:
                    value = loss(model, x, y) if loss else F.cross_entropy(model(x), y, label_smoothing=plan.label_smoothing)
                optimizer.zero_grad()
                scaler.scale(value).backward()
                scaler.step(optimizer)
                scaler.update()
                schedule.step()
    network.load_state_dict(trained.state_dict())
    network.eval()
