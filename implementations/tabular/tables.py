"""Tables of people: records with named attributes and the outcome that a model predicts.

`warfarin` is synthetic: people drawn by us, doses by the published IWPC regression. `fair` and `diabetes` are real and ship
with statsmodels and scikit-learn. `iwpc` reads the consortium's own table from a file that the user has.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..common.folders import missing_data

# Weekly warfarin dose by the pharmacogenetic regression of the International Warfarin Pharmacogenetics Consortium (N Engl J Med
# 360:753-764, 2009, supplement S1e): the square root of mg/week is this intercept plus these terms.
INTERCEPT, AGE_DECADE, HEIGHT_CM, WEIGHT_KG = 5.6044, -0.2614, 0.0087, 0.0128
RACE = {"White": 0.0, "Asian": -0.1092, "Black": -0.2760}
VKORC1 = {"G/G": 0.0, "A/G": -0.8677, "A/A": -1.6974}
CYP2C9 = {"*1/*1": 0.0, "*1/*2": -0.5211, "*1/*3": -0.9357, "*2/*2": -1.0616, "*2/*3": -1.9206, "*3/*3": -2.3312}
ENZYME_INDUCER, AMIODARONE = 1.1816, -0.5503

# Patients of the consortium by race (Limdi et al., Blood 115:3827-3834, 2010): 3113 White, 1103 Asian, 670 Black.
RACE_SHARES = (3113 / 4886, 1103 / 4886, 670 / 4886)
# Allele frequencies in the 1000 Genomes populations (European, East Asian, African), as tabulated by Shendre et al.,
# Pharmacogenomics 19:1357-1371, 2018, Table 1.
VKORC1_A = (0.388, 0.885, 0.054)
CYP2C9_2, CYP2C9_3 = (0.124, 0.001, 0.008), (0.073, 0.034, 0.002)
# The rest are rough values of ours: age decades 2 to 9 (20-29 to 90+), height and weight by race, shares of co-medication.
AGE_SHARES = (0.03, 0.06, 0.12, 0.19, 0.25, 0.25, 0.095, 0.005)
HEIGHT = ((171.0, 10.0), (162.0, 8.5), (170.0, 10.0))  # cm, mean and standard deviation
WEIGHT = ((83.0, 18.0), (63.0, 11.0), (87.0, 20.0))  # kg
ENZYME_SHARE, AMIODARONE_SHARE = 0.02, 0.06
# Standard deviation of the square root of a dose about the regression, ours: gives a mean absolute error near 9 mg/week
# (7.4, 9.3 and 11.6 for Asian, White and Black patients in Limdi et al., Table 2).
DOSE_NOISE = 0.95

IWPC_TREE = """  FOLDER/
    iwpc.csv   the consortium's table (PharmGKB, "International Warfarin Pharmacogenetics Consortium data set"), saved as CSV
               with its own column names: Race (OMB), Age, Height (cm), Weight (kg), Amiodarone (Cordarone),
               Carbamazepine (Tegretol), Phenytoin (Dilantin), Rifampin or Rifampicin, Therapeutic Dose of Warfarin,
               CYP2C9 consensus, VKORC1 -1639 consensus; people with a missing value among them are left out"""
IWPC_COLUMNS = (
    "Race (OMB)", "Age", "Height (cm)", "Weight (kg)", "Amiodarone (Cordarone)", "Carbamazepine (Tegretol)",
    "Phenytoin (Dilantin)", "Rifampin or Rifampicin", "Therapeutic Dose of Warfarin", "CYP2C9 consensus",
    "VKORC1 -1639 consensus",
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Records (N, D) float32, one column an attribute; a discrete attribute holds codes 0 .. K - 1.

    `values` names the codes of each discrete column; the other columns are numbers in their own units. `outcomes` (N,) is what
    the model predicts: a number, or a class where `classes` is not empty. `basic` names what a stranger may know of a person.
    """

    names: tuple[str, ...]
    records: Tensor
    values: Mapping[str, tuple[str, ...]]
    outcomes: Tensor
    outcome: str
    classes: tuple[str, ...]
    basic: tuple[str, ...]
    sensitive: str
    sought: str  # the sensitive value that precision at k is about

    def column(self, name: str) -> int:
        """Its position in a record. Raises KeyError for an unknown name."""
        if name not in self.names:
            raise KeyError(f"no attribute {name!r}; there are {', '.join(self.names)}")
        return self.names.index(name)

    @property
    def discrete(self) -> dict[int, int]:
        """Number of values of each discrete column, by position."""
        return {self.column(name): len(values) for name, values in self.values.items()}


