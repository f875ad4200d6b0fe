"""The Secret Sharer: log-perplexity by hand, estimates against the exact rank, the search against brute force."""

import itertools
import math

import pytest
import torch
from scipy.stats import skewnorm

from implementations.language_model.carlini2019_secret_sharer import (
    SecretSharerConfig,
    attack,
    exposure_by_sampling,
    exposure_by_skew_normal,
    fit_skew_normal,
    log_perplexity,
    next_symbol_bits,
    shortest_paths,
)
from implementations.language_model.model import CharLSTM, tokens_of
from implementations.language_model.setting import SecretFormat, exposure
from implementations.threat_model import Knowledge, LogProbs


def generator(seed=0):
    return torch.Generator("cpu").manual_seed(seed)


def test_log_perplexity_by_hand():
    probabilities = torch.tensor([[0.5, 0.25, 1.0], [0.125, 1.0, 1.0]], device="cpu")
    torch.testing.assert_close(log_perplexity(probabilities.log()), torch.tensor([3.0, 3.0], device="cpu"))


def test_exposure_by_sampling_by_hand():
    sample = torch.tensor([[4.0, 1.0, 3.0, 2.0]], device="cpu")
    scores = torch.tensor([[1.0, 2.5, 4.0, 0.5]], device="cpu")
    found = exposure_by_sampling(scores, sample)
    torch.testing.assert_close(found, torch.tensor([[2.0, 1.0, 0.0, 2.0]], device="cpu"))


def test_sampling_the_whole_space_gives_the_exact_exposure():
    scores = torch.rand(5, 64, generator=generator(), device="cpu")
    secret = torch.randint(64, (5,), generator=generator(1), device="cpu")
    own = scores.gather(1, secret[:, None])
    torch.testing.assert_close(exposure_by_sampling(own, scores)[:, 0], exposure(scores, secret))


@pytest.mark.parametrize("shape", [-5.0, -1.5, 0.0, 2.0, 6.0])
def test_fit_recovers_the_parameters_of_a_skew_normal(shape):
    draws = torch.tensor(skewnorm.rvs(shape, 30, 4, size=200_000, random_state=0), device="cpu")[None]
    found, location, scale = (value.item() for value in fit_skew_normal(draws))
    assert location == pytest.approx(30, abs=0.5 if shape else 2.5)
    assert scale == pytest.approx(4, abs=0.35 if shape else 1.0)
    if shape:
        assert found == pytest.approx(shape, rel=0.25)
    else:
        assert abs(found) < 0.8


def test_fit_keeps_mean_and_deviation_exactly():
    sample = torch.rand(3, 500, generator=generator(), device="cpu").double().pow(2) * 7
    shape, location, scale = fit_skew_normal(sample)
    for row in range(3):
        mean, variance = skewnorm.stats(shape[row], location[row], scale[row], moments="mv")
        assert float(mean) == pytest.approx(sample[row].mean().item())
        assert float(variance) == pytest.approx(sample[row].var(correction=0).item())


def test_estimated_exposure_is_close_to_the_exact_one_where_the_law_holds():
    scores = torch.tensor(skewnorm.rvs(-3, 40, 5, size=(4, 10_000), random_state=1), device="cpu", dtype=torch.float32)
    sample = scores[:, :1000]
    rank = scores.argsort(dim=1)
    for place, tolerance in ((5000, 0.1), (500, 0.3), (20, 1.0)):
        secret = rank[:, place]
        estimate = exposure_by_skew_normal(scores.gather(1, secret[:, None]), sample)[:, 0]
        assert (estimate - exposure(scores, secret)).abs().max() < tolerance, place


def test_estimate_goes_beyond_the_sample_and_stays_finite():
    sample = torch.randn(1, 1000, generator=generator(), device="cpu") * 3 + 50
    found = exposure_by_skew_normal(torch.tensor([[50.0, 20.0, -1e6]], device="cpu"), sample)[0]
    assert found[0] == pytest.approx(1, abs=0.2)
    assert found[1] > 40, "ten deviations out, where no sample reaches"
    assert found[2] == 1000


def random_tree(lengths, symbols, seed, sharpness=2.0):
    """Conditional distributions for every beginning of every canary, and the bits of every candidate."""
    draw, table = generator(seed), {}
    for v, length in enumerate(lengths):
        for size in range(length):
            for beginning in itertools.product(range(symbols), repeat=size):
                logits = sharpness * torch.randn(symbols, generator=draw, device="cpu", dtype=torch.float64)
                table[v, beginning] = -logits.log_softmax(0) / math.log(2)
    totals = [
        {c: sum(table[v, c[:i]][c[i]].item() for i in range(length)) for c in itertools.product(range(symbols), repeat=length)}
        for v, length in enumerate(lengths)
    ]
    return table, totals


@pytest.mark.parametrize("width", [1, 3, 50])
@pytest.mark.parametrize("seed", range(4))
def test_search_finds_what_brute_force_finds(seed, width):
    lengths = (2, 4, 3)
    table, totals = random_tree(lengths, 4, seed)
    asked = []

    def weights(nodes):
        asked.extend(nodes)
        return torch.stack([table[node] for node in nodes])

    found = shortest_paths(weights, lengths, 4, width, limit=10_000)
    for search, total in zip(found, totals, strict=True):
        assert search.found == min(total, key=total.get)
    assert len(asked) == len(set(asked)), "no beginning is expanded twice"
    assert sum(search.expanded for search in found) == len(asked)


