"""The typed model of one entry of papers.yaml: every field, its rules, and what it means to readers and editors."""

import datetime
import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from scripts.vocabulary import VOCABULARIES

FIRST_YEAR = 1980
LONGEST = 5_000  # characters of one text
ID = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
CLAIM_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
ARXIV = re.compile(r"(\d\d)(0[1-9]|1[0-2])\.(\d{4,5})|[a-z]+(-[a-z]+)*(\.[A-Z]{2})?/\d\d(0[1-9]|1[0-2])\d{3}", re.ASCII)
DOI = re.compile(r"10\.\d{4,9}(\.\d+)*/(?:(?![{}\"\\])[!-~])+", re.ASCII)
OPENREVIEW = re.compile(r"[A-Za-z0-9_-]{6,20}")
URL = re.compile(
    r"https?://([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,}(:\d{1,5})?([/?#][^\s<>\"{}|\\^`\x00-\x20\x7f-\U0010ffff]*)?"
)
TAG = re.compile(
    r"<(?:[a-z/!?][^<>]*>|/?(?:script|style|iframe|img|svg|object|embed|link|meta|base|form)\b|!--)", re.IGNORECASE
)
SCHEME = re.compile(r"(?<![\w-])(?:(?:javascript|vbscript)\s*:|data:\S)", re.IGNORECASE)
ENTITY = re.compile(r"&(?:#\d+|#x[0-9a-f]+|lt|gt|amp|quot|apos|nbsp);", re.IGNORECASE)
# control characters, soft hyphen, invisible marks and direction overrides, the sign of damaged text, non-characters
HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffd-\uffff]")
NEEDS_THREAT_MODEL = ("attack", "defense")


def wrong(allowed: str, nearest: str | None = None, **context: Any) -> PydanticCustomError:
    """The error of a rule: what is allowed, and the nearest value that is, if there is an obvious one."""
    return PydanticCustomError("catalog", "{allowed}", {"allowed": allowed, "nearest": nearest, **context})


# --- texts -----------------------------------------------------------------------------------------------------------------


def plain_text(value: str) -> str:
    """Plain text on one line. Raises for markup, dangerous schemes, hidden characters and blanks at the ends."""
    if not value.strip():
        raise wrong("some text is expected; leave the field out if there is nothing to say")
    if len(value) > LONGEST:
        raise wrong(f"at most {LONGEST:,} characters are allowed")
    if value != value.strip():
        raise wrong("no blanks or line breaks at either end (block text ends with `>-`, not `>` or `|`)", value.strip()[:80])
    if "\n" in value:
        raise wrong("one paragraph without line breaks: use `>-` and no empty line")
    if match := HIDDEN.search(value):
        raise wrong(f"plain text is expected; delete the control or invisible character U+{ord(match.group()):04X}")
    if "<" in value and (match := TAG.search(value)):
        tag = match.group()[:30]
        raise wrong(f"plain text without HTML is expected; `{tag}` reads as a tag (put blanks round a less-than sign)")
    if ":" in value and (match := SCHEME.search(value)):
        raise wrong(f"`{match.group()}` is not allowed in text or links")
    if "&" in value and (match := ENTITY.search(value)):
        raise wrong(f"plain text is expected; write the character itself instead of `{match.group()}`")
    return value


def title_text(value: str) -> str:
    """A title: plain text without a full stop at its end."""
    if plain_text(value).endswith(".") and not value.endswith(("...", "etc.")):
        raise wrong("no full stop at the end of a title", value.rstrip("."))
    return value


def person(value: str) -> str:
    """A person's name, given name first."""
    plain_text(value)
    if "," in value:
        family, _, given = (part.strip() for part in value.partition(","))
        raise wrong('one person a list item, as "Given Family" without a comma', f"{given} {family}".strip())
    if re.search(r"\d|@|;|\bet al\b| and | & ", value) or value.lower() in ("others", "et al."):
        raise wrong('one person a list item, as "Given Family"; list all authors')
    return value


def paper_id(value: str) -> str:
    """An id in lower_snake_case."""
    if len(value) > 80 or not ID.fullmatch(value):
        near = re.sub(r"[^a-z0-9]+", "_", _ascii(value).lower())[:80].strip("_")
        raise wrong("lower_snake_case that starts with a letter, such as plg_mi", near if ID.fullmatch(near) else None)
    return value


def claim_id(value: str) -> str:
    """An id in kebab-case."""
    if len(value) > 80 or not CLAIM_ID.fullmatch(value):
        near = re.sub(r"[^a-z0-9]+", "-", _ascii(value).lower())[:80].strip("-")
        raise wrong("kebab-case such as prior-beats-pixels", near or None)
    return value


