"""What an attacker may see, and nothing else: targets grant oracles, knowledge remembers what was read.

A trained victim is a `Target`. It stays with its setting and *grants* access: `target.grant("label-only")` gives an oracle
that answers labels, counts queries and holds to a budget. `Knowledge` holds what the attacker may assume besides. Three
promises can therefore be tested for every attack at once: the oracle it takes is the access its catalog entry declares, the
knowledge it reads is the knowledge its entry declares, and private data that it was never given cannot change its result.

Python cannot seal an object against a determined reader. The oracles keep what they hide in name-mangled attributes, and a
contract test refuses any method that touches an underscored attribute of another object.
"""

import copy
import difflib
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class AccessDenied(Exception):
    """The target does not grant this kind of access."""


class QueryBudgetExceeded(Exception):
    """Answering would take more queries than the budget allows. Nothing was answered."""


class NotKnown(AttributeError):
    """The adversary of this threat model does not know this."""


class Oracle:
    """One kind of access. Counts what is asked; subclasses say what is answered.

    `budget` is the largest number of queries (single inputs, not batches); None means no limit.
    `reads` names the knowledge terms that using this oracle implied, such as `client-weights`.
    """

    access: ClassVar[str]

    def __init__(self, device: torch.device | str, budget: int | None = None):
        if budget is not None and budget < 0:
            raise ValueError(f"a query budget must be at least 0, not {budget}")
        self.device = torch.device(device)
        self.budget = budget
        self.__queries = 0
        self.__reads: set[str] = set()

    @property
    def queries(self) -> int:
        """How many single inputs have been asked so far."""
        return self.__queries

    @property
    def reads(self) -> frozenset[str]:
        return frozenset(self.__reads)

    def _charge(self, count: int) -> None:
        if self.budget is not None and self.__queries + count > self.budget:
            raise QueryBudgetExceeded(
                f"{count} more queries on a {self.access} oracle would exceed its budget of {self.budget} "
                f"({self.__queries} used); raise the budget or ask less"
            )
        self.__queries += count

    def _read(self, term: str) -> None:
        self.__reads.add(term)


class WhiteBox(Oracle):
    """The frozen model (a copy), its logits and gradients through it; never its training data."""

    access = "white-box"

    def __init__(self, model: nn.Module, device: torch.device | str, budget: int | None = None):
        super().__init__(device, budget)
        self.model = frozen_copy(model, device)
        self.model.register_forward_pre_hook(lambda _, inputs: self._charge(len(inputs[0])))

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (B, C) of inputs x (B, ...), differentiable in x."""
        return self.model(x)


class Scores(Oracle):
    """Probabilities (or a predicted value) of a batch, detached; optionally only the `top_k` largest, or rounded."""

    access = "scores"

    def __init__(
        self,
        ask: Callable[[Any], Tensor],
        device: torch.device | str,
        budget: int | None = None,
        top_k: int | None = None,
        decimals: int | None = None,
    ):
        super().__init__(device, budget)
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {top_k}")
        self.__ask, self.__top_k, self.__decimals = ask, top_k, decimals

    @torch.no_grad()
    def __call__(self, x: Any) -> Tensor:
        """Scores (B, C), or (B,) where the model predicts one number; entries outside the top k are 0."""
        self._charge(len(x))
        scores = self.__ask(x).detach()
        if self.__top_k is not None and self.__top_k < scores.shape[-1]:
            kept = scores.topk(self.__top_k, dim=-1)
            scores = torch.zeros_like(scores).scatter(-1, kept.indices, kept.values)
        return scores if self.__decimals is None else scores.round(decimals=self.__decimals)


class LabelOnly(Oracle):
    """The arg-max class and nothing else."""

    access = "label-only"

    def __init__(self, ask: Callable[[Any], Tensor], device: torch.device | str, budget: int | None = None):
        super().__init__(device, budget)
        self.__ask = ask

    @torch.no_grad()
    def __call__(self, x: Any) -> Tensor:
        """Predicted classes (B,), int64."""
        self._charge(len(x))
        return self.__ask(x).argmax(dim=-1)


class Gradients(Oracle):
    """The updates that clients sent and the model they were computed on; never the batches.

    `model` is a copy whose parameters require gradients. `update` maps each parameter's name to a tensor (V, *shape): one
    observed gradient for each of V independent victims, so that all are attacked in one batch.
    """

    access = "gradients"

    def __init__(self, model: nn.Module, update: Mapping[str, Tensor], device: torch.device | str):
        super().__init__(device, None)
        self.model = frozen_copy(model, device).requires_grad_(True)
        self.update = {name: value.detach().to(device).clone() for name, value in update.items()}


class Features(Oracle):
    """Activations that crossed the cut of a split network; never the inputs.

    `observed` is (V, ...), one activation for each of V inputs. The client part comes as its weights (`client="weights"`),
    as answers to queries (`client="queries"`) or not at all (`client="none"`); using it is recorded as knowledge.
    """

    access = "features"

    def __init__(
        self,
        module: nn.Module,
        observed: Tensor,
        device: torch.device | str,
        budget: int | None = None,
        client: str = "none",
    ):
        super().__init__(device, budget)
        if client not in ("weights", "queries", "none"):
            raise ValueError(f"the client part is granted as weights, queries or none, not {client!r}")
        self.observed = observed.detach().to(device).clone()
        self.__client, self.__grant = frozen_copy(module, device), client
        self.__client.register_forward_pre_hook(lambda _, inputs: self._charge(len(inputs[0])))

    @property
    def client(self) -> nn.Module:
        """The frozen client part, where its weights were granted."""
        if self.__grant != "weights":
            raise AccessDenied(f"the client part was granted as {self.__grant!r}, not as weights")
        self._read("client-weights")
        return self.__client

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Activations of the adversary's own inputs x (B, ...), detached, where queries were granted."""
        if self.__grant != "queries":
            raise AccessDenied(f"the client part was granted as {self.__grant!r}, not for queries")
        self._read("client-queries")
        return self.__client(x).detach()