def test_search_in_dijkstra_s_order_expands_only_what_is_lighter_than_the_answer():
    table, totals = random_tree((4,), 5, seed=9, sharpness=4.0)
    asked = []

    def weights(nodes):
        asked.extend(nodes)
        return torch.stack([table[node] for node in nodes])

    (search,) = shortest_paths(weights, (4,), 5, 1, limit=10_000)
    best = min(totals[0].values())
    so_far = [sum(table[0, b[:i]][b[i]].item() for i in range(len(b))) for _, b in asked]
    assert max(so_far) <= best
    assert search.expanded < 156 / 3, "most of the 156 beginnings are never looked at"


def test_search_gives_up_at_its_limit_and_finds_nothing_it_is_not_sure_of():
    flat = torch.full((1, 10), math.log2(10), device="cpu")
    (search,) = shortest_paths(lambda nodes: flat.expand(len(nodes), -1), (4,), 10, 3, limit=20)
    assert search.found is None
    assert search.expanded == 20


@pytest.fixture(scope="module")
def world():
    """A random model, four formats with different words, and an oracle."""
    model = CharLSTM(10, 1)
    model.reset(generator(3))
    with torch.no_grad():
        model.out.weight.mul_(6)
    symbols = tokens_of("0123456789", "cpu")
    formats = tuple(SecretFormat(tokens_of(f"\n{words} ", "cpu"), symbols, 3) for words in ("a", "the pin is", "xyz", "no."))
    return model.eval(), formats


def test_bits_of_next_symbols_equal_the_model_s(world):
    model, formats = world
    oracle = LogProbs(model.log_probs, "cpu")
    nodes = [(1, ()), (0, (4, 2)), (3, (9,))]
    found = next_symbol_bits(oracle, formats, nodes)
    assert oracle.queries == 30
    for row, (v, beginning) in zip(found, nodes, strict=True):
        start = torch.cat([formats[v].before, formats[v].symbols[list(beginning)]])
        expected = -model(start[None])[0, -1].log_softmax(-1)[formats[v].symbols] / math.log(2)
        torch.testing.assert_close(row, expected.detach(), rtol=1e-4, atol=1e-4)


def test_attack_finds_the_likeliest_candidate_of_every_format(world):
    model, formats = world
    oracle = LogProbs(model.log_probs, "cpu")
    config = SecretSharerConfig(expansions=1000, samples=50, confidence=0.0)
    found = attack(oracle, Knowledge(secret_format=formats), config)
    best = found.data["perplexity"].argmin(dim=1)
    expected = torch.stack([best // 100, best // 10 % 10, best % 10], dim=1)
    assert torch.equal(found.data["secrets"], expected)
    assert found.data["claimed"].all(), "at confidence 0 everything found is claimed"
    assert found.data["perplexity"].shape == found.data["estimate"].shape == (4, 1000)
    assert found.notes["search_queries_per_canary"] < 1000 * 1.12
    strict = attack(oracle, Knowledge(secret_format=formats), SecretSharerConfig(expansions=1000, samples=50, confidence=1.0))
    assert not strict.data["claimed"].any()
    random = attack(oracle, Knowledge(secret_format=formats), SecretSharerConfig(search="random", expansions=3, samples=50))
    assert (random.data["secrets"] != expected).any(dim=1).any(), "30 of 1,000 candidates seldom hold the likeliest"


def test_a_certain_secret_is_claimed_and_a_flat_model_s_is_not():
    symbols = tokens_of("0123456789", "cpu")
    formats = (SecretFormat(tokens_of("\nthe pin is ", "cpu"), symbols, 3),)
    secret = symbols[torch.tensor([7, 0, 7], device="cpu")]
    begin = len(formats[0].before)

    def certain(tokens):
        """Nine of ten for the secret's digit at each place that it has reached, the rest shared by the others."""
        places = torch.arange(1, tokens.shape[1], device="cpu") - begin
        inside = (places >= 0) & (places < 3)
        hit = tokens[:, 1:] == secret[places.clamp(0, 2)]
        return torch.where(inside, torch.where(hit, 0.9, 0.1 / 9), 1.0).log()

    def flat(tokens):
        return torch.full((len(tokens), tokens.shape[1] - 1), math.log(0.1), device="cpu")

    config = SecretSharerConfig(samples=50)
    sure = attack(LogProbs(certain, "cpu"), Knowledge(secret_format=formats), config)
    assert sure.data["secrets"].tolist() == [[7, 0, 7]]
    assert sure.data["claimed"].tolist() == [True]
    assert sure.notes["search_queries_per_canary"] <= 12 * 10, "a few beginnings, not 1,000 candidates"
    unsure = attack(LogProbs(flat, "cpu"), Knowledge(secret_format=formats), config)
    assert not unsure.data["claimed"].any()


@pytest.mark.parametrize("wrong", [{"search": "beam"}, {"expansions": 0}, {"samples": 5}, {"confidence": 1.5}])
def test_impossible_configurations_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SecretSharerConfig(**wrong)
