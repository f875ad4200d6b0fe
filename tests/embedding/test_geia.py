"""GEIA: its loss by hand, decoding against brute force, pretrained decoders, and recovery where nothing is hidden."""

import itertools
import math

import pytest
import torch
from torch import nn

from implementations.embedding.decoder import Pretrained, SmallGPT, Tokenizer
from implementations.embedding.geia import GEIAConfig, Inverter, attack, decode, fit, sequence_loss, train
from implementations.threat_model import Embeddings, Knowledge

END = 0
NAMES, PLACES = (
    ("anna", "bert", "cleo", "dora", "emil", "fritz", "gina", "hans"),
    ("rome", "oslo", "kiel", "bonn", "pisa", "lodz"),
)
SMALL = {"width": 32, "heads": 2, "layers": 1, "pieces": 320, "length": 12, "batch_size": 16, "lr": 1e-2, "beams": 2}


def tiny(vocabulary=4, dimension=3, seed=0, condition=True, scale=20.0):
    """A random model whose probabilities are far from equal."""
    model = Inverter(SmallGPT(vocabulary, 8, 2, 2, 8), dimension, condition).eval()
    generator = torch.Generator("cpu").manual_seed(seed)
    model.decoder.reset(generator)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
        model.align.weight.normal_(0, 1, generator=generator)
    return model


def test_loss_by_hand():
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0], [9.0, -9.0]]], device="cpu", dtype=torch.float64)
    tokens = torch.tensor([[1, END, END]], device="cpu")
    expected = (math.log(4 / 3) + math.log(2)) / 2  # the word, its end mark, and nothing of the filling after it
    assert sequence_loss(logits, tokens, END).item() == pytest.approx(expected)


def test_label_smoothing_by_hand():
    logits = torch.tensor([[[0.0, math.log(3)]]], device="cpu", dtype=torch.float64)
    tokens = torch.tensor([[1]], device="cpu")
    expected = -(0.9 * math.log(3 / 4) + 0.05 * math.log(3 / 4) + 0.05 * math.log(1 / 4))
    assert sequence_loss(logits, tokens, END, smoothing=0.1).item() == pytest.approx(expected)


def test_each_prediction_sees_the_embedding_and_earlier_tokens_only():
    model = tiny()
    vectors = torch.eye(3, device="cpu")[:1]
    tokens = torch.tensor([[1, 2, 3, 1]], device="cpu")
    base = model(vectors, tokens)
    assert base.shape == (1, 4, 4)
    for place in range(4):
        changed = tokens.clone()
        changed[0, place] = (tokens[0, place] + 1) % 4
        same = (model(vectors, changed) - base).abs().amax(dim=(0, 2)) < 1e-5
        assert same[: place + 1].all(), "a prediction saw its own token or a later one"
        assert not same[place + 1 :].any(), "a prediction ignores an earlier token"
    other = model(torch.eye(3, device="cpu")[1:2], tokens)
    assert (other - base).abs().amax(dim=(0, 2)).min() > 1e-3, "the embedding reaches every prediction"


def test_without_the_embedding_all_vectors_are_alike():
    model = tiny(condition=False)
    tokens = torch.tensor([[1, 2, 3]], device="cpu")
    torch.testing.assert_close(*(model(vector[None], tokens) for vector in torch.eye(3, device="cpu")[:2]))


def test_past_gives_the_same_as_the_whole_sequence():
    model = tiny()
    inputs = model.decoder.embed(torch.tensor([[1, 3, 2, 1]], device="cpu"))
    whole, _ = model.decoder(inputs)
    past, steps = None, []
    for t in range(4):
        logits, past = model.decoder(inputs[:, t : t + 1], past)
        steps.append(logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=1e-4, atol=1e-4)