def _ascii(value: str) -> str:
    return unicodedata.normalize("NFKD", value[:200]).encode("ascii", "ignore").decode()


# --- identifiers and links -----------------------------------------------------------------------------------------------


def arxiv_id(value: str) -> str:
    """An arXiv identifier without version: 2411.10023 (five digits since 2015) or cs/0701001."""
    match = ARXIV.fullmatch(value)
    digits = 5 if match and match[1] and int(match[1]) >= 15 else 4
    if not match or (match[3] and len(match[3]) != digits) or (match[1] and value < "0704"):
        inside = re.search(r"\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7}", value)
        near = inside.group() if inside and inside.group() != value and ARXIV.fullmatch(inside.group()) else None
        raise wrong("an arXiv id without version or address, such as 2411.10023 or cs/0701001", near)
    return value


def doi_name(value: str) -> str:
    """A DOI such as 10.1109/CVPR42600.2020.00033, without an address."""
    plain_text(value)
    if not DOI.fullmatch(value):
        inside = DOI.search(value)
        raise wrong("a DOI without address, such as 10.1145/2810103.2813677", inside.group() if inside else None)
    return value


def openreview_id(value: str) -> str:
    """The id of an OpenReview forum."""
    if not OPENREVIEW.fullmatch(value):
        inside = re.search(r"[?&]id=([A-Za-z0-9_-]{6,20})(?![A-Za-z0-9_-])", value)
        raise wrong("the id of an OpenReview forum, such as rJxtCnN2wB", inside[1] if inside else None)
    return value


def link(value: str) -> str:
    """An http(s) address of a named host, in ASCII."""
    if len(value) > 2_000 or not URL.fullmatch(value):
        near = f"https://{value}" if URL.fullmatch(f"https://{value}") else None
        raise wrong("an http:// or https:// address in ASCII, without blanks", near)
    return plain_text(value)


def publisher_link(value: str) -> str:
    """A link that is not merely one of the identifiers written as an address."""
    link(value)
    for field, pattern in (
        ("arxiv", r"https?://(?:www\.)?arxiv\.org/(?:abs|pdf)/(.+?)(?:v\d+)?(?:\.pdf)?"),
        ("doi", r"https?://(?:dx\.)?doi\.org/(.+)"),
        ("openreview", r"https?://openreview\.net/(?:forum|pdf)\?id=([A-Za-z0-9_-]+)"),
    ):
        if match := re.fullmatch(pattern, value):
            raise wrong(f"identifiers are not written as addresses: use the field `{field}`", f"{field}: {match[1]}")
    return value


# --- terms, numbers, lists -----------------------------------------------------------------------------------------------


class Term:
    """Marks a text as a term of a closed vocabulary; editors get the terms with their definitions."""

    def __init__(self, vocabulary: str) -> None:
        self.vocabulary = vocabulary

    @property
    def terms(self) -> Mapping[str, str]:
        return VOCABULARIES[self.vocabulary]

    def check(self, value: str) -> str:
        if value not in self.terms:
            allowed = f"allowed: {', '.join(self.terms)}" if len(self.terms) <= 12 else f"a term of `{self.vocabulary}`"
            raise wrong(allowed, vocabulary=self.vocabulary)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.terms), "markdownEnumDescriptions": list(self.terms.values())}


def year_number(value: int) -> int:
    """A year between FIRST_YEAR and the next."""
    last = datetime.date.today().year + 1
    if not FIRST_YEAR <= value <= last:
        raise wrong(f"a year from {FIRST_YEAR} to {last}")
    return value


def finite(value: float) -> float:
    """A finite number."""
    if not math.isfinite(value):
        raise wrong("a finite number is expected")
    return value


def as_tuple(value: Any) -> Any:
    """Lists become tuples: the model is frozen."""
    return tuple(value) if isinstance(value, list) else value


def one_or_more(value: Any) -> Any:
    """A single text becomes a tuple of one."""
    return (value,) if isinstance(value, str) else as_tuple(value)


def unique(values: tuple) -> tuple:
    """Values without repetition."""
    if len(set(values)) != len(values):
        again = next(index for index, value in enumerate(values) if value in values[:index])
        raise wrong("each value once", path=(again,))
    return values


def _pattern(pattern: str, example: str, **more: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example], **more})


