"""The language-model setting: probabilities, canaries in the training text, exposure by hand, files of one's own."""

import math

import pytest
import torch

from implementations.experiment import Reconstruction
from implementations.language_model.model import ALPHABET, CharLSTM, line_loss, pad, perplexity, text_of, tokens_of
from implementations.language_model.setting import OWNERS, LanguageModelConfig, LanguageModelSetting, exposure
from implementations.threat_model import AccessDenied, LogProbs, QueryBudgetExceeded

SMALL = {"sentences": 20, "held_out": 5, "digits": 2, "repetitions": (0, 2, 40), "per_level": 2, "width": 24, "epochs": 10}


@pytest.fixture(scope="module")
def setting():
    return LanguageModelSetting(LanguageModelConfig(**SMALL, batch_size=4, lr=1e-2), "cpu")


@pytest.fixture(scope="module")
def model():
    network = CharLSTM(12, 2)
    network.reset(torch.Generator("cpu").manual_seed(0))
    return network.eval()


def test_codes_and_texts():
    assert text_of(tokens_of("The PIN is 42.\n", "cpu")) == "the pin is 42.\n"
    assert text_of(tokens_of("naïve", "cpu")) == "na~ve"
    assert len(set(ALPHABET)) == len(ALPHABET)
    assert ALPHABET[0] == "\n"


def test_log_probabilities_equal_the_plain_forward_pass(model):
    """The tree of shared beginnings is a shortcut, not another answer."""
    texts = ["\nabc12", "\nabc13", "\nabd13", "\nxbd13", "\nabc12", "\nabc99"]
    tokens = torch.stack([tokens_of(text, "cpu") for text in texts])
    logits = model(tokens[:, :-1])
    plain = logits.log_softmax(-1).gather(2, tokens[:, 1:, None])[..., 0]
    torch.testing.assert_close(model.log_probs(tokens), plain.detach(), rtol=1e-4, atol=1e-5)
    shuffled = torch.tensor([3, 0, 5, 2, 1, 4], device="cpu")
    torch.testing.assert_close(model.log_probs(tokens[shuffled]), plain[shuffled].detach(), rtol=1e-4, atol=1e-5)


def test_probabilities_of_all_next_characters_sum_to_one(model):
    start = tokens_of("\nab", "cpu")
    tokens = torch.stack([torch.cat([start, torch.tensor([code], device="cpu")]) for code in range(len(ALPHABET))])
    assert model.log_probs(tokens)[:, -1].exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_loss_leaves_the_filling_out(model):
    tokens, sizes = pad(["ab", "abcdef"], "cpu")
    assert tokens.shape == (2, 8)
    assert sizes.tolist() == [3, 7]
    alone = [line_loss(model, *pad([line], "cpu")).item() for line in ("ab", "abcdef")]
    assert line_loss(model, tokens, sizes).item() == pytest.approx((3 * alone[0] + 7 * alone[1]) / 10, rel=1e-5)
    assert perplexity(model, ["ab"]) == pytest.approx(math.exp(alone[0]), rel=1e-5)


def test_canaries_are_in_the_training_text_as_often_as_said(setting):
    lines = setting.training_lines()
    formats = setting.knowledge().secret_format
    for form, secret, often in zip(formats, setting.private["secrets"], setting.private["repetitions"], strict=True):
        canary = text_of(torch.cat([form.before, form.symbols[secret]])).strip("\n")
        assert lines.count(canary) == often
        assert canary[-2:] == "".join(map(str, secret.tolist()))
    assert len(lines) == 20 + 2 * (2 + 40)
    assert setting.training_lines(canaries=False) == setting.private["texts"]
    assert len({text_of(form.before) for form in formats}) == len(formats)


def test_candidates_are_counted_upwards(setting):
    form = setting.knowledge().secret_format[0]
    candidates = form.candidates()
    assert candidates.shape == (100, len(form.before) + 2)
    assert text_of(candidates[7])[-2:] == "07"
    assert text_of(candidates[42]).startswith(text_of(form.before))
    assert text_of(candidates[42])[-2:] == "42"


def test_exposure_by_hand():
    """Four candidates, so 2 bits: the likeliest has exposure 2, the second 1, the last 0; ties count against the secret."""
    scores = torch.tensor([[3.0, 1.0, 2.0, 9.0]] * 4 + [[5.0] * 4], device="cpu")
    secret = torch.tensor([1, 2, 0, 3, 2], device="cpu")
    expected = torch.tensor([2.0, 1.0, 2 - math.log2(3), 0.0, 0.0], device="cpu")
    torch.testing.assert_close(exposure(scores, secret), expected)