class Embeddings(Oracle):
    """Vectors that an encoder made of private inputs, and the encoder's answers; never its weights.

    `observed` is (V, D). Encoding inputs of the adversary's own is recorded as `encoder-queries`.
    """

    access = "embeddings"

    def __init__(
        self,
        observed: Tensor,
        device: torch.device | str,
        encode: Callable[[Sequence[Any]], Tensor] | None = None,
        budget: int | None = None,
    ):
        super().__init__(device, budget)
        self.observed = observed.detach().to(device).clone()
        self.__encode = encode

    @torch.no_grad()
    def __call__(self, inputs: Sequence[Any]) -> Tensor:
        """Embeddings (B, D) of the adversary's own inputs."""
        if self.__encode is None:
            raise AccessDenied("this adversary holds vectors only; the encoder answers no queries")
        self._read("encoder-queries")
        self._charge(len(inputs))
        return self.__encode(inputs).detach()


class LogProbs(Oracle):
    """Log-probabilities of the tokens of given texts; no weights, no training text."""

    access = "logprobs"

    def __init__(self, ask: Callable[[Tensor], Tensor], device: torch.device | str, budget: int | None = None):
        super().__init__(device, budget)
        self.__ask = ask

    @torch.no_grad()
    def __call__(self, tokens: Tensor) -> Tensor:
        """log P(token t | tokens before t) in nats, (B, T - 1) for token ids (B, T); the first token is given."""
        self._charge(len(tokens))
        return self.__ask(tokens).detach()


class Text(Oracle):
    """Generated text only."""

    access = "text"

    def __init__(self, generate: Callable[[Sequence[str]], list[str]], device: torch.device | str, budget: int | None = None):
        super().__init__(device, budget)
        self.__generate = generate

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """One continuation for each prompt."""
        self._charge(len(prompts))
        return self.__generate(prompts)


class Explanations(Oracle):
    """Scores with an explanation of each, such as a saliency map; no weights."""

    access = "explanations"

    def __init__(self, ask: Callable[[Tensor], tuple[Tensor, Tensor]], device: torch.device | str, budget: int | None = None):
        super().__init__(device, budget)
        self.__ask = ask

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, C) and explanations (B, ...) of inputs x, detached."""
        self._charge(len(x))
        scores, explanation = self.__ask(x)
        return scores.detach(), explanation.detach()


class Updates(Oracle):
    """Answers of the versions of a model before and after each update, oldest first."""

    access = "updates"

    def __init__(self, versions: Sequence[Callable[[Any], Tensor]], device: torch.device | str, budget: int | None = None):
        super().__init__(device, budget)
        self.__versions = tuple(versions)

    @torch.no_grad()
    def __call__(self, x: Any) -> list[Tensor]:
        """Scores (B, C) from each version for the same inputs x; a query is one input to one version."""
        self._charge(len(x) * len(self.__versions))
        return [version(x).detach() for version in self.__versions]


class Samples(Oracle):
    """Samples of a released generative model or a synthetic data set; a query is one sample."""

    access = "samples"

    def __init__(self, draw: Callable[[int], Any], device: torch.device | str, budget: int | None = None):
        super().__init__(device, budget)
        self.__draw = draw

    @torch.no_grad()
    def __call__(self, count: int) -> Any:
        """`count` samples in the setting's own form."""
        self._charge(count)
        return self.__draw(count)


