"""Batches in pieces: values and gradients as undivided, activations within the bound."""

import pytest
import torch
from torch import nn

from implementations.classifier.large_networks import build_large
from implementations.common.bounded import allowance, bounded, kept_bytes

CPU = torch.device("cpu")


@pytest.fixture
def network():
    generator = torch.Generator(CPU).manual_seed(3)
    made = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, device=CPU),
        nn.BatchNorm2d(8, device=CPU),
        nn.GELU(),
        nn.Flatten(),
        nn.LazyLinear(5, device=CPU),
    )
    made(torch.zeros(2, 3, 8, 8, device=CPU))
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, device=CPU) / 4
    return made.eval().requires_grad_(False)


@pytest.fixture
def pictures():
    return torch.rand(11, 3, 8, 8, generator=torch.Generator(CPU).manual_seed(4), device=CPU)


class Passes:
    """Lengths of the batches that reach a network; it is no hook."""

    def __init__(self, network):
        self.lengths, self.inner = [], network.forward
        network.forward = self

    def __call__(self, x):
        self.lengths.append(len(x))
        return self.inner(x)


def gradient(network, x, limit):
    x = x.clone().requires_grad_(True)
    out = bounded(network, x, limit)
    return out.detach(), torch.autograd.grad(out.square().sum(), x)[0]


def test_pieces_give_the_values_and_gradients_of_the_whole(network, pictures):
    whole, pieces = gradient(network, pictures, 10**9), gradient(network, pictures, 4 * kept_bytes(network, pictures[:1]))
    torch.testing.assert_close(pieces, whole)


def test_pieces_are_as_large_as_the_bound_allows_and_are_run_again_for_the_gradient(network, pictures):
    one = kept_bytes(network, pictures[:1])
    passes = Passes(network)
    gradient(network, pictures, 4 * one + 1)
    assert passes.lengths == [1, 4, 4, 3, 3, 4, 4]  # one picture to measure, three pieces forward, the same backward
    passes.lengths.clear()
    with torch.no_grad():
        bounded(network, pictures, 4 * one)
    assert passes.lengths == [1, 4, 4, 3]
    passes.lengths.clear()
    gradient(network, pictures, 1)  # less than a picture needs: one at a time
    assert max(passes.lengths) == 1
    passes.lengths.clear()
    gradient(network, pictures, 12 * one)
    assert passes.lengths == [1, 11]


def test_what_is_kept_stays_within_the_bound(network, pictures):
    def kept(limit):
        held = {}

        def keep(value):
            held[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            return value

        x = pictures.clone().requires_grad_(True)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            out = bounded(network, x, limit)
        assert out.requires_grad
        return sum(held.values())

    one = kept_bytes(network, pictures[:1])
    assert one >= 8 * 64 * 4  # what GELU reads
    assert kept_bytes(network, pictures) == 11 * one
    assert kept(2 * one) <= pictures.nbytes + 11 * 5 * 4 < 0.5 * kept(10**9)


def test_a_batch_stays_whole_while_somebody_listens_or_training_mixes_it(network, pictures):
    heard = []
    hook = network[1].register_forward_pre_hook(lambda _, inputs: heard.append(len(inputs[0])))
    gradient(network, pictures, 1)
    hook.remove()
    assert heard == [11]
    passes = Passes(network.train())
    gradient(network, pictures, 1)
    assert passes.lengths == [11]


def test_large_targets_work_in_pieces():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = build_large("resnet152", 3, 32, 4).to(CPU).double().eval().requires_grad_(False)
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator(CPU).manual_seed(6), device=CPU, dtype=torch.float64)
    outcome = []
    for memory in (10**12, 1):
        network.memory = memory
        y = x.clone().requires_grad_(True)
        logits = network(y)
        outcome.append((logits.detach(), torch.autograd.grad(logits.square().sum(), y)[0]))
    torch.testing.assert_close(*outcome)


def test_a_bound_is_known_for_every_device():
    assert allowance(CPU) == 4 * 2**30


@pytest.mark.gpu
def test_on_a_gpu_half_of_the_free_memory_is_the_bound():
    device = torch.device("cuda")
    assert 0 < allowance(device) <= torch.cuda.mem_get_info(device)[1] / 2