def best_by_brute_force(model, vector, length):
    """The sentence of at most `length` tokens, end mark included, with the best mean log-probability a token."""
    ended = [(*body, END) for size in range(length) for body in itertools.product(range(1, 4), repeat=size)]
    found = {}
    for tokens in [*ended, *itertools.product(range(1, 4), repeat=length)]:
        row = torch.tensor([tokens], device="cpu")
        log_probs = model(vector[None], row).log_softmax(-1).gather(2, row[..., None])
        found[tokens] = log_probs.mean().item()
    return list(max(found, key=found.get))


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_that_holds_all_equals_brute_force(seed):
    model = tiny(seed=seed, scale=8.0)
    vectors = torch.randn(3, 3, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
    with torch.no_grad():
        found = decode(model, vectors, END, 4, beams=256).tolist()
        expected = [best_by_brute_force(model, vector, 4) for vector in vectors]
    assert found == [tokens + [END] * (4 - len(tokens)) for tokens in expected]


def test_greedy_decoding_by_hand():
    model = tiny(seed=2)
    vector = torch.randn(1, 3, generator=torch.Generator("cpu").manual_seed(5), device="cpu")
    with torch.no_grad():
        tokens = []
        while len(tokens) < 5 and END not in tokens:
            row = torch.tensor([[*tokens, END]], device="cpu")
            tokens.append(int(model(vector, row)[0, -1].argmax()))
        found = decode(model, vector, END, 5, beams=1)
    assert found.tolist()[0] == tokens + [END] * (5 - len(tokens))


def test_more_beams_never_find_a_less_likely_sentence():
    model = tiny(seed=7, vocabulary=6, scale=10.0)
    vectors = torch.randn(16, 3, generator=torch.Generator("cpu").manual_seed(1), device="cpu")

    def score(beams):
        tokens = decode(model, vectors, END, 6, beams)
        sizes = (((tokens == END).cumsum(1) == 0).sum(1) + 1).clamp(max=6)
        log_probs = model(vectors, tokens).log_softmax(-1).gather(2, tokens[..., None])[..., 0]
        keep = torch.arange(6, device="cpu") < sizes[:, None]
        return ((log_probs * keep).sum(1) / sizes).mean().item()

    with torch.no_grad():
        assert score(6) >= score(1) - 1e-6


def test_tokenizer_returns_what_it_was_given():
    texts = ["anna lives in rome.", "call 555 0199, please!"]
    tokenizer = Tokenizer(texts * 3, 300)
    tokens = tokenizer.encode([*texts, "zoë in köln 42"], 40, "cpu")
    assert tokenizer.decode(tokens) == [*texts, "zoë in köln 42"], "unknown words are spelt in pieces"
    assert (tokens[:, -1] == tokenizer.end).all()
    assert tokenizer.encode(["a b c d e f g"], 3, "cpu").shape == (1, 3)


def world(seed=0):
    """Vectors that say name and place outright: each sentence's embedding is two one-hot codes side by side."""
    pairs = list(itertools.product(NAMES, PLACES))
    order = torch.randperm(len(pairs), generator=torch.Generator("cpu").manual_seed(seed), device="cpu").tolist()
    texts = [f"{pairs[i][0]} lives in {pairs[i][1]}" for i in order]
    vectors = torch.zeros(len(pairs), len(NAMES) + len(PLACES), device="cpu")
    for row, i in enumerate(order):
        vectors[row, NAMES.index(pairs[i][0])] = vectors[row, len(NAMES) + PLACES.index(pairs[i][1])] = 0.7
    return texts, vectors


@pytest.mark.parametrize("seed", range(3))
def test_recovers_unseen_sentences_from_vectors_that_tell_all(seed, tmp_path, monkeypatch):
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path))
    texts, vectors = world(seed)
    oracle = Embeddings(vectors[40:], "cpu", lambda asked: vectors[[texts.index(text) for text in asked]])
    config = GEIAConfig(seed=seed, epochs=60, **SMALL)
    found = attack(oracle, Knowledge(public_texts=texts[:40]), config)
    assert oracle.queries == 40
    right = sum(a == b for a, b in zip(found.data, texts[40:], strict=True))
    assert right >= 6, f"{right} of 8 sentences that are in no public text: {found.data}"
    assert found.history["loss"][-1] < found.history["loss"][0] / 3
    blind = attack(oracle, Knowledge(public_texts=texts[:40]), GEIAConfig(seed=seed, epochs=60, condition=False, **SMALL))
    assert sum(a == b for a, b in zip(blind.data, texts[40:], strict=True)) <= 1, "without the embedding it can only guess"
    assert len(set(blind.data)) == 1


