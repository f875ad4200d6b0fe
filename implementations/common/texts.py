"""Sentences with invented personal details: what the text settings take for private data, and what an adversary has instead.

Each sentence joins a lead with, often, a middle and a tail of one topic (everyday life, clinic, e-mail, customer service, bank,
travel, school, housing: about 2,800 combinations) and fills their slots with details. Names, towns, firms and jobs are made by
`faker`; nobody real is described. The private and the public draw share the words of the language, first names included, but
no surname, town or firm, and so no person.

The same seed gives the same sentences for one version of `faker`, whose word lists change now and then between versions.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from faker import Faker


@dataclass(frozen=True)
class Sentence:
    """A sentence and the personal details in it, as (kind, text) in order of appearance."""

    text: str
    details: tuple[tuple[str, str], ...] = field(default=())


KINDS = {
    "first": "name",
    "friend": "name",
    "last": "name",
    "doctor": "name",
    "city": "place",
    "town": "place",
    "company": "company",
    "job": "job",
    "phone": "contact",
    "age": "number",
    "amount": "number",
    "count": "number",
    "code": "number",
    "room": "number",
    "date": "date",
    "weekday": "date",
    "condition": "health",
    "drug": "health",
}  # which slots are personal details, and of what kind; the other slots are ordinary words

MIDDLE, TAIL = 0.6, 0.3  # how often a sentence has these parts: about 11 words on average, like spoken sentences

TOPICS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "everyday": (
        (
            "{first} {last} and {friend} met in {city}",
            "my neighbour {first} {last} bought {thing}",
            "on {weekday} {first} {last} told me a story about {town}",
            "{first} works as a {job} in {city}",
            "we had dinner with {first} {last} near {city}",
            "{first} turned {age} last week in {town}",
            "{friend} lost {thing} on the way to {city}",
            "after {count} years {first} {last} left {company}",
        ),
        (
            "and then went to see a film",
            "and will move to {town} in {month}",
            "because the old car broke down",
            "while the children were at school",
            "and paid {amount} dollars for it",
            "before the party at the house of {friend}",
            "and nobody could believe the news",
            "although it rained the whole day",
        ),
        (" with {friend}", ", which made everyone laugh", " on {date}", ", so we will call again soon"),
    ),
    "clinic": (
        (
            "patient {first} {last}, {age} years old, was admitted with {condition}",
            "{first} {last} from {city} reports {condition}",
            "doctor {doctor} saw {first} {last} for {condition}",
            "the {age} year old {job} {first} {last} was diagnosed with {condition}",
            "since {date} {first} {last} has suffered from {condition}",
            "nurse {friend} noted that {first} {last} has {condition}",
            "{first} {last} was taken to the hospital in {city} with {condition}",
            "a follow up of {condition} was arranged for {first} {last}",
        ),
        (
            "and was given {drug}",
            "and will return in {count} weeks",
            "after a fall at home",
            "and stays in room {room}",
            "and is allergic to {drug}",
            "without any sign of fever",
            "and takes {count} tablets of {drug} a day",
            "and refuses further treatment",
        ),
        (
            "",
            "",
            "",
            "",
            " until {date}",
            ", signed by doctor {doctor}",
            " after surgery in {town}",
            ", the family was informed",
        ),
    ),
    "e-mail": (
        (
            "dear {first}, the meeting with {company} is on {weekday}",
            "hi {first}, please send the report to {friend} {last}",
            "dear mr {last}, your application as a {job} has arrived",
            "hello {first}, my new number is {phone}",
            "dear ms {last}, {company} would like to invite you to {city}",
            "hi {friend}, {first} {last} will join our team as a {job}",
            "dear {first}, {friend} told me about your illness",
            "hello mr {last}, we met at the fair in {city}",
        ),
        (
            "and we need your answer by {date}",
            "and the budget is {amount} dollars",
            "because {friend} is on holiday",
            "so please confirm the time",
            "and the contract is attached",
            "as we discussed on the phone",
            "and the office in {town} will be closed",
            "so that we can plan the next step",
        ),
        (", best wishes, {friend}", ", kind regards from {city}", ", thank you", " before {weekday}"),
    ),
    "service": (
        (
            "customer {first} {last} complained about {thing}",
            "order {code} of {first} {last} has not arrived in {city}",
            "{first} {last} asks for a refund of {amount} dollars",
            "{first} {last} wants to return {thing} to {company}",
            "{first} {last} called from {phone} about {thing}",
            "ticket {code} was opened by {first} {last} from {city}",
            "a technician will visit {first} {last} on {weekday}",
            "{first} from {company} reported a problem with {thing}",
        ),
        (
            "and was very upset",
            "because the parcel was damaged",
            "and got a voucher of {amount} dollars",
            "although it was paid on {date}",
            "and waits for a call from {friend}",
            "and the case was passed to our team in {town}",
            "so we offered a replacement",
            "and it should be solved within {count} days",
        ),
        (", please contact {friend}", " under case {code}", ", this is the second complaint", " by {date}"),
    ),
    "bank": (
        (
            "{first} {last} transferred {amount} dollars to {friend}",
            "the account of {first} {last} at the branch in {city} was closed",
            "{first} {last}, a {job}, asked for a loan of {amount} dollars",
            "on {date} a card of {first} {last} was stolen in {city}",
            "{company} owes {first} {last} a sum of {amount} dollars",
            "{first} {last} earns {amount} dollars a month as a {job}",
            "the insurance of {first} {last} with number {code} has ended",
            "{friend} {last} inherited a house in {city}",
        ),
        (
            "and the payment was refused",
            "to buy {thing}",
            "and still has a debt of {amount} dollars",
            "after the divorce from {friend}",
            "and the tax office was informed",
            "because a signature was missing",
            "and wants to pay it back in {count} months",
            "without telling the family",
        ),
        (" on {weekday}", ", says {friend}", ", see file {code}", ", which is a risk for {company}"),
    ),
    "travel": (
        (
            "{first} {last} flies from {city} to {town}",
            "{first} and {friend} booked a hotel in {city}",
            "room {room} is reserved for {first} {last}",
            "the train of {first} {last} to {city} was late",
            "{first} {last} rented a car in {city}",
            "on {date} {first} {last} leaves {city}",
            "the passport of {first} {last} was found in {town}",
            "{first} {last} travels with {count} children to {city}",
        ),
        (
            "for {count} nights",
            "and needs a taxi on {weekday}",
            "to visit {friend}",
            "for a job interview at {company}",
            "and paid {amount} dollars in advance",
            "because the first flight was cancelled",
            "to see the mountains and the sea",
            "and asked for a window seat",
        ),
        (" in {month}", ", booking {code}", ", and comes back on {date}", " after a week in {town}"),
    ),
    "school": (
        (
            "{first} {last}, {age}, failed the test in {subject}",
            "the teacher {friend} {last} praised {first} for {subject}",
            "{first} {last} moved from a school in {city}",
            "the parents of {first} {last} came to talk about {subject}",
            "{first} {last} wants to study {subject} in {city}",
            "on {weekday} {first} {last} missed the lesson in {subject}",
            "{first} {last} won a prize of {amount} dollars in {subject}",
            "{friend} and {first} {last} were caught cheating in {subject}",
        ),
        (
            "and has to repeat the class",
            "and hopes to become a {job}",
            "because of trouble at home",
            "and will be tutored by {friend}",
            "and got {count} points",
            "although nobody expected it",
            "and the head of the school in {town} was told",
            "after being ill with {condition}",
        ),
        (" in {month}", ", wrote {friend}", ", the next talk is on {date}", " for the second time"),
    ),
    "housing": (
        (
            "{first} {last} rents a flat in {city}",
            "the landlord {friend} {last} wants to sell the house in {city}",
            "{first} {last} lives alone in {city}",
            "the new tenant is {first} {last}, a {job}",
            "{first} {last} and {friend} share a house in {town}",
            "the police visited {first} {last} in {city} on {date}",
            "apartment {room} belongs to {first} {last}",
            "{first} {last} from {company} moved into flat {room}",
        ),
        (
            "for {amount} dollars a month",
            "and plays loud music at night",
            "and has {count} dogs",
            "because the heating is broken",
            "and the key is under the mat",
            "since {month}",
            "and is away until {date}",
            "and never opens the door",
        ),
        (
            "",
            "",
            "",
            "",
            ", ask {friend} at {phone}",
            ", according to {friend}",
            " next to the park",
            ", which is hard to believe",
        ),
    ),
}

THINGS = (
    "a bicycle", "a laptop", "a washing machine", "a red dress", "a piano", "a phone", "a camera", "a sofa", "a ring",
    "a coffee machine", "a winter coat", "a telescope", "a boat", "a pair of shoes", "a suitcase", "a gold watch",
)  # fmt: skip
CONDITIONS = (
    "diabetes", "asthma", "back pain", "depression", "a broken arm", "high blood pressure", "migraine", "pneumonia",
    "chest pain", "insomnia", "a skin rash", "arthritis", "anxiety", "kidney stones", "hepatitis", "epilepsy",
)  # fmt: skip
DRUGS = (
    "aspirin", "insulin", "penicillin", "morphine", "ibuprofen", "cortisone", "lithium", "antibiotics", "methadone", "codeine",
)  # fmt: skip
SUBJECTS = ("history", "mathematics", "biology", "music", "french", "physics", "art", "chemistry", "geography", "english")
MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december",
)  # fmt: skip
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


@dataclass(frozen=True)
class Pools:
    """The details of one side: private or public."""

    first: tuple[str, ...]
    last: tuple[str, ...]
    city: tuple[str, ...]
    company: tuple[str, ...]
    job: tuple[str, ...]


def pools(
    seed: int, firsts: int = 120, lasts: int = 200, cities: int = 120, companies: int = 60, jobs: int = 60
) -> dict[str, Pools]:
    """Pools for the private and the public side, each of the given sizes: first names and jobs shared, the rest disjoint."""
    fake = Faker("en_US")
    fake.seed_instance(seed)

    def distinct(draw: Callable[[], str], count: int, keep: Callable[[str], Any] = lambda value: True) -> tuple[str, ...]:
        found: dict[str, None] = {}
        while len(found) < count:
            value = draw().lower()
            if keep(value):
                found[value] = None
        return tuple(found)

    first = distinct(fake.first_name, firsts)
    job = distinct(lambda: fake.job().split(",")[0].split("/")[0], jobs, lambda job: re.fullmatch(r"[a-z]+( [a-z]+)?", job))
    last = distinct(fake.last_name, 2 * lasts)
    city = distinct(fake.city, 2 * cities)
    sides = {}
    for index, side in enumerate(("private", "public")):
        own, other = last[index * lasts :][:lasts], last[(1 - index) * lasts :][:lasts]

        def of_own_side(firm: str, own=frozenset(own), other=frozenset(other)) -> bool:
            named = set(words(firm))  # firms bear surnames: only their own side's, so that none is carried across
            return bool(named & own) and not named & other

        firm = distinct(fake.company, companies, of_own_side)
        sides[side] = Pools(first, own, city[index * cities :][:cities], firm, job)
    return sides


def write(count: int, pool: Pools, seed: int, unlike: Sequence[str] = ()) -> list[Sentence]:
    """`count` different sentences from one side's pools, in lower case, none of them among the texts `unlike`."""
    dice = random.Random(seed)
    seen, found = set(unlike), []

    def fill(slot: str) -> str:
        match slot:
            case "first" | "friend":
                return dice.choice(pool.first)
            case "last" | "doctor":
                return dice.choice(pool.last)
            case "city" | "town":
                return dice.choice(pool.city)
            case "company":
                return dice.choice(pool.company)
            case "job":
                return dice.choice(pool.job)
            case "phone":
                return f"555 01{dice.randrange(100):02d}"  # numbers kept free for fiction
            case "age":
                return str(dice.randrange(18, 90))
            case "amount":
                return str(dice.choice((10, 50, 100, 500, 1000)) * dice.randrange(1, 20))
            case "count":
                return str(dice.randrange(2, 13))
            case "code":
                return str(dice.randrange(1000, 10000))
            case "room":
                return str(dice.randrange(10, 400))
            case "date":
                return f"{dice.choice(MONTHS)} {dice.randrange(1, 29)}"
            case "month":
                return dice.choice(MONTHS)
            case "weekday":
                return dice.choice(WEEKDAYS)
        return dice.choice({"thing": THINGS, "condition": CONDITIONS, "drug": DRUGS, "subject": SUBJECTS}[slot])

    topics = list(TOPICS.values())
    while len(found) < count:
        lead, middle, tail = dice.choice(topics)
        template = dice.choice(lead)
        template += f" {dice.choice(middle)}" if dice.random() < MIDDLE else ""
        template += dice.choice(tail) if dice.random() < TAIL else ""
        details: list[tuple[str, str]] = []

        def put(match: re.Match, details=details) -> str:
            value = fill(match[1])
            if match[1] in KINDS:
                details.append((KINDS[match[1]], value))
            return value

        text = re.sub(r"\{(\w+)\}", put, template) + "."
        if text not in seen:
            seen.add(text)
            found.append(Sentence(text, tuple(details)))
    return found


def draw(private: int, public: int, seed: int = 0) -> tuple[list[Sentence], list[Sentence]]:
    """Private and public sentences about different people in different towns; equal seeds give equal sentences."""
    sides = pools(seed)
    secret = write(private, sides["private"], 2 * seed + 1)
    return secret, write(public, sides["public"], 2 * seed + 2, [sentence.text for sentence in secret])


def words(text: str) -> list[str]:
    """The words and numbers of a text in lower case, punctuation left out."""
    return re.findall(r"[a-z0-9]+", text.lower())