WARFARIN = {
    "names": ("age", "race", "height", "weight", "enzyme inducer", "amiodarone", "cyp2c9", "vkorc1"),
    "values": {
        "race": tuple(RACE),
        "enzyme inducer": ("no", "yes"),
        "amiodarone": ("no", "yes"),
        "cyp2c9": tuple(CYP2C9),
        "vkorc1": tuple(VKORC1),
    },
    "outcome": "square root of the stable weekly dose (mg)",
    "classes": (),
    "basic": ("age", "race", "height", "weight"),
    "sensitive": "vkorc1",
    "sought": "A/A",
}


def iwpc_regression(records: Tensor) -> Tensor:
    """The IWPC prediction (N,), square root of mg/week, of records (N, 8) in the order of `WARFARIN`."""
    age, race, height, weight, enzyme, amiodarone, cyp2c9, vkorc1 = records.unbind(dim=1)

    def effect(terms: Mapping[str, float], codes: Tensor) -> Tensor:
        return records.new_tensor(list(terms.values()))[codes.long()]

    body = AGE_DECADE * age + HEIGHT_CM * height + WEIGHT_KG * weight
    drugs = ENZYME_INDUCER * enzyme + AMIODARONE * amiodarone
    return INTERCEPT + body + drugs + effect(RACE, race) + effect(CYP2C9, cyp2c9) + effect(VKORC1, vkorc1)


def cyp2c9_code(first: Tensor, second: Tensor) -> Tensor:
    """Code of a genotype from its two alleles, each 1, 2 or 3, in any order."""
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    table = first.new_tensor([[0, 1, 2], [1, 3, 4], [2, 4, 5]])
    return table[low - 1, high - 1]


def warfarin(people: int, generator: torch.Generator, mixed: bool = True) -> Table:
    """Synthetic warfarin patients, of the consortium's mix of races or (not `mixed`) all of its largest one.

    Genotypes are in Hardy-Weinberg proportions within a race; doses follow the regression with Gaussian noise.
    """
    device = generator.device

    def draw(shares: Tensor, count: int = people) -> Tensor:
        return torch.multinomial(shares, count, replacement=True, generator=generator)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    def normal(moments: tuple[tuple[float, float], ...]) -> Tensor:
        mean, deviation = torch.tensor(moments, device=device)[race].unbind(dim=1)
        return mean + deviation * torch.randn(people, generator=generator, device=device).clamp(-2.5, 2.5)

    race = draw(torch.tensor(RACE_SHARES if mixed else (1.0, 0.0, 0.0), device=device))
    age = draw(torch.tensor(AGE_SHARES, device=device)) + 2
    vkorc1 = (uniform(people, 2) < torch.tensor(VKORC1_A, device=device)[race][:, None]).sum(dim=1)
    two, three = (torch.tensor(shares, device=device)[race][:, None] for shares in (CYP2C9_2, CYP2C9_3))
    lot = uniform(people, 2)
    alleles = 1 + (lot < two + three).long() + (lot < three).long()
    columns = [
        age,
        race,
        normal(HEIGHT),
        normal(WEIGHT),
        uniform(people) < ENZYME_SHARE,
        uniform(people) < AMIODARONE_SHARE,
        cyp2c9_code(alleles[:, 0], alleles[:, 1]),
        vkorc1,
    ]
    records = torch.stack([column.float() for column in columns], dim=1)
    noise = DOSE_NOISE * torch.randn(people, generator=generator, device=device)
    return Table(records=records, outcomes=(iwpc_regression(records) + noise).clamp(min=1.0), **WARFARIN)