ORACLES: dict[str, type[Oracle]] = {
    oracle.access: oracle
    for oracle in (
        WhiteBox, Scores, LabelOnly, Gradients, Features, Embeddings, LogProbs, Text, Explanations, Updates, Samples
    )
}  # fmt: skip


class Target:
    """A trained victim and the kinds of access it can grant.

    `model` is the owner's: settings and defenses use it, attacks never receive a Target. `grants` maps an access term to a
    function that makes a fresh oracle from keyword options (`budget`, and what the oracle takes besides).
    """

    def __init__(self, model: nn.Module, grants: Mapping[str, Callable[..., Oracle]], name: str = "undefended"):
        unknown = set(grants) - set(ORACLES)
        if unknown:
            raise ValueError(f"no such access: {', '.join(sorted(unknown))}; there are {', '.join(ORACLES)}")
        self.model = model
        self.name = name
        self._grants = dict(grants)

    @property
    def accesses(self) -> tuple[str, ...]:
        """The access terms that `grant` takes."""
        return tuple(self._grants)

    def grant(self, access: str, **options: Any) -> Oracle:
        """A fresh oracle, its counter at zero. Raises AccessDenied for an access that this target does not grant."""
        if access not in self._grants:
            near = difflib.get_close_matches(access, self._grants, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise AccessDenied(f"{self.name} does not grant {access!r}, only {', '.join(self._grants)}{hint}")
        oracle = self._grants[access](**options)
        if oracle.access != access:
            raise TypeError(f"{self.name} answers a grant of {access!r} with a {oracle.access} oracle")
        return oracle

    def fingerprint(self) -> str:
        """SHA-256 of all parameters and buffers: equal before and after an attack, which changes nothing."""
        return fingerprint(self.model)


def classifier_target(
    model: nn.Module,
    device: torch.device | str,
    prepare: Callable[[Any], Tensor] = lambda x: x,
    name: str = "undefended",
) -> Target:
    """A Target that grants white-box, scores and label-only access to a module that gives logits (B, C)."""

    def probabilities(x: Any) -> Tensor:
        return model(prepare(x)).softmax(dim=-1)

    return Target(
        model,
        {
            "white-box": lambda **options: WhiteBox(model, device, **options),
            "scores": lambda **options: Scores(probabilities, device, **options),
            "label-only": lambda **options: LabelOnly(probabilities, device, **options),
        },
        name,
    )


class Knowledge:
    """What the adversary may assume besides its oracle. Attributes are terms of the catalog with `_` for `-`.

    Every field read is remembered in `reads`. `only` narrows it to what a catalog entry declares, so that an attack which
    reaches for more fails with NotKnown.
    """

    def __init__(self, **fields: Any):
        self.__dict__["_fields"] = dict(fields)
        self.__dict__["_reads"] = set()

    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__.get("_fields", {})
        if name.startswith("__") or name not in fields:
            known = ", ".join(sorted(fields)) or "nothing"
            raise NotKnown(f"this adversary does not know {name!r}; it knows {known}")
        self._reads.add(name.replace("_", "-"))
        return fields[name]

    def __setattr__(self, name: str, value: Any) -> None:
        raise TypeError("knowledge is given by the setting and cannot be changed")

    @property
    def reads(self) -> frozenset[str]:
        """The terms read so far, as the catalog writes them."""
        return frozenset(self._reads)

    @property
    def terms(self) -> frozenset[str]:
        """The terms on offer, as the catalog writes them."""
        return frozenset(name.replace("_", "-") for name in self._fields)

    def only(self, terms: Iterable[str]) -> "Knowledge":
        """A fresh Knowledge with just these terms, where they are on offer."""
        wanted = {term.replace("-", "_") for term in terms}
        return Knowledge(**{name: value for name, value in self._fields.items() if name in wanted})


def frozen_copy(model: nn.Module, device: torch.device | str) -> nn.Module:
    """A deep copy in evaluation mode on `device` whose parameters take no gradient."""
    return copy.deepcopy(model).to(device).eval().requires_grad_(False)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of a module's state, by name, shape and value."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