def test_training_is_kept_and_decoding_does_not_retrain(tmp_path, monkeypatch):
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path))
    texts, vectors = world()
    config = GEIAConfig(epochs=1, **SMALL)
    first = fit(texts, vectors, config)
    files = sorted(tmp_path.glob("geia-*.safetensors"))
    fit(texts, vectors, GEIAConfig(epochs=1, **{**SMALL, "beams": 1}))
    assert sorted(tmp_path.glob("geia-*.safetensors")) == files, "beams are no part of training"
    fit(texts, vectors, GEIAConfig(epochs=1, **{**SMALL, "lr": 2e-2}))
    assert len(list(tmp_path.glob("geia-*.safetensors"))) == 2
    again = fit(texts, vectors, config)
    torch.testing.assert_close(first[0].state_dict(), again[0].state_dict())
    assert first[3] == again[3], "the seconds are those of the training"


def test_training_lowers_the_loss_and_moves_the_aligning_layer():
    texts, vectors = world()
    tokenizer = Tokenizer(texts, 300)
    tokens = tokenizer.encode(texts, 12, "cpu")
    model = Inverter(SmallGPT(tokenizer.size, 16, 1, 2, 12), vectors.shape[1])
    before = model.align.weight.clone()
    losses = train(model, tokens, vectors, tokenizer.end, GEIAConfig(epochs=5, **SMALL), torch.Generator("cpu").manual_seed(0))
    assert losses.shape == (5,)
    assert losses[-1] < losses[0]
    assert not torch.equal(before, model.align.weight)


def test_a_pretrained_decoder_from_a_folder(tmp_path, monkeypatch):
    """The path of the paper's scale: GPT-2 and its tokenizer from a folder, here with a tiny untrained one."""
    from tokenizers import Tokenizer as Raw
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path / "cache"))
    texts, vectors = world()
    raw = Raw(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    raw.train_from_iterator(texts, trainer)
    own = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|endoftext|>")
    folder = tmp_path / "gpt"
    own.save_pretrained(folder)
    GPT2LMHeadModel(GPT2Config(vocab_size=len(own), n_embd=16, n_layer=2, n_head=2, n_positions=24)).save_pretrained(folder)

    decoder = Pretrained(str(folder)).eval()
    inputs = decoder.embed(torch.tensor([[5, 6, 7]], device="cpu"))
    whole, _ = decoder(inputs)
    _, past = decoder(inputs[:, :2])
    torch.testing.assert_close(decoder(inputs[:, 2:], past)[0], whole[:, 2:], rtol=1e-4, atol=1e-5)
    oracle = Embeddings(vectors[40:], "cpu", lambda asked: vectors[[texts.index(text) for text in asked]])
    found = attack(
        oracle, Knowledge(public_texts=texts[:40]), GEIAConfig(decoder=str(folder), epochs=2, length=16, beams=2, lr=1e-3)
    )
    assert len(found.data) == 8
    assert all(isinstance(text, str) for text in found.data)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 30}, "multiple"),
        ({"beams": 0}, "at least 1"),
        ({"length": 1}, "length"),
        ({"label_smoothing": 1.0}, "smooth"),
    ],
)
def test_impossible_configurations_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        GEIAConfig(**wrong)


def test_small_gpt_is_reproducible():
    one, two = SmallGPT(10, 8, 1, 2, 4), SmallGPT(10, 8, 1, 2, 4)
    for model in (one, two):
        model.reset(torch.Generator("cpu").manual_seed(3))
    torch.testing.assert_close(one.state_dict(), two.state_dict())
    assert one.words.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert isinstance(one.norm, nn.LayerNorm)
    assert (one.norm.weight == 1).all()