def fair(device: torch.device | str) -> Table:
    """The survey of 6,366 married women of Fair (1978) that ships with statsmodels.

    The outcome is the rating of the marriage in three classes, the sensitive attribute whether any affair is told.
    """
    from statsmodels.datasets import fair as source

    data = source.load_pandas().data
    columns = {
        "age": "age", "years married": "yrs_married", "children": "children", "religious": "religious",
        "education": "educ", "occupation": "occupation", "husband's occupation": "occupation_husb",
    }  # fmt: skip
    codes, values = [], {}
    for name, column in columns.items():
        levels, code = np.unique(data[column].to_numpy(), return_inverse=True)
        values[name] = tuple(f"{level:g}" for level in levels)
        codes.append(code)
    values["affair"] = ("no", "yes")
    codes.append((data["affairs"] > 0).to_numpy())
    records = torch.tensor(np.stack(codes, axis=1), dtype=torch.float32, device=device)
    rating = torch.tensor(data["rate_marriage"].to_numpy(), device=device).long()
    return Table(
        names=tuple(values),
        records=records,
        values=values,
        outcomes=(rating - 3).clamp(min=0),
        outcome="rating of the marriage",
        classes=("fair or worse", "good", "very good"),
        basic=("age", "years married", "children", "education", "occupation", "husband's occupation"),
        sensitive="affair",
        sought="yes",
    )


def diabetes(device: torch.device | str) -> Table:
    """The 442 patients of Efron et al. (2004) that ship with scikit-learn; sex is inferred from the course of the disease."""
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    records = torch.tensor(data.data, dtype=torch.float32, device=device)
    names = tuple(data.feature_names)
    records[:, names.index("sex")] -= 1
    return Table(
        names=names,
        records=records,
        values={"sex": ("1", "2")},
        outcomes=torch.tensor(data.target, dtype=torch.float32, device=device),
        outcome="progression of the disease after a year",
        classes=(),
        basic=tuple(name for name in names if name != "sex"),
        sensitive="sex",
        sought="2",
    )


def iwpc(folder: Path | str, device: torch.device | str) -> Table:
    """The consortium's patients from FOLDER/iwpc.csv. Raises FileNotFoundError, with the expected tree, for what is missing."""
    path = Path(folder) / "iwpc.csv"
    if not path.is_file():
        raise missing_data(folder, IWPC_TREE, "no iwpc.csv in it")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in IWPC_COLUMNS if name not in (reader.fieldnames or [])]
        if missing:
            raise missing_data(path, IWPC_TREE, f"no column {', '.join(repr(name) for name in missing)}")
        rows = [found for row in reader if (found := iwpc_row(row)) is not None]
    if not rows:
        raise missing_data(path, IWPC_TREE, "no person without a missing value")
    data = torch.tensor(rows, dtype=torch.float32, device=device)
    return Table(records=data[:, :-1].contiguous(), outcomes=data[:, -1].sqrt(), **WARFARIN)


def iwpc_row(row: Mapping[str, str]) -> list[float] | None:
    """One person of the consortium's table: the record and the weekly dose in mg; None where a value is missing."""
    races = {"White": 0, "Asian": 1, "Black or African American": 2}
    race = races.get(row["Race (OMB)"].strip())
    cyp2c9 = tuple(CYP2C9).index(code) if (code := row["CYP2C9 consensus"].strip()) in CYP2C9 else None
    vkorc1 = tuple(VKORC1).index(code) if (code := row["VKORC1 -1639 consensus"].strip()) in VKORC1 else None
    age = row["Age"].strip()[:1]  # "60 - 69" is decade 6, "90+" is 9
    amounts = [row[name].strip() for name in ("Height (cm)", "Weight (kg)", "Therapeutic Dose of Warfarin")]
    inducers = [row[name].strip() for name in ("Carbamazepine (Tegretol)", "Phenytoin (Dilantin)", "Rifampin or Rifampicin")]
    amiodarone = row["Amiodarone (Cordarone)"].strip()
    if None in (race, cyp2c9, vkorc1) or not age.isdigit() or not all(map(is_number, amounts)):
        return None
    height, weight, dose = map(float, amounts)
    # The regression takes a co-medication that was not recorded for one that was not taken.
    return [float(age), race, height, weight, float("1" in inducers), float(amiodarone == "1"), cyp2c9, vkorc1, dose]


def is_number(text: str) -> bool:
    """Whether a cell holds a positive number; the table writes NA for a missing one."""
    return text.replace(".", "", 1).isdigit() and float(text) > 0
