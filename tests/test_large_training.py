"""Training of large networks: schedules, batches shared among processes, and two processes that learn what one learns."""

import functools
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from implementations.common import large_training
from implementations.common.large_training import Plan, batches, cached_large_module, launched, learning_rate, train_large
from implementations.common.training import accuracy, seeded_weights

ROOT = Path(__file__).resolve().parents[1]
PLAN = Plan(epochs=3, batch=8, lr=0.1, mirror=True)


def task(count: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (count, 1, 4, 4) whose class, 0 or 1, is whether the upper or the lower half is bright."""
    generator = torch.Generator("cpu").manual_seed(0)
    labels = torch.arange(count, device="cpu") % 2
    images = 0.3 * torch.rand(count, 1, 4, 4, generator=generator, device="cpu")
    images[labels == 0, :, :2] += 0.7
    images[labels == 1, :, 2:] += 0.7
    return images, labels


def small_network() -> nn.Module:
    with seeded_weights(3):
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten() for value in network.state_dict().values()])


def test_schedules_by_hand():
    plan = Plan(warmup=0.2, schedule="cosine")
    assert [learning_rate(step, 10, plan) for step in (0, 1)] == pytest.approx([1 / 3, 2 / 3])
    assert learning_rate(5, 10, plan) == pytest.approx(0.5)
    steps = Plan(warmup=0.0, schedule="steps")
    assert [learning_rate(step, 100, steps) for step in (0, 74, 75, 90)] == [1.0, 1.0, 0.1, 0.01]
    assert learning_rate(99, 100, Plan(warmup=0.0, schedule="constant")) == 1.0


def test_processes_share_a_batch_and_see_together_what_one_process_sees(monkeypatch):
    def epoch():
        return list(batches(20, Plan(batch=6), torch.Generator("cpu").manual_seed(1)))

    alone = epoch()
    assert len(alone) == 3, "an incomplete last batch is left out"
    shares = []
    for rank in range(2):
        monkeypatch.setattr(large_training, "place", lambda rank=rank: (rank, 2))
        shares.append(epoch())
    for one, left, right in zip(alone, *shares, strict=True):
        assert torch.equal(torch.stack([left[0], right[0]], dim=1).flatten(), one[0])
        assert torch.equal(torch.stack([left[1], right[1]], dim=1).flatten(), one[1])
    assert 0 < torch.cat([mirrored for _, mirrored in alone]).float().mean() < 1
    assert not any(mirrored.any() for _, mirrored in batches(20, Plan(batch=6, mirror=False), torch.Generator("cpu")))


@pytest.mark.parametrize("plan", [PLAN, Plan(epochs=3, batch=8, lr=0.02, optimizer="adamw", schedule="steps")])
def test_it_learns_and_repeats(plan):
    images, labels = task()
    first, second = small_network(), small_network()
    state = torch.get_rng_state()
    train_large(first, images, labels, plan, 0, "a test")
    assert torch.equal(torch.get_rng_state(), state), "the global random state is left as it was"
    train_large(second, images, labels, plan, 0, "a test")
    assert torch.equal(weights(first), weights(second))
    before, after = (F.cross_entropy(network(images), labels).item() for network in (small_network(), first))
    assert after < 0.1 < 0.5 < before
    assert not first.training
    assert first[0].weight.is_contiguous(), "the caller's network keeps its memory format"


def test_fewer_pictures_than_a_batch_still_teach():
    images, labels = task(4)
    network = small_network()
    train_large(network, images, labels, Plan(epochs=1, batch=64), 0, "a test")
    assert not torch.equal(weights(network), weights(small_network()))


def test_a_loss_of_ones_own():
    images, labels = task()
    network = small_network()
    train_large(network, images, labels, PLAN, 0, "a test", loss=lambda model, x, y: 0.0 * model(x).sum())
    with_decay_only = (weights(network) / weights(small_network())).median()
    assert 0.99 < with_decay_only < 1.0


def test_compile_is_used_and_changes_nothing(monkeypatch):
    """With a backend that needs no compiler; the default one was run by hand."""
    calls = []
    real = torch.compile

    def compile_eagerly(model):
        calls.append(model)
        return real(model, backend="eager")

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    images, labels = task()
    plain, compiled = small_network(), small_network()
    train_large(plain, images, labels, PLAN, 0, "a test")
    train_large(compiled, images, labels, Plan(**{**PLAN.__dict__, "compile": True}), 0, "a test")
    assert len(calls) == 1
    torch.testing.assert_close(weights(compiled), weights(plain))


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimizer": "lion"},
        {"schedule": "up"},
        {"precision": "int8"},
        {"epochs": 0},
        {"warmup": 1.0},
        {"label_smoothing": 1.0},
    ],
)
def test_rejects_impossible_plans(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Plan(**wrong)


def test_without_torchrun_there_is_one_process(monkeypatch, tmp_path):
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path))
    images, labels = task()
    trained = []

    def train(network):
        trained.append(network)
        train_large(network, images, labels, PLAN, 0, "a test")

    get = functools.partial(cached_large_module, "tiny", "implementations.common.large_training", [1], small_network, train)
    with launched("cpu") as device:
        assert large_training.place() == (0, 1)
        first, second = get(device), get(device)
    assert len(trained) == 1, "the second time it comes from the cache"
    assert torch.equal(weights(first), weights(second))


PROGRAM = """
    import sys, torch
    sys.path.insert(0, {tests!r})
    from test_large_training import PLAN, small_network, task
    from implementations.common.large_training import cached_large_module, launched, place, train_large

    with launched("cpu") as device:
        rank, world = place()
        images, labels = task()
        helped = []

        def train(network):
            helped.append(1)
            train_large(network, images, labels, PLAN, 0, "a test")

        def get(key):
            with torch.no_grad():
                return cached_large_module("tiny", "implementations.common.large_training", key, small_network, train, device)

        first, second = get([2]), get([2])
        torch.save({{"world": world, "helped": len(helped), "first": first.state_dict(), "second": second.state_dict()}},
                   f"{out}/{{rank}}.pt")
"""


def test_one_process_of_torchrun_learns_the_same(monkeypatch):
    """DistributedDataParallel over gloo, alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in place.items():
        monkeypatch.setenv(name, str(value))
    images, labels = task()
    alone, wrapped = small_network(), small_network()
    train_large(alone, images, labels, PLAN, 0, "a test")
    used = []
    real = large_training.DistributedDataParallel
    monkeypatch.setattr(large_training, "DistributedDataParallel", lambda *args, **kw: used.append(1) or real(*args, **kw))
    with launched("cpu"):
        train_large(wrapped, images, labels, PLAN, 0, "a test")
    assert used
    torch.testing.assert_close(weights(wrapped), weights(alone))
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_two_processes_of_torchrun_learn_what_one_process_learns(tmp_path):
    """DistributedDataParallel over gloo. All processes end with the same weights, those that one process would have learned;
    the second call finds them in the cache and nobody trains."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM.format(tests=str(ROOT / "tests"), out=str(tmp_path))))
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "INVERSION_ATLAS_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    images, labels = task()
    alone = small_network()
    train_large(alone, images, labels, PLAN, 0, "a test")
    for rank in range(2):
        saved = torch.load(tmp_path / f"{rank}.pt")
        assert (saved["world"], saved["helped"]) == (2, 1)
        for call in ("first", "second"):
            learned = torch.cat([value.flatten() for value in saved[call].values()])
            torch.testing.assert_close(learned, weights(alone))
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_mixed_precision_learns_on_a_gpu(precision):
    images, labels = (part.cuda() for part in task())
    network = small_network().cuda()
    train_large(network, images, labels, Plan(epochs=3, batch=8, lr=0.1, precision=precision), 0, "a test")
    assert accuracy(network, images, labels) > 0.95
    assert all(value.dtype == torch.float32 for value in network.state_dict().values())
