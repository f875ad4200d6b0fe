"""Sentences with invented personal details: what the text settings take for private data, and what an adversary has instead.

Each sentence says what somebody did, in one of eight topics (everyday life, clinic, office, customer service, bank, travel,
school, housing), often with an opening, a reason and an ending: more than 500,000 templates, whose slots are filled with
details. Names, towns, firms and jobs are made by `faker`; nobody real is described. The private and the public draw share the
words of the language, first names included, but no surname, town or firm.

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

OPENING, REASON, ENDING = 0.35, 0.55, 0.3  # how often a sentence has these parts: about ten words on average
OPENINGS = (
    "yesterday", "i heard that", "according to {friend}", "in {month}", "on {weekday}", "please note that", "last week",
    "{friend} says that", "it is true that", "on {date}",
)  # fmt: skip
PEOPLE = (
    "{first} {last}", "{first} {last}", "{first}", "my friend {first}", "{first} the {job}", "{first} from {city}", "mr {last}",
    "mrs {last}", "{first}, aged {age},", "our {job} {first}", "{first} and {friend}'s sister", "my neighbour {first} {last}",
)  # fmt: skip
ENDINGS = (
    " on {date}", " in {month}", ", wrote {friend}", ", which nobody believed", ", so please call soon", " for the second time",
    ", and {friend} knows it", " after all",
)  # fmt: skip
TOPICS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "everyday": (
        (
            "bought {thing}", "met {friend} in {city}", "told me a story about {town}", "lost {thing} on {weekday}",
            "left {company} after {count} years", "had dinner with {friend}", "is moving to {town}", "forgot my birthday",
            "gave {thing} to {friend}", "won {amount} dollars in a game",
        ),
        (
            "and then went to see a film", "because the old car broke down", "while the children were asleep",
            "before the party of {friend}", "although it rained the whole day", "and never came back", "to surprise the family",
            "and was very happy about it",
        ),
    ),
    "clinic": (
        (
            "was admitted with {condition}", "has suffered from {condition}", "was given {drug} for {condition}",
            "takes {count} tablets of {drug} a day", "came back with {condition}", "is allergic to {drug}",
            "saw doctor {doctor} about {condition}", "stays in room {room}", "refused to take {drug}",
            "needs surgery on {date}",
        ),
        (
            "and will return in {count} weeks", "after a fall at home", "without any sign of fever",
            "and cannot sleep at night", "and the family was informed", "because the pain got worse",
            "although the blood test was fine", "and asked for a nurse",
        ),
    ),
    "office": (
        (
            "sent the report to {friend}", "asked for a meeting on {weekday}", "applied for the post of {job}",
            "works as a {job} at {company}", "was fired by {company}", "signed the contract with {company}",
            "is on holiday until {date}", "can be reached at {phone}", "wants a raise of {amount} dollars",
            "read the mail of {friend}",
        ),
        (
            "and needs an answer by {date}", "because the budget is too small", "so please confirm the time",
            "as we discussed on the phone", "while the office is closed", "and the boss does not know",
            "to finish the project", "and sends kind regards",
        ),
    ),
    "service": (
        (
            "complained about {thing}", "returned {thing}", "asked for a refund of {amount} dollars", "ordered {thing} from us",
            "waits for order {code}", "called twice about {thing}", "opened ticket {code}", "paid {amount} dollars for {thing}",
            "received {thing} by mistake", "cancelled order {code}",
        ),
        (
            "because the parcel was damaged", "and was very upset", "and wants to speak to the manager",
            "although nothing was wrong with it", "so we offered a replacement", "and got a voucher of {amount} dollars",
            "but the invoice is missing", "and the technician is on the way",
        ),
    ),
    "bank": (
        (
            "transferred {amount} dollars to {friend}", "closed the account", "asked for a loan of {amount} dollars",
            "owes {friend} a lot of money", "earns {amount} dollars a month", "lost a credit card in {city}",
            "inherited a house in {town}", "sold {thing} for {amount} dollars", "was refused a loan by {company}",
            "forgot the secret number {code}",
        ),
        (
            "and the tax office was informed", "to pay for the divorce", "because a signature was missing",
            "and wants to pay it back in {count} months", "without telling the family", "and the payment was refused",
            "to invest in shares", "and still has debts",
        ),
    ),
    "travel": (
        (
            "flies to {city}", "booked a hotel in {city}", "missed the train to {town}", "rented a car in {city}",
            "lost a passport in {town}", "stays at the beach for {count} nights", "travels with {count} children",
            "leaves early on {weekday}", "paid {amount} dollars for the flight", "took a taxi to the airport",
        ),
        (
            "to visit {friend}", "for a job interview at {company}", "because the ship was cancelled",
            "to see the mountains and the sea", "and asked for a window seat", "with a heavy suitcase",
            "and wants to sleep in a tent", "and will send us a postcard",
        ),
    ),
    "school": (
        (
            "failed the test in {subject}", "won a prize in {subject}", "studies {subject} in {city}",
            "missed the lesson in {subject}", "was caught cheating in {subject}", "got {count} points in {subject}",
            "teaches {subject} to {friend}", "hates {subject}", "wrote an essay about {town}", "reads a book about {subject}",
        ),
        (
            "and has to repeat the class", "and hopes to become a {job}", "because of trouble at home",
            "although nobody expected it", "and the teacher was proud", "after a long illness", "to impress the parents",
            "and plays football in the break",
        ),
    ),
    "housing": (
        (
            "rents a flat in {city}", "sold the house in {town}", "lives alone in {city}", "shares a kitchen with {friend}",
            "pays {amount} dollars for the rent", "has {count} dogs", "painted the walls red", "never opens the door",
            "moved into apartment {room}", "broke a window",
        ),
        (
            "and plays loud music at night", "because the heating is broken", "and the key is under the mat",
            "while the landlord is away", "and the police came", "next to the park", "and grows roses in the garden",
            "since the roof is leaking",
        ),
    ),
}  # fmt: skip

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
        acts, reasons = dice.choice(topics)
        template = f"{dice.choice(OPENINGS)} " if dice.random() < OPENING else ""
        template += f"{dice.choice(PEOPLE)} {dice.choice(acts)}"
        template += f" {dice.choice(reasons)}" if dice.random() < REASON else ""
        template += dice.choice(ENDINGS) if dice.random() < ENDING else ""
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