FILLED = Field(min_length=1)
Text = Annotated[str, AfterValidator(plain_text)]
Person = Annotated[str, AfterValidator(person)]
Authors = Annotated[tuple[Person, ...], FILLED, BeforeValidator(as_tuple)]
Arxiv = Annotated[str, AfterValidator(arxiv_id), _pattern(r"^(\d{4}\.\d{4,5}|[a-z.A-Z-]+/\d{7})$", "2411.10023")]
Doi = Annotated[str, AfterValidator(doi_name), _pattern(r"^10\.\d{4,9}", "10.1145/2810103.2813677")]
OpenReview = Annotated[str, AfterValidator(openreview_id), _pattern(f"^{OPENREVIEW.pattern}$", "rJxtCnN2wB")]
PublisherLink = Annotated[str, AfterValidator(publisher_link), _pattern("^https?://", "https://www.usenix.org/", format="uri")]
Link = Annotated[str, AfterValidator(link), _pattern("^https?://", "https://github.com/owner/name", format="uri")]
PaperId = Annotated[str, AfterValidator(paper_id), _pattern(f"^{ID.pattern}$", "plg_mi")]
Texts = Annotated[tuple[Text, ...], BeforeValidator(as_tuple), AfterValidator(unique)]
Links = Annotated[tuple[Link, ...], BeforeValidator(as_tuple), AfterValidator(unique)]
Ids = Annotated[tuple[PaperId, ...], BeforeValidator(as_tuple), AfterValidator(unique)]


def term_list(vocabulary: str, *rules: Any) -> Any:
    """The type of a list of terms without repetition."""
    term = Annotated[str, Term(vocabulary)]
    return Annotated[tuple[term, ...], *rules, BeforeValidator(as_tuple), AfterValidator(unique)]


def term_or_terms(vocabulary: str) -> Any:
    """The type of a term, or a list of several, kept as a list of at least one."""
    term = Annotated[str, Term(vocabulary)]
    written = BeforeValidator(one_or_more, json_schema_input_type=term | Annotated[tuple[term, ...], FILLED])
    return Annotated[tuple[term, ...], FILLED, written, AfterValidator(unique)]


# --- the model -----------------------------------------------------------------------------------------------------------


class Record(BaseModel):
    """Strict and frozen; unknown fields are errors."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ThreatModel(Record):
    """Who attacks, with what, for what."""

    access: term_or_terms("access") = Field(description="What the adversary sees of the model. A list if variants differ.")
    goal: term_or_terms("goal") = Field(description="What the adversary wants to rebuild.")
    knowledge: term_list("knowledge") = Field((), description="What the adversary knows besides.")
    adversary: term_or_terms("adversary") = Field(description="Who the adversary is.")


class Taxonomy(Record):
    """How the method works, in closed terms."""

    approach: term_or_terms("approach") = Field(description="The way it works at large.")
    techniques: term_list("technique") = Field((), description="The building blocks it uses.")


class Relations(Record):
    """Ids of other papers."""

    extends: Ids = Field((), description=VOCABULARIES["relation"]["extends"])
    breaks: Ids = Field((), description=VOCABULARIES["relation"]["breaks"])
    defends_against: Ids = Field((), description=VOCABULARIES["relation"]["defends_against"])
    compares_with: Ids = Field((), description=VOCABULARIES["relation"]["compares_with"])
    surveys: Ids = Field((), description=VOCABULARIES["relation"]["surveys"])


class Limitations(Record):
    """The survey's three questions, each answered in a sentence or two."""

    generalizability: Text | None = Field(None, description="To which models, data and domains does it carry over?")
    practicality: Text | None = Field(None, description="What does it cost and assume in practice?")
    guarantees: Text | None = Field(None, description="What is proved or certified?")


class Reported(Record):
    """A number that the paper itself reports."""

    dataset: Text = Field(description="The data set of the number.")
    metric: Text = Field(description="The metric, in the paper's words.")
    value: Annotated[float, AfterValidator(finite)] = Field(description="The method's number.")
    baseline: Annotated[float, AfterValidator(finite)] | None = Field(None, description="The number it is compared with.")
    unit: Text | None = Field(None, description="The unit, such as dB or percent.")
    source: Text = Field(description="Where in the paper the number stands, such as Table 1.")
    note: Text | None = Field(None, description="What a reader must know to compare.")


class CatalogClaim(Record):
    """A claim of the paper, which its implementation checks."""

    id: Annotated[str, AfterValidator(claim_id), _pattern(f"^{CLAIM_ID.pattern}$", "prior-beats-pixels")] = Field(
        description="Name of the claim, kebab-case; the implementation checks it under the same name."
    )
    says: Text = Field(description="The claim in one sentence.")
    reported: Reported | None = Field(None, description="The paper's own number for it.")


