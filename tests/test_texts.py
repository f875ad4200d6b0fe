"""Invented sentences: reproducible, about different people on the two sides, with their details marked."""

import re

import pytest

from implementations.common import texts


@pytest.fixture(scope="module")
def drawn():
    return texts.draw(300, 600, seed=3)


def test_same_seed_same_sentences(drawn):
    again = texts.draw(300, 600, seed=3)
    other = texts.draw(300, 600, seed=4)
    assert drawn == again
    assert {s.text for s in drawn[0]}.isdisjoint(s.text for s in other[0]) or drawn[0] != other[0]


def test_no_person_town_or_firm_is_on_both_sides():
    sides = texts.pools(0)
    private, public = sides["private"], sides["public"]
    for name in ("last", "city", "company"):
        assert set(getattr(private, name)).isdisjoint(getattr(public, name)), name
        assert len(getattr(private, name)) == len(set(getattr(private, name))) > 50
    assert private.first == public.first, "first names are words of the language"
    for firm in private.company:
        assert not set(texts.words(firm)) & set(public.last), firm


def test_sentences_are_different_and_on_one_side_only(drawn):
    private, public = ({s.text for s in side} for side in drawn)
    assert len(private) == 300
    assert len(public) == 600
    assert not private & public


def test_details_stand_in_their_sentence_and_no_slot_is_left(drawn):
    kinds = set()
    for sentence in drawn[0] + drawn[1]:
        assert "{" not in sentence.text
        assert sentence.details, sentence.text
        at = 0
        for kind, value in sentence.details:
            at = sentence.text.index(value, at) + 1  # in order of appearance
            kinds.add(kind)
    assert kinds == set(texts.KINDS.values())


def test_every_slot_can_be_filled():
    slots = set(re.findall(r"\{(\w+)\}", str(texts.TOPICS) + str(texts.OPENINGS) + str(texts.PEOPLE) + str(texts.ENDINGS)))
    pool = texts.pools(1)["public"]
    many = " ".join(s.text for s in texts.write(4000, pool, 0))
    assert slots >= set(texts.KINDS)
    assert "555 01" in many, "phone numbers are those kept free for fiction"
    assert len(set(re.sub(r"\d+", "0", many).split("."))) > 3000, "templates vary"


def test_words_are_lower_case_without_punctuation():
    assert texts.words("Dear Mr. O'Neil, call 555-0199!") == ["dear", "mr", "o", "neil", "call", "555", "0199"]
    assert texts.words("") == []
