"""The tabular setting: where its data come from, who is in which group, what its metrics measure."""

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeClassifier

from implementations.experiment import Reconstruction
from implementations.tabular import tables
from implementations.tabular.models import DEPTH, MIN_LEAF, Linear, Tree
from implementations.tabular.setting import TabularConfig, TabularSetting
from implementations.threat_model import AccessDenied


@pytest.fixture(scope="module")
def setting() -> TabularSetting:
    return TabularSetting(TabularConfig(people=1500, victims=300))


def test_the_regression_is_the_published_one():
    # 65 years (decade 6), White, 170 cm, 80 kg: 5.6044 - 1.5684 + 1.4790 + 1.0240 = 6.5390
    man = [6.0, 0, 170, 80, 0, 0, 0, 0]
    # Asian, takes amiodarone and an inducer, *1/*3 and A/A: 6.5390 - 0.1092 - 0.5503 + 1.1816 - 0.9357 - 1.6974 = 4.4280
    other = [6.0, 1, 170, 80, 1, 1, 2, 2]
    found = tables.iwpc_regression(torch.tensor([man, other], device="cpu"))
    assert found.tolist() == pytest.approx([6.5390, 4.4280], abs=1e-4)


def test_genotypes_follow_hardy_weinberg_within_a_race():
    table = tables.warfarin(60_000, torch.Generator("cpu").manual_seed(0))
    race, genotype = table.records[:, table.column("race")], table.records[:, table.column("vkorc1")]
    for code, a in enumerate(tables.VKORC1_A):
        shares = torch.bincount(genotype[race == code].long(), minlength=3) / (race == code).sum()
        assert shares.tolist() == pytest.approx([(1 - a) ** 2, 2 * a * (1 - a), a**2], abs=0.012)
    residual = table.outcomes - tables.iwpc_regression(table.records)
    assert residual.std().item() == pytest.approx(tables.DOSE_NOISE, abs=0.02)
    error = (table.outcomes.square() - tables.iwpc_regression(table.records).square()).abs().mean()
    assert 8 <= error <= 10  # mg a week, as in the consortium's table


def test_cyp2c9_codes_do_not_depend_on_the_order_of_alleles():
    alleles = torch.cartesian_prod(torch.arange(1, 4, device="cpu"), torch.arange(1, 4, device="cpu"))
    names = [tuple(tables.CYP2C9)[code] for code in tables.cyp2c9_code(alleles[:, 0], alleles[:, 1])]
    assert names == [f"*{min(pair)}/*{max(pair)}" for pair in alleles.tolist()]


def test_groups_are_disjoint(setting):
    def rows(records, outcomes):
        return {tuple(row) for row in torch.cat([records, outcomes[:, None]], dim=1).tolist()}

    members, public = rows(setting.private["records"], setting.private["outcomes"]), rows(*setting.public)
    victims = setting.known.clone()
    outcomes = {round(value, 6) for value in setting.outcomes.tolist()}
    assert not members & public
    inside = {round(value, 6) for value in setting.private["outcomes"].tolist()}
    assert len(victims) == 300
    assert setting.private["member"].sum() == 150
    assert {round(v, 6) for v in setting.outcomes[setting.private["member"]].tolist()} <= inside
    assert not outcomes & {round(row[-1], 6) for row in public}


def test_the_unknown_is_hidden(setting):
    hidden = [setting.table.column(name) for name in ("enzyme inducer", "amiodarone", "cyp2c9", "vkorc1")]
    assert sorted(setting.unknown) == hidden
    known = setting.knowledge().non_sensitive_attributes
    assert known[:, hidden].isnan().all()
    assert not known[:, [c for c in range(known.shape[1]) if c not in hidden]].isnan().any()


