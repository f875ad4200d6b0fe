"""The command line: filters, nearest alternatives for wrong words, flags from configurations, tables and files."""

import json

import pytest

from implementations.__main__ import asks_for_paper_scale, main, years


def run(capsys, *words):
    code = main(list(words))
    return code, capsys.readouterr().out


def test_list_filters_by_facets(capsys):
    code, out = run(capsys, "list", "--access", "label-only", "--modality", "image")
    assert code == 0
    assert "brep_mi" in out
    assert "gmi " not in out.replace("brep_mi", "")


def test_list_by_text_year_and_implementation(capsys):
    assert "geia" in run(capsys, "list", "--text", "Haoran")[1]
    out = run(capsys, "list", "--implemented", "--year", "2019-2019")[1]
    assert "dlg" in out
    assert "gmi" not in out
    assert "gmi" in run(capsys, "list", "--reproduced")[1]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["list", "--access", "whitebox"], "did you mean white-box"),
        (["list", "--year", "last"], "a year or a range"),
        (["show", "gmmi"], "did you mean gmi"),
        (["run", "brepmi"], "did you mean brep_mi"),
        (["run", "gmi", "--device", "tpu"], "cannot be used here"),
        (["run", "gmi", "--only", "pixel_from_noise"], "did you mean pixels_from_noise"),
        (["run", "gmi", "--space", "latents"], "space must be latent or pixels"),
        (["run", "gmi", "--scale", "papers"], "did you mean paper"),
        (["sweep", "gmi", "--defense", "gmi"], "gmi is no defense"),
        (["sweep", "gmi", "dlg"], "one setting"),
    ],
)
def test_wrong_words_get_the_nearest(capsys, words, hint):
    code, out = run(capsys, *words)
    assert code == 2
    assert hint in " ".join(out.split())


def test_show_prints_entry_configuration_and_measurements(capsys):
    code, out = run(capsys, "show", "gmi")
    assert code == 0
    for expected in ("Secret Revealer", "Yuheng Zhang", "identity_weight = 100.0", "random_latents", "prior-beats-pixels"):
        assert expected in out


def test_help_of_a_run_explains_every_field(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["run", "gmi", "--help"])
    assert exit_.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "--identity-weight" in out
    assert "weight of the identity loss" in out
    assert "--setting.public-domain" in out


@pytest.mark.slow
@pytest.mark.xdist_group("classifier")
def test_run_prints_a_table_and_writes_picture_and_numbers(capsys, tmp_path):
    words = ["run", "gmi", "--steps", "2", "--per-class", "1", "--seed", "1", "--only", "public_mean", "method"]
    code, out = run(capsys, *words, "--out", str(tmp_path))
    assert code == 0
    assert "accuracy_top1" in out
    assert (tmp_path / "gmi" / "picture.png").read_bytes().startswith(b"\x89PNG")
    numbers = json.loads((tmp_path / "gmi" / "numbers.json").read_text())
    assert set(numbers) == {"public_mean", "method"}
    assert numbers["method"]["queries"] > 0


@pytest.mark.slow
@pytest.mark.xdist_group("tabular")
def test_sweep_measures_once_and_resumes(capsys, tmp_path):
    words = ["sweep", "fredrikson2014_warfarin", "--seeds", "0", "1", "--out", str(tmp_path)]
    assert run(capsys, *words)[0] == 0
    files = sorted(tmp_path.glob("*.json"))
    assert len(files) == 2
    stamps = [path.stat().st_mtime_ns for path in files]
    assert run(capsys, *words)[0] == 0
    assert [path.stat().st_mtime_ns for path in files] == stamps, "finished jobs are not measured again"


def test_small_parts():
    assert years("2020") == (2020, 2020)
    assert years("2019-2021") == (2019, 2021)
    assert asks_for_paper_scale(["--seed", "1", "--scale", "paper"])
    assert asks_for_paper_scale(["--scale=paper"])
    assert not asks_for_paper_scale(["--scale", "quick", "paper"])