def test_exposure_of_a_random_ranking_is_chance():
    scores = torch.rand(4000, 256, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    mean = exposure(scores, torch.zeros(4000, dtype=torch.long, device="cpu")).mean().item()
    assert mean == pytest.approx(1 / math.log(2), abs=0.1), "log2 of e, as the rank is uniform"


def perfect(setting, claimed=True):
    """A reconstruction that knows every secret."""
    digits = setting.private["secrets"]
    scores = torch.ones(6, 100, device="cpu")
    scores[torch.arange(6, device="cpu"), digits[:, 0] * 10 + digits[:, 1]] = 0
    return Reconstruction({"secrets": digits.clone(), "claimed": torch.full((6,), claimed, device="cpu"), "perplexity": scores})


def test_metrics_of_perfect_silent_and_wrong_answers(setting):
    best = setting.evaluate(perfect(setting))
    assert set(best) == set(setting.metrics)
    assert best["exposure"] == best["exposure_most"] == pytest.approx(math.log2(100))
    assert best["rank_correlation"] == 0
    assert best["extraction_recall"] == best["search_recall"] == 1
    assert best["false_claims"] == 2, "claims about canaries that were never inserted are false, whatever their digits"
    assert best["extraction_precision"] == pytest.approx(4 / 6)
    silent = setting.evaluate(perfect(setting, claimed=False))
    assert silent["search_recall"] == 1
    assert silent["extraction_recall"] == silent["extraction_precision"] == silent["false_claims"] == 0
    wrong = perfect(setting)
    wrong.data["secrets"] = (wrong.data["secrets"] + 1) % 10
    assert setting.evaluate(wrong)["extraction_precision"] == 0
    short = perfect(setting)
    short.data["perplexity"] = short.data["perplexity"][:, :50]
    with pytest.raises(ValueError, match="scores of all candidates"):
        setting.evaluate(short)


def test_a_canary_seen_often_is_memorised_and_the_control_knows_nothing(setting):
    formats = setting.knowledge().secret_format

    def bits(oracle):
        scores = torch.stack([-oracle(form.candidates()).sum(dim=1) for form in formats])
        return exposure(scores, setting._places())

    most = setting.private["repetitions"] == 40
    seen, unseen = bits(setting.target.grant("logprobs")), bits(setting.target.grant("logprobs", canaries=False))
    assert seen[most].min() > 4
    assert unseen[most].mean() < seen[most].mean() - 2


def test_the_oracle_counts_and_refuses(setting):
    oracle = setting.target.grant("logprobs", budget=150)
    assert isinstance(oracle, LogProbs)
    candidates = setting.knowledge().secret_format[0].candidates()
    answers = oracle(candidates)
    assert answers.shape == (100, candidates.shape[1] - 1)
    assert (answers <= 0).all()
    assert oracle.queries == 100
    with pytest.raises(QueryBudgetExceeded):
        oracle(candidates)
    with pytest.raises(AccessDenied):
        setting.target.grant("white-box")
    assert setting.knowledge().terms == {"secret-format"}


def test_utility_and_pictures(setting):
    assert 1 < setting.utility(setting.target)["perplexity"] < len(ALPHABET)
    found = {"method": perfect(setting), "guess": setting.baselines()["random_guess"](torch.Generator("cpu"))}
    rows = setting.samples(found)
    assert len(rows) == 3
    assert "inserted 40 times" in rows[0]["private"]
    assert rows[0]["private"].split(" (")[0].endswith(rows[0]["method"])
    drawn = setting.figure(found)
    assert [label.get_text() for label in drawn.axes[0].get_xticklabels()] == ["0", "2", "40"]
    assert len(drawn.axes[0].lines) >= 4


def test_baselines_guess_every_canary(setting):
    for name, make in setting.baselines().items():
        found = make(torch.Generator("cpu").manual_seed(1))
        assert found.data["claimed"].all(), name
        places = found.data["perplexity"].argmin(dim=1)
        assert torch.equal(found.data["secrets"], torch.stack([places // 10, places % 10], dim=1)), name


def test_files_of_one_s_own(tmp_path):
    (tmp_path / "train.txt").write_text("No, it was n't Black Monday.\n\nBut while the market fell\n" * 4, encoding="utf-8")
    (tmp_path / "test.txt").write_text("some circuit breakers\n", encoding="utf-8")
    options = {**SMALL, "sentences": 0, "held_out": 0, "epochs": 1, "width": 8}
    setting = LanguageModelSetting(LanguageModelConfig(preset="paper", folder=str(tmp_path), **options), "cpu")
    assert len(setting.private["texts"]) == 8
    assert setting.utility(setting.target)["perplexity"] > 1
    (tmp_path / "test.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"test\.txt"):
        LanguageModelSetting(LanguageModelConfig(preset="paper", folder=str(tmp_path), **options), "cpu")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"digits": 7}, "digits"),
        ({"repetitions": (1, 2)}, "repetitions"),
        ({"per_level": len(OWNERS)}, "words for"),
        ({"held_out": 0}, "held_out"),
        ({"epochs": 0}, "sizes"),
    ],
)
def test_impossible_configurations_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        LanguageModelConfig(**wrong)