class Entry(Record):
    """One paper."""

    id: PaperId = Field(description="lower_snake_case: the method's usual name, else first author, year and a telling word.")
    title: Annotated[str, AfterValidator(title_text)] = Field(description="Title as published, without a full stop.")
    method: Text | None = Field(None, description="Short name of the method.")
    authors: Authors = Field(description="All authors in order, each as Given Family.")
    corporate: bool = Field(False, description="Whether the authors are organisations, not people.")
    year: Annotated[int, AfterValidator(year_number)] = Field(
        description="Year of publication at the venue.", json_schema_extra={"minimum": FIRST_YEAR}
    )
    venue: Annotated[str, Term("venue")] = Field(description="Where it was published.")
    arxiv: Arxiv | None = Field(None, description="arXiv id without version.")
    doi: Doi | None = Field(None, description="DOI, not an address.")
    openreview: OpenReview | None = Field(None, description="Id of the OpenReview forum.")
    url: PublisherLink | None = Field(None, description="The publisher's page, where no identifier leads to it.")
    code: Links = Field((), description="Official code.")
    kind: Annotated[str, Term("kind")] = Field(description="What sort of paper it is.")
    setting: Annotated[str, Term("setting")] = Field(description="What is attacked or defended.")
    modality: term_list("modality", FILLED) = Field(description="The kinds of private data.")
    threat_model: ThreatModel | None = Field(
        None, description="Who attacks, with what, for what; attacks and defenses need it.", validate_default=True
    )
    taxonomy: Taxonomy | None = Field(None, description="How the method works.")
    datasets: Texts = Field((), description="Data sets of the paper's experiments.")
    metrics: Texts = Field((), description="Metrics of the paper's experiments.")
    relations: Relations = Field(Relations(), description="Links to other papers of the catalog.")
    summary: Text | None = Field(None, description="What it does and why it works, in our words.")
    contributions: Texts = Field((), description="What is new, one sentence each.")
    limitations: Limitations | None = Field(None, description="Generalizability, practicality, guarantees.")
    claims: Annotated[tuple[CatalogClaim, ...], BeforeValidator(as_tuple)] = Field(
        (), description="What the paper claims and the implementation checks."
    )
    basis: Text | None = Field(None, description="Sections and tables where the judgements above can be checked.")
    in_survey: bool = Field(False, description="Whether the survey that this project follows covers the paper.")
    verified: Link | None = Field(None, description="The public page that the facts were checked against; nothing if none was.")
    note: Text | None = Field(None, description="Anything else.")

    @field_validator("threat_model")
    @classmethod
    def _attacks_and_defenses_need_it(cls, value: ThreatModel | None, info: ValidationInfo) -> ThreatModel | None:
        if value is None and info.data.get("kind") in NEEDS_THREAT_MODEL:
            raise wrong(f"the kind `{info.data['kind']}` needs a threat model: access, goal, knowledge, adversary")
        return value

    @field_validator("claims")
    @classmethod
    def _claim_ids_are_unique(cls, claims: tuple[CatalogClaim, ...]) -> tuple[CatalogClaim, ...]:
        seen: set[str] = set()
        for index, claim in enumerate(claims):
            if claim.id in seen:
                raise wrong("each claim id once in an entry", path=(index, "id"))
            seen.add(claim.id)
        return claims

    @property
    def links(self) -> dict[str, str]:
        """Addresses built from the identifiers, by name: arXiv, DOI, OpenReview, publisher."""
        addresses = {
            "arXiv": self.arxiv and f"https://arxiv.org/abs/{self.arxiv}",
            "DOI": self.doi and f"https://doi.org/{_quoted(self.doi)}",
            "OpenReview": self.openreview and f"https://openreview.net/forum?id={self.openreview}",
            "publisher": self.url,
        }
        return {name: address for name, address in addresses.items() if address}

    @property
    def depth(self) -> str:
        """`full` when every judgement is there, else `facts`. Only attacks and defenses need threat model and taxonomy."""
        method = self.kind not in NEEDS_THREAT_MODEL or (self.threat_model and self.taxonomy)
        return "full" if self.summary and method and self.contributions and self.limitations and self.basis else "facts"

    def terms(self, facet: str) -> tuple[str, ...]:
        """The entry's terms of a vocabulary (kind, setting, modality, access, goal, knowledge, adversary, approach, technique,
        venue). Raises KeyError for another name."""
        if facet in ("kind", "setting", "venue"):
            return (getattr(self, facet),)
        if facet == "modality":
            return self.modality
        if facet in ("access", "goal", "knowledge", "adversary"):
            return getattr(self.threat_model, facet) if self.threat_model else ()
        if facet in ("approach", "technique"):
            return (self.taxonomy.approach if facet == "approach" else self.taxonomy.techniques) if self.taxonomy else ()
        raise KeyError(facet)


def _quoted(identifier: str) -> str:
    """Percent-encodes what may stand in a DOI but not in an address."""
    from urllib.parse import quote

    return quote(identifier, safe="/:;()._-")
