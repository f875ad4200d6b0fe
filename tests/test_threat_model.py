"""Oracles give what their access says and no more; knowledge remembers what was read."""

import pytest
import torch
from torch import nn

from implementations.threat_model import (
    AccessDenied,
    Embeddings,
    Explanations,
    Features,
    Gradients,
    Knowledge,
    LogProbs,
    NotKnown,
    QueryBudgetExceeded,
    Samples,
    Scores,
    Target,
    Text,
    Updates,
    classifier_target,
    fingerprint,
)


@pytest.fixture
def target():
    torch.manual_seed(0)
    return classifier_target(nn.Linear(4, 3), "cpu")


@pytest.fixture
def x():
    return torch.arange(8.0, device="cpu").view(2, 4) / 8


def test_white_box_is_a_frozen_copy_with_gradients_to_the_input(target, x):
    oracle = target.grant("white-box")
    x.requires_grad_(True)
    oracle(x).sum().backward()
    assert x.grad is not None
    assert all(not p.requires_grad for p in oracle.model.parameters())
    before = target.fingerprint()
    with torch.no_grad():
        oracle.model.weight.zero_()
    assert target.fingerprint() == before


def test_scores_are_detached_probabilities(target, x):
    scores = target.grant("scores")(x.requires_grad_(True))
    assert not scores.requires_grad
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(2, device="cpu"))
    torch.testing.assert_close(scores, target.model(x).softmax(1).detach())


def test_scores_can_be_cut_to_the_top_and_rounded(target, x):
    full = target.grant("scores")(x)
    top = target.grant("scores", top_k=1)(x)
    assert (top > 0).sum().item() == 2
    torch.testing.assert_close(top.max(dim=1).values, full.max(dim=1).values)
    rounded = target.grant("scores", decimals=1)(x)
    torch.testing.assert_close(rounded, (full * 10).round() / 10)
    with pytest.raises(ValueError, match="top_k"):
        target.grant("scores", top_k=0)


def test_label_only_gives_classes(target, x):
    labels = target.grant("label-only")(x)
    assert labels.dtype == torch.int64
    assert torch.equal(labels, target.model(x).argmax(1))


@pytest.mark.parametrize("access", ["white-box", "scores", "label-only"])
def test_budgets_count_inputs_and_refuse_before_answering(target, x, access):
    oracle = target.grant(access, budget=3)
    oracle(x)
    assert oracle.queries == 2
    with pytest.raises(QueryBudgetExceeded, match=r"budget of 3 .2 used"):
        oracle(x)
    assert oracle.queries == 2
    oracle(x[:1])
    assert oracle.queries == 3


def test_calling_the_white_box_model_itself_counts_too(target, x):
    oracle = target.grant("white-box", budget=2)
    oracle.model(x)
    with pytest.raises(QueryBudgetExceeded):
        oracle.model(x)


def test_a_negative_budget_is_refused(target):
    with pytest.raises(ValueError, match="at least 0"):
        target.grant("scores", budget=-1)


def test_access_not_granted_names_what_is(target):
    with pytest.raises(AccessDenied, match=r"scores.*did you mean 'label-only'"):
        target.grant("label_only")


def test_a_grant_must_give_its_own_access():
    model = nn.Linear(2, 2)
    liar = Target(model, {"label-only": lambda **o: Scores(model, "cpu", **o)})
    with pytest.raises(TypeError, match="scores oracle"):
        liar.grant("label-only")
    with pytest.raises(ValueError, match="no such access"):
        Target(model, {"telepathy": lambda: None})


def test_oracles_hide_the_model(target):
    for access in ("scores", "label-only"):
        oracle = target.grant(access)
        public = [name for name in dir(oracle) if not name.startswith("_")]
        assert not any(isinstance(getattr(oracle, name), nn.Module) for name in public)


def test_gradients_hold_copies():
    model, update = nn.Linear(2, 1), {"weight": torch.ones(3, 1, 2, device="cpu")}
    oracle = Gradients(model, update, "cpu")
    update["weight"].zero_()
    assert oracle.update["weight"].sum().item() == 6
    assert all(p.requires_grad for p in oracle.model.parameters())
    assert oracle.model is not model


def test_features_grant_the_client_as_said():
    client, seen = nn.Linear(2, 2), torch.zeros(1, 2, device="cpu")
    white = Features(client, seen, "cpu", client="weights")
    assert white.client is not client
    assert white.reads == {"client-weights"}
    with pytest.raises(AccessDenied):
        white(seen)
    black = Features(client, seen, "cpu", client="queries", budget=1)
    torch.testing.assert_close(black(seen), client(seen).detach())
    assert black.reads == {"client-queries"}
    with pytest.raises(QueryBudgetExceeded):
        black(seen)
    with pytest.raises(AccessDenied):
        _ = black.client
    with pytest.raises(AccessDenied):
        Features(client, seen, "cpu")(seen)
    with pytest.raises(ValueError, match="weights, queries or none"):
        Features(client, seen, "cpu", client="all")


def test_embeddings_record_queries_of_the_encoder():
    vectors = torch.zeros(2, 3, device="cpu")
    with pytest.raises(AccessDenied, match="vectors only"):
        Embeddings(vectors, "cpu")(["a"])
    oracle = Embeddings(vectors, "cpu", encode=lambda texts: torch.ones(len(texts), 3, device="cpu"))
    assert oracle(["a", "b"]).shape == (2, 3)
    assert (oracle.queries, oracle.reads) == (2, {"encoder-queries"})


def test_the_other_oracles_answer_and_count(x):
    assert LogProbs(lambda tokens: -tokens[:, 1:].float(), "cpu")(torch.ones(2, 3, dtype=torch.int64, device="cpu")).shape == (
        2,
        2,
    )
    assert Text(lambda prompts: [p + "!" for p in prompts], "cpu")(["a"]) == ["a!"]
    scores, saliency = Explanations(lambda x: (x.sum(1), x), "cpu")(x.requires_grad_(True))
    assert not scores.requires_grad
    assert not saliency.requires_grad
    updates = Updates([lambda x: x, lambda x: 2 * x], "cpu")
    before, after = updates(x)
    torch.testing.assert_close(2 * before, after)
    assert updates.queries == 4
    with pytest.raises(QueryBudgetExceeded):
        Samples(lambda n: list(range(n)), "cpu", budget=2)(3)


def test_knowledge_records_reads_and_narrows():
    knowledge = Knowledge(public_images=1, num_classes=5)
    assert knowledge.reads == frozenset()
    assert knowledge.num_classes == 5
    assert knowledge.reads == {"num-classes"}
    narrow = knowledge.only(["num-classes", "marginals"])
    assert narrow.terms == {"num-classes"}
    with pytest.raises(NotKnown, match=r"public_images.*num_classes"):
        _ = narrow.public_images
    with pytest.raises(TypeError):
        knowledge.num_classes = 6
    assert not hasattr(narrow, "public_images")


def test_fingerprint_sees_every_value_and_buffers():
    model = nn.BatchNorm1d(2)
    before = fingerprint(model)
    model.running_mean[0] = 1e-6
    assert fingerprint(model) != before
