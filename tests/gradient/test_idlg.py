"""iDLG: the label rule by hand, its certainty for single examples, and its limits."""

import pytest
import torch

from implementations.gradient.dlg import gradient_distance
from implementations.gradient.idlg import EXPERIMENT, IDLGConfig, attack, labels_by_signs
from implementations.gradient.setting import GradientConfig, GradientSetting, gradient_target


def rows(coefficients, features):
    """The last layer's gradient (1, K, D) from p - y (K,) and features (D,), and a convolution's for company."""
    return {
        "0.weight": torch.ones(1, 2, 3, 5, 5),
        "7.weight": torch.outer(torch.tensor(coefficients), torch.tensor(features))[None],
    }


def test_rule_by_hand():
    """p = (0.2, 0.5, 0.3) and label 2: p - y = (0.2, 0.5, -0.7)."""
    assert labels_by_signs(rows([0.2, 0.5, -0.7], [1.0, 3.0])).tolist() == [2]


def test_features_of_either_sign_do_not_matter():
    """Inner products of rows do not change their sign with the features, unlike the rows' own signs."""
    for features in ([1.0, 3.0], [-1.0, -3.0], [2.0, -2.0]):
        assert labels_by_signs(rows([0.1, -0.6, 0.2, 0.3], features)).tolist() == [1]


def test_a_class_of_vanishing_probability_does_not_tie():
    assert labels_by_signs(rows([0.0, 0.4, -0.4, 0.0], [1.0, 1.0])).tolist() in ([1], [2])  # p and y agree but for one class
    assert labels_by_signs(rows([0.0, 0.1, 0.3, -0.4], [1.0, 1.0])).tolist() == [3]


@pytest.mark.parametrize("model", ["lenet", "convnet", "resnet"])
def test_every_label_of_every_network_is_read_off(model):
    setting = GradientSetting(GradientConfig(model=model, victims=40, size=16, num_classes=20))
    assert torch.equal(labels_by_signs(setting.target.grant("gradients").update)[:, None], setting.private["labels"])


def test_changed_gradients_leave_most_labels_readable():
    """Pruning and noise spoil the products of unlikely classes; the large ones still tell."""
    for options in ({"prune": 0.3}, {"noise_variance": 1e-4}):
        setting = GradientSetting(GradientConfig(victims=40, size=16, **options))
        found = labels_by_signs(setting.target.grant("gradients").update)[:, None]
        assert (found == setting.private["labels"]).float().mean() > 0.9


def test_the_rule_has_power():
    """With labels exchanged before the gradient is computed it reads the exchanged ones, not those in the files."""
    setting = GradientSetting(GradientConfig(victims=8, size=16))
    other = (setting.private["labels"] + 3) % 10
    update = gradient_target(setting.network, setting.private["images"], other).grant("gradients").update
    assert torch.equal(labels_by_signs(update)[:, None], other)
    shuffled = {name: value.roll(1, dims=1) if name == "7.weight" else value for name, value in update.items()}
    assert not torch.equal(labels_by_signs(shuffled)[:, None], other)


def test_labels_are_certain_before_any_search_and_a_guess_is_not():
    setting = GradientSetting(GradientConfig(victims=20, size=16))
    oracle, knowledge = EXPERIMENT.observe(setting)
    found = attack(oracle, knowledge, IDLGConfig(evaluations=1, starts=1))
    assert setting.evaluate(found)["label_accuracy"] == 1
    guessed = attack(oracle, knowledge, IDLGConfig(evaluations=1, starts=1, labels="guessed"))
    assert setting.evaluate(guessed)["label_accuracy"] < 0.5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_picture_follows(seed):
    setting = GradientSetting(GradientConfig(victims=2, size=16))
    oracle, knowledge = EXPERIMENT.observe(setting)
    assert setting.evaluate(attack(oracle, knowledge, IDLGConfig(seed=seed, evaluations=250)))["psnr"] > 25
    wrong = attack(oracle, knowledge, IDLGConfig(seed=seed, evaluations=250, labels="guessed"))
    assert (setting.evaluate(wrong)["psnr"] < 20) or setting.evaluate(wrong)["label_accuracy"] > 0


def test_batches_are_refused():
    setting = GradientSetting(GradientConfig(victims=1, batch_size=2, size=16))
    with pytest.raises(ValueError, match="single examples"):
        attack(*EXPERIMENT.observe(setting), IDLGConfig(evaluations=2))


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="labels"):
        IDLGConfig(labels="known")


def test_dlg_and_idlg_match_the_same_distance():
    assert attack.__globals__["gradient_distance"] is gradient_distance