def test_truth_scores_one_and_the_marginal_guess_scores_chance(setting):
    truth = torch.nn.functional.one_hot(setting.private["sensitive"], 3).float()
    best = setting.evaluate(Reconstruction(truth))
    assert {name: best[name] for name in ("accuracy", "mcc", "auc", "precision_at_k", "accuracy_heldout")} == {
        "accuracy": 1, "mcc": 1, "auc": 1, "precision_at_k": 1, "accuracy_heldout": 1
    }  # fmt: skip
    guess = setting.evaluate(setting.baselines()["marginal"](torch.Generator("cpu")))
    assert guess["auc"] == pytest.approx(0.5)
    assert guess["mcc"] == 0
    base = (setting.private["sensitive"] == setting.sought)[setting.private["member"]].float().mean().item()
    assert guess["precision_at_k"] == pytest.approx(base)  # ties are counted in proportion


def test_shape_is_checked(setting):
    with pytest.raises(ValueError, match=r"\(300, 3\)"):
        setting.evaluate(Reconstruction(torch.zeros(300, 2, device="cpu")))


def test_ideal_beats_imputation_and_imputation_beats_the_marginals(setting):
    found = {name: setting.evaluate(make(torch.Generator("cpu"))) for name, make in setting.baselines().items()}
    assert found["ideal"]["auc"] > found["imputation"]["auc"] + 0.03
    assert found["imputation"]["auc"] > found["marginal"]["auc"] + 0.1
    assert found["ideal"]["behind_ideal"] == 0


def test_linear_is_least_squares():
    generator = torch.Generator("cpu").manual_seed(0)
    numbers = torch.randn(200, 2, generator=generator)
    codes = torch.randint(0, 3, (200, 1), generator=generator).float()
    records, noise = torch.cat([numbers, codes], dim=1), 0.3 * torch.randn(200, generator=generator)
    outcomes = numbers[:, 0] - 2 * numbers[:, 1] + torch.tensor([0.0, 1.0, 5.0])[codes[:, 0].long()] + noise
    model = Linear(3, {2: 3}, 0)
    model.fit(records, outcomes)
    design = np.concatenate([numbers, codes == 1, codes == 2, np.ones((200, 1))], axis=1)
    expected = design @ np.linalg.lstsq(design, outcomes.numpy(), rcond=None)[0]
    assert np.allclose(model(records).detach(), expected, atol=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_tree_answers_as_scikit_learn_does(seed):
    generator = torch.Generator("cpu").manual_seed(seed)
    records = torch.randn(400, 4, generator=generator)
    labels = (records[:, 0] > 0).long() + (records[:, 1] * records[:, 2] > 0.3).long()
    model = Tree(4, {}, 3)
    model.fit(records, labels)
    grown = DecisionTreeClassifier(max_depth=DEPTH, min_samples_leaf=MIN_LEAF, random_state=0).fit(records, labels)
    expected = np.clip(grown.predict_proba(records), 1e-3, None)
    expected /= expected.sum(axis=1, keepdims=True)
    assert np.allclose(model(records).softmax(dim=1), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "metric", "floor"),
    [
        ({"data": "fair", "model": "tree"}, "outcome_accuracy", 0.44),
        ({"data": "fair", "model": "linear"}, "outcome_accuracy", 0.44),
        ({"data": "diabetes", "background": "all"}, "r2", 0.3),
        ({"model": "mlp", "people": 1500}, "r2", 0.35),
        ({"model": "tree", "people": 1500}, "r2", 0.25),
    ],
)
def test_every_target_predicts(options, metric, floor):
    setting = TabularSetting(TabularConfig(victims=100, **options))
    assert setting.utility(setting.target)[metric] >= floor


def test_only_classifiers_answer_labels(setting):
    with pytest.raises(AccessDenied):
        setting.target.grant("label-only")
    assert "label-only" in TabularSetting(TabularConfig(data="fair", victims=100)).target.accesses


