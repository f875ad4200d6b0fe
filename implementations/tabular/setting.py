"""Setting `tabular`: a model predicts an outcome from records of people; a sensitive attribute of some of them is inferred.

The victims are half members (people the model was trained on) and half others from the same population. Metrics without a
suffix are about members, those with `_heldout` about the others: where both are equal, the model tells about the population,
not about the people in its training set (Jayaraman and Evans, CCS 2022).

A reconstruction's `data` is (V, K): for each victim a probability of each of the K values of the sensitive attribute.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from sklearn.metrics import matthews_corrcoef, roc_auc_score
from torch import Tensor

from ..common.plots import figure as house_figure
from ..experiment import Metric, Reconstruction, Setting, SettingConfig, require
from ..threat_model import Knowledge, LabelOnly, Scores, Target, WhiteBox
from . import tables
from .models import MODELS, Linear, fitted
from .tables import Table


@dataclass(frozen=True, kw_only=True)
class TabularConfig(SettingConfig):
    """Data, target and what is known about the victims."""

    data: str = "warfarin"  # warfarin (synthetic), fair or diabetes (real); the paper preset reads the IWPC table instead
    model: str = "linear"  # of the target: linear (or logistic) regression, tree, mlp
    sensitive: str = ""  # attribute to infer; empty for the table's own: vkorc1, affair, sex
    background: str = "basic"  # known of a victim: basic (warfarin: age, race, height, weight) or all but the sensitive one
    population: str = "mixed"  # of warfarin: mixed (races in the consortium's shares) or single (its largest race alone)
    people: int = 5000  # size of the synthetic population; real tables are used whole
    members: float = 0.5  # share of the people whom the target is trained on
    victims: int = 1000  # people attacked, half of them members; at most a fifth of all
    top: float = 0.1  # precision at k: k is this share of the victims, those surest to have the value sought

    def __post_init__(self):
        super().__post_init__()
        require(self.data in ("warfarin", "fair", "diabetes"), f"data must be warfarin, fair or diabetes, not {self.data!r}")
        require(self.model in MODELS, f"model must be one of {', '.join(MODELS)}, not {self.model!r}")
        require(self.population in ("mixed", "single"), f"population must be mixed or single, not {self.population!r}")
        require(self.background in ("basic", "all"), f"background must be basic or all, not {self.background!r}")
        require(0.2 <= self.members <= 0.7, f"members must lie in [0.2, 0.7], not {self.members}")
        require(self.people >= 50, f"at least 50 people are needed, not {self.people}")
        require(self.victims >= 10 and self.victims % 2 == 0, f"victims must be even and at least 10, not {self.victims}")
        require(0 < self.top <= 1, f"top must lie in (0, 1], not {self.top}")


class AttributeDomain(NamedTuple):
    """Which column is sensitive, which are unknown (the sensitive one among them), how many values each discrete one has."""

    sensitive: int
    unknown: tuple[int, ...]
    values: dict[int, int]


class PublicRecords(NamedTuple):
    """Records (P, D) of other people, complete, with their outcomes (P,)."""

    records: Tensor
    outcomes: Tensor


def macro_auc(truth: Tensor, scores: Tensor) -> float:
    """Area under the ROC curve of each value against the rest, averaged over values that occur; truth (V,), scores (V, K)."""
    present = [value for value in range(scores.shape[1]) if 0 < (truth == value).sum() < len(truth)]
    return float(sum(roc_auc_score(truth == value, scores[:, value]) for value in present) / len(present))


class TabularSetting(Setting):
    """Private records, a target trained on them, victims of whom some attributes are known, public records of others."""

    name = "tabular"
    config_type = TabularConfig
    headline = "accuracy"
    metrics = {
        f"{name}{suffix}": Metric(f"{says}, {who}")
        for suffix, who in (("", "people of the training set"), ("_heldout", "people the model has not seen"))
        for name, says in {
            "accuracy": "share of victims whose sensitive value is guessed right",
            "mcc": "Matthews correlation of guessed and true values",
            "auc": "area under the ROC curve, one value against the rest, averaged over values",
            "precision_at_k": "share with the value sought among the tenth surest to have it",
        }.items()
    } | {
        "behind_ideal": Metric("AUC of a model trained on the private records themselves, less this AUC; members", "", False),
    }
    utility_metrics = {
        "r2": Metric("explained variance of the outcome of people the model has not seen", "", False),
        "outcome_accuracy": Metric("share of right classes for people the model has not seen", "", False),
    }

    def __init__(self, config: TabularConfig | None = None, device: torch.device | str = "cpu"):
        super().__init__(config, device)
        table, config = self.table, self.config
        self.sensitive = table.column(config.sensitive or table.sensitive)
        require(self.sensitive in table.discrete, f"{table.names[self.sensitive]} is a number; a discrete attribute is needed")
        self.values = table.values[table.names[self.sensitive]]
        known = [table.column(name) for name in table.basic] if config.background == "basic" else range(len(table.names))
        self.unknown = tuple(c for c in range(len(table.names)) if c not in known or c == self.sensitive)

        order = torch.randperm(len(table.records), generator=config.generator(device, 1), device=self.device)
        inside, outside = order.split([size := int(config.members * len(order)), len(order) - size])
        half = min(config.victims // 2, len(order) // 10)
        victims = torch.cat([inside[:half], outside[:half]])
        shuffled = torch.randperm(2 * half, generator=config.generator(device, 2), device=self.device)
        victims = victims[shuffled]
        public = outside[half:]
        self.public = PublicRecords(table.records[public], table.outcomes[public])
        # Precision at k is about the table's own value, or the second commonest of another attribute.
        common = torch.bincount(self.public.records[:, self.sensitive].long(), minlength=len(self.values)).argsort(
            descending=True
        )
        self.sought = self.values.index(table.sought) if table.sought in self.values else int(common[1])
        self.known = table.records[victims].clone()
        self.known[:, list(self.unknown)] = torch.nan
        self.outcomes = table.outcomes[victims]
        self.training = (table.records[inside], table.outcomes[inside])
        self.private = {
            "sensitive": table.records[victims, self.sensitive].long(),
            "member": shuffled < half,
            "records": self.training[0].clone(),
            "outcomes": self.training[1].clone(),
        }

    @functools.cached_property
    def table(self) -> Table:
        """All people, private and public."""
        config = self.config
        if config.preset == "paper":
            table = tables.iwpc(config.folder, self.device)
        elif config.data == "warfarin":
            return tables.warfarin(config.people, config.generator(self.device), config.population == "mixed")
        else:
            table = {"fair": tables.fair, "diabetes": tables.diabetes}[config.data](self.device)
        require(len(table.records) >= 50, f"at least 50 people are needed, the table has {len(table.records)}")
        return table

    @functools.cached_property
    def target(self) -> Target:
        table, config = self.table, self.config
        return self.target_of(fitted(config.model, *self.training, table.discrete, len(table.classes), config.seed))

    def target_of(self, model: torch.nn.Module, name: str = "undefended") -> Target:
        """A Target around any model of records (B, D): it gives a number (B,) or logits (B, C)."""

        def answer(records: Tensor) -> Tensor:
            out = model(records)
            return out.softmax(dim=1) if self.table.classes else out

        grants = {
            "white-box": lambda **options: WhiteBox(model, self.device, **options),
            "scores": lambda **options: Scores(answer, self.device, **options),
        }
        if self.table.classes:
            grants["label-only"] = lambda **options: LabelOnly(answer, self.device, **options)
        return Target(model, grants, name)

    def error_statistics(self) -> Tensor:
        """What a publication says about the model's error, measured on its training set.

        The standard error of a regression (a number), or shares P(predicted class | true class) (C, C), a row a true class.
        """
        model, (records, outcomes) = self.target.model, self.training
        with torch.no_grad():
            answers = model(records)
        classes = len(self.table.classes)
        if not classes:
            return (answers - outcomes).square().mean().sqrt()
        counts = torch.zeros(classes, classes, device=self.device)
        counts.index_put_((outcomes, answers.argmax(dim=1)), counts.new_ones(len(outcomes)), accumulate=True)
        return counts / counts.sum(dim=1, keepdim=True).clamp(min=1)

    def knowledge(self) -> Knowledge:
        """Terms: non-sensitive-attributes (V, D) with NaN for the unknown; outcome (V,); marginals {column: (K,)} of discrete
        attributes; error-statistics; attribute-domain; public-records."""
        discrete = self.table.discrete
        records = self.public.records
        marginals = {
            column: torch.bincount(records[:, column].long(), minlength=count).float() / len(records)
            for column, count in discrete.items()
        }
        return Knowledge(
            non_sensitive_attributes=self.known.clone(),
            outcome=self.outcomes.clone(),
            marginals=marginals,
            error_statistics=self.error_statistics(),
            attribute_domain=AttributeDomain(self.sensitive, self.unknown, discrete),
            public_records=self.public,
        )

    # --- baselines -------------------------------------------------------------------------------------------------------

    def _without_model(self, records: Tensor, outcomes: Tensor, use_outcome: bool) -> Tensor:
        """Probabilities (V, K) by logistic regression from the known attributes, fitted to records whose value is known."""
        kept = [column for column in range(records.shape[1]) if column not in self.unknown]
        discrete = {kept.index(column): count for column, count in self.table.discrete.items() if column in kept}

        def features(people: Tensor, outcome: Tensor) -> Tensor:
            return torch.cat([people[:, kept], outcome[:, None].float()], dim=1) if use_outcome else people[:, kept]

        if use_outcome and self.table.classes:
            discrete[len(kept)] = len(self.table.classes)
        regression = Linear(len(kept) + use_outcome, discrete, len(self.values)).to(self.device)
        torch.nn.init.zeros_(regression.layer.weight)
        torch.nn.init.zeros_(regression.layer.bias)
        regression.fit(features(records, outcomes), records[:, self.sensitive].long())
        with torch.no_grad():
            return regression(features(self.known, self.outcomes)).softmax(dim=1)

    @functools.cached_property
    def _ideal(self) -> Tensor:
        """Probabilities (V, K) from the private training records, sensitive values and outcomes included."""
        return self._without_model(*self.training, use_outcome=True)

    def baselines(self) -> dict[str, Callable[[torch.Generator], Reconstruction]]:
        def marginal(generator: torch.Generator) -> Reconstruction:
            """The commonest value for everybody: what the marginals alone give."""
            counts = torch.bincount(self.public.records[:, self.sensitive].long(), minlength=len(self.values)).float()
            return Reconstruction((counts / counts.sum()).expand(len(self.known), -1).clone())

        def imputation(generator: torch.Generator) -> Reconstruction:
            """Logistic regression on public records, from the known attributes alone; neither model nor outcome."""
            return Reconstruction(self._without_model(*self.public, use_outcome=False))

        def imputation_outcome(generator: torch.Generator) -> Reconstruction:
            """Logistic regression on public records, from the known attributes and the outcome; no model."""
            return Reconstruction(self._without_model(*self.public, use_outcome=True))

        def ideal(generator: torch.Generator) -> Reconstruction:
            """Logistic regression on the private training records themselves, sensitive values included, with the outcome."""
            return Reconstruction(self._ideal.clone())

        return {"marginal": marginal, "imputation": imputation, "imputation_outcome": imputation_outcome, "ideal": ideal}

    # --- evaluation ------------------------------------------------------------------------------------------------------

    def evaluate(self, reconstruction: Reconstruction) -> dict[str, float]:
        scores = reconstruction.data.detach().double()
        truth, member = self.private["sensitive"], self.private["member"]
        if scores.shape != (len(truth), len(self.values)):
            raise ValueError(f"a reconstruction here is {(len(truth), len(self.values))}, not {tuple(scores.shape)}")
        found = {}
        for suffix, chosen in (("", member), ("_heldout", ~member)):
            true, score = truth[chosen].cpu(), scores[chosen].cpu()
            guess = score.argmax(dim=1)
            k = max(1, round(self.config.top * len(true)))
            # Ties are counted in proportion: everybody with the k-th score takes part in the remaining places.
            last = score[:, self.sought].topk(k).values[-1]
            above, tied = score[:, self.sought] > last, score[:, self.sought] == last
            hit = (true == self.sought).double()
            hits = hit[above].sum() + (k - above.sum()) * hit[tied].mean()
            found |= {
                f"accuracy{suffix}": (guess == true).double().mean().item(),
                f"mcc{suffix}": float(matthews_corrcoef(true, guess)),
                f"auc{suffix}": macro_auc(true, score),
                f"precision_at_k{suffix}": (hits / k).item(),
            }
        found["behind_ideal"] = macro_auc(truth[member].cpu(), self._ideal[member].double().cpu()) - found["auc"]
        return found

    @torch.no_grad()
    def utility(self, target: Target) -> dict[str, float]:
        answers, outcomes = target.model(self.public.records), self.public.outcomes
        if self.table.classes:
            return {"outcome_accuracy": (answers.argmax(dim=1) == outcomes).float().mean().item()}
        return {"r2": 1 - ((answers - outcomes).square().mean() / outcomes.var(unbiased=False)).item()}

    # --- pictures --------------------------------------------------------------------------------------------------------

    def figure(self, reconstructions: Mapping[str, Reconstruction]) -> Figure:
        """One table a method: of the victims with a true value (row), the share for whom each value is guessed (column)."""
        shown = dict(list(reconstructions.items())[:6])
        count, truth = len(self.values), self.private["sensitive"].cpu()
        drawn, axes = house_figure(1.1 + 1.75 * len(shown), 2.5, ncols=len(shown), squeeze=False)
        for place, (name, found) in zip(axes[0], shown.items(), strict=True):
            guess = found.data.argmax(dim=1).cpu()
            shares = torch.stack([torch.bincount(guess[truth == v], minlength=count).double() for v in range(count)])
            shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=1)
            place.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
            for row in range(count):
                for column in range(count):
                    ink = "white" if shares[row, column] > 0.6 else "#1f2937"
                    text = f"{shares[row, column]:.0%}"
                    place.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)
            place.set_xticks(range(count), self.values)
            place.set_yticks(range(count), self.values if place is axes[0][0] else [""] * count)
            place.tick_params(length=0)
            place.spines[:].set_visible(False)
            place.set_title(name.replace("_", " "), fontsize=9)
        axes[0][0].set_ylabel(f"true {self.table.names[self.sensitive]}")
        drawn.supxlabel("guessed value", fontsize=9)
        return drawn

    def samples(self, reconstructions: Mapping[str, Reconstruction]) -> list[dict[str, str]]:
        """The first victims: what is known of them, the true value, and each method's guess with its probability."""
        rows = []
        for index in range(6):
            facts = []
            for column, name in enumerate(self.table.names):
                if column not in self.unknown:
                    value = self.known[index, column].item()
                    facts.append(
                        f"{name} {self.table.values[name][int(value)] if name in self.table.values else f'{value:.0f}'}"
                    )
            outcome = self.outcomes[index].item()
            facts.append(self.table.classes[int(outcome)] if self.table.classes else f"outcome {outcome:.1f}")
            row = {"private": f"{', '.join(facts)}: {self.values[self.private['sensitive'][index]]}"}
            for name, found in reconstructions.items():
                sure, guess = found.data[index].max(dim=0)
                row[name] = f"{self.values[guess]} ({sure:.0%})"
            rows.append(row)
        return rows