def test_confusion_matrix_rows_are_distributions():
    statistics = TabularSetting(TabularConfig(data="fair", victims=100)).error_statistics()
    assert statistics.shape == (3, 3)
    assert statistics.sum(dim=1).tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "adult"}, "data"),
        ({"model": "forest"}, "model"),
        ({"background": "some"}, "background"),
        ({"population": "many"}, "population"),
        ({"victims": 7}, "victims"),
        ({"members": 0.9}, "members"),
        ({"preset": "paper"}, "folder"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TabularConfig(**options)


def test_wrong_attribute_is_refused():
    with pytest.raises(KeyError, match="vkorc1"):
        TabularSetting(TabularConfig(sensitive="vkorc"))
    with pytest.raises(ValueError, match="height is a number"):
        TabularSetting(TabularConfig(sensitive="height"))


def iwpc_csv(folder, rows: int, header: tuple[str, ...] = tables.IWPC_COLUMNS) -> None:
    """A table of the consortium's layout: seven columns more than needed would not matter, so one is put in."""
    generator = torch.Generator("cpu").manual_seed(0)
    lines = [",".join(f'"{name}"' for name in ("PharmGKB Subject ID", *header))]
    for index in range(rows):
        pick = lambda *values: values[int(torch.randint(len(values), (1,), generator=generator))]  # noqa: E731
        cells = [pick("White", "Asian", "Black or African American"), pick("50 - 59", "60 - 69", "90+"), pick("170.2", "160")]
        cells += [pick("80", "65.5"), pick("0", "1", "NA"), pick("0", "1"), pick("0", "NA"), "0"]
        cells += [pick("35", "21.5"), pick("*1/*1", "*1/*3"), pick("A/A", "A/G", "G/G")]
        lines.append(",".join([f"PA{index}", *cells][: len(header) + 1]))
    lines.append("PA-x,White,60 - 69,NA,80,0,0,0,0,35,*1/*1,A/A")  # no height: left out
    lines.append("PA-y,Unknown,60 - 69,170,80,0,0,0,0,35,*1/*1,A/A")  # no race: left out
    (folder / "iwpc.csv").write_text("\n".join(lines), encoding="utf-8")


def test_paper_preset_reads_the_consortiums_table(tmp_path):
    iwpc_csv(tmp_path, 120)
    setting = TabularSetting(TabularConfig(preset="paper", folder=str(tmp_path), victims=20))
    assert len(setting.table.records) == 120
    assert set(setting.table.records[:, 0].tolist()) == {5, 6, 9}
    assert set(setting.table.outcomes.square().round(decimals=3).tolist()) == {35, 21.5}
    assert setting.utility(setting.target)["r2"] < 1


def test_one_row_of_the_consortiums_table():
    cells = ("Black or African American", "60 - 69", "170", "80", "1", "0", "1", "NA", "49", "*1/*2", "A/G")
    row = dict(zip(tables.IWPC_COLUMNS, cells, strict=True))
    assert tables.iwpc_row(row) == [6, 2, 170, 80, 1, 1, 1, 1, 49]
    assert tables.iwpc_row({**row, "CYP2C9 consensus": "NA"}) is None


def test_paper_preset_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no iwpc\.csv.*\n.*FOLDER"):
        TabularSetting(TabularConfig(preset="paper", folder=str(tmp_path)))
    iwpc_csv(tmp_path, 60, tables.IWPC_COLUMNS[:-1])
    with pytest.raises(FileNotFoundError, match="VKORC1 -1639 consensus"):
        TabularSetting(TabularConfig(preset="paper", folder=str(tmp_path)))


def test_the_target_trains_where_gradients_are_off(tmp_path, monkeypatch):
    """A target is trained when first asked for, and that may be inside a block without gradients."""
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path))
    with torch.no_grad():
        assert (
            TabularSetting(TabularConfig(seed=71, people=300, victims=20, model="mlp")).target.fingerprint()
            == TabularSetting(TabularConfig(seed=71, people=300, victims=20, model="mlp")).target.fingerprint()
        )


def test_pictures_and_samples(setting):
    guess = setting.baselines()["imputation"](torch.Generator("cpu"))
    drawn = setting.figure({"imputation": guess})
    assert len(drawn.axes) == 1
    rows = setting.samples({"imputation": guess})
    assert len(rows) == 6
    assert set(rows[0]) == {"private", "imputation"}
