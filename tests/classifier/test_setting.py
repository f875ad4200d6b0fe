"""The classifier setting: splits that do not overlap, metrics that mean what they say, folders of one's own."""

import pytest
import torch
from PIL import Image

from implementations.classifier import evidence
from implementations.classifier.networks import ARCHITECTURES, EvaluatorCNN, SecondEvaluator, SmallViT, build
from implementations.classifier.setting import LEGIBLE, ClassifierConfig, ClassifierSetting, legible
from implementations.common import faces
from implementations.experiment import Reconstruction

SMALL = {
    "identities": 5,
    "images": 6,
    "public_identities": 6,
    "public_images": 2,
    "size": 16,
    "distractors": 3,
    "reader_people": 150,
    "reader_epochs": 6,
}


@pytest.fixture(scope="module")
def setting():
    return ClassifierSetting(ClassifierConfig(**SMALL, epochs=8, evaluator_epochs=12), "cpu")


def test_shapes_and_ranges(setting):
    private = setting.private
    assert private["images"].shape == (30, 3, 16, 16)
    assert private["labels"].tolist() == sorted(private["labels"].tolist())
    assert setting.public.shape == (12, 3, 16, 16)
    assert 0 <= private["images"].min() <= private["images"].max() <= 1
    assert private["evaluator_labels"].max() == 7


def test_nobody_is_in_two_splits(setting):
    pictures = [setting.private[name] for name in ("images", "test_images", "evaluator_images")] + [setting.public]
    for i, left in enumerate(pictures):
        for right in pictures[i + 1 :]:
            assert torch.cdist(left.flatten(1), right.flatten(1)).min() > 0.1


def test_evaluator_is_another_architecture_and_knows_more_classes(setting):
    assert isinstance(setting.evaluator, EvaluatorCNN)
    assert not isinstance(setting.target.model, EvaluatorCNN)
    assert setting.evaluator.head.out_features == 8
    assert isinstance(setting.second_evaluator, SecondEvaluator)
    assert setting.second_evaluator.head.out_features == 8


def test_nearest_private_picture_is_of_the_class_and_the_nearest(setting):
    people = setting.private["images"].view(5, 6, 3, 16, 16)
    assert torch.equal(evidence.nearest_private(setting, people[:, 2]), people[:, 2])
    others = evidence.nearest_private(setting, people[:, 2].roll(1, dims=0))
    assert all((people[c] == others[c]).flatten(1).all(dim=1).any() for c in range(5)), "of its own class in any case"


def test_legible_parameters_are_the_named_ones():
    assert [faces.IDENTITY[i].name for i in legible()] == list(LEGIBLE)


def test_identity_error_is_measured_of_faces_only(setting):
    assert "identity_error" in setting.metrics
    assert "identity_error" not in ClassifierSetting.metrics, "the class's own table is left alone"
    digits = ClassifierSetting(ClassifierConfig(data="digits"), "cpu")
    assert "identity_error" not in digits.metrics


def test_metrics_tell_truth_from_a_mix_up(setting):
    people = setting.private["images"].view(5, 6, 3, 16, 16)[:, :2]
    right = setting.evaluate(Reconstruction(people))
    wrong = setting.evaluate(Reconstruction(people.roll(1, dims=0)))
    assert right["accuracy_top1"] > 0.7 > 0.3 > wrong["accuracy_top1"]
    assert right["accuracy_second"] > 0.6 > 0.4 > wrong["accuracy_second"]
    assert right["identity_error"] < wrong["identity_error"] - 0.03
    assert right["feature_distance"] < 0.01 < wrong["feature_distance"]
    assert right["fid"] == pytest.approx(wrong["fid"], rel=1e-3), "the same pictures in another order"
    assert right["diversity"] > 0
    same = setting.evaluate(Reconstruction(people[:, :1].expand(-1, 2, -1, -1, -1)))
    assert same["diversity"] == pytest.approx(0, abs=1e-4)


def test_wrong_shapes_are_refused(setting):
    with pytest.raises(ValueError, match="expected pictures"):
        setting.evaluate(Reconstruction(torch.zeros(5, 1, 3, 8, 8, device="cpu")))


def test_options_move_the_public_domain_and_bring_people_closer():
    plain = ClassifierSetting(ClassifierConfig(**SMALL), "cpu")
    shifted = ClassifierSetting(ClassifierConfig(**SMALL, public_domain="shifted"), "cpu")
    corner = (slice(None), slice(None), slice(0, 3), slice(0, 3))
    assert shifted.public[corner].mean() > plain.public[corner].mean() + 0.1, "brighter backgrounds"
    close = ClassifierSetting(ClassifierConfig(**SMALL, closeness=0.8), "cpu")
    gap = torch.pdist(close.private["identities"]).mean() / torch.pdist(plain.private["identities"]).mean()
    assert gap == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_architectures_give_logits(architecture):
    network = build(architecture, 3, 16, 7)
    x = torch.zeros(2, 3, 16, 16, device="cpu")
    assert network(x).shape == (2, 7)
    assert network.features(x).shape == (2, network.width)


def test_attention_of_the_transformer_is_its_forward_pass_and_sums_to_one():
    network = SmallViT(3, 16, 7).eval()
    tokens = torch.randn(2, 17, network.width, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    after, weights = network.blocks[0].attend(tokens)
    torch.testing.assert_close(after, network.blocks[0](tokens))
    assert weights.shape == (2, 4, 17, 17)
    torch.testing.assert_close(weights.sum(dim=3), torch.ones(2, 4, 17, device="cpu"))


@pytest.mark.parametrize(
    "wrong",
    [{"data": "cats"}, {"public_domain": "far"}, {"architecture": "lstm"}, {"architecture": "vgg16"}, {"identities": 1}],
)
def test_rejects_impossible_options(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ClassifierConfig(**wrong)


def picture(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 30), colour).save(path)


def test_a_folder_of_ones_own(tmp_path):
    for person, colour in (("ada", (250, 0, 0)), ("bob", (0, 0, 250))):
        for number in range(8):
            picture(tmp_path / "private" / person / f"{number}.png", colour)
    for number in range(3):
        picture(tmp_path / "public" / "more" / f"{number}.jpg", (0, 250, 0))
    own = ClassifierSetting(
        ClassifierConfig(preset="paper", folder=str(tmp_path), size=16, epochs=1, evaluator_epochs=1), "cpu"
    )
    assert own.classes == 2
    assert own.public.shape == (3, 3, 16, 16)
    counts = [len(own.private[f"{split}images"]) for split in ("", "test_", "evaluator_")]
    assert sum(counts) == 16
    assert own.target.grant("scores")(own.public).shape == (3, 2)


def test_a_folder_with_too_few_pictures_is_named(tmp_path):
    picture(tmp_path / "private" / "ada" / "0.png", (1, 1, 1))
    for number in range(4):
        picture(tmp_path / "private" / "bob" / f"{number}.png", (2, 2, 2))
    (tmp_path / "public").mkdir()
    with pytest.raises(FileNotFoundError, match=r"ada.*only 1 pictures(.|\n)*private/<person>"):
        ClassifierSetting(ClassifierConfig(preset="paper", folder=str(tmp_path)), "cpu")


# --- faces


def drawn(n, **options):
    g = torch.Generator("cpu").manual_seed(0)
    return faces.sample_identities(n, g, "cpu", **options), faces.sample_nuisances(n, g, "cpu")


def test_faces_are_deterministic_and_chunking_changes_nothing():
    people, how = drawn(5)
    assert torch.equal(faces.render(people, how, 16), faces.render(people, how, 16))
    torch.testing.assert_close(faces.render(people, how, 16, chunk=2), faces.render(people, how, 16, chunk=5))


def test_another_person_differs_more_than_another_picture():
    people, how = drawn(20)
    still = how[:1].expand(20, -1)
    same = faces.render(people[:1].expand(20, -1), how, 32)
    others = faces.render(people, still, 32)
    centre = (slice(None), slice(None), slice(8, 24), slice(10, 22))
    assert torch.pdist(others[centre].flatten(1)).mean() > torch.pdist(same[centre].flatten(1)).mean()


def test_identity_error():
    people, _ = drawn(3)
    assert faces.identity_error(people, people).abs().max() == 0
    assert faces.identity_error(torch.zeros_like(people), torch.ones_like(people)).tolist() == [1.0] * 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, h: faces.render(p[:, :3], h), "expected people"),
        (lambda p, h: faces.render(p, h, size=4), "size"),
        (lambda p, h: faces.sample_identities(2, torch.Generator("cpu"), "cpu", closeness=1.0), "closeness"),
        (lambda p, h: faces.sample_nuisances(2, torch.Generator("cpu"), "cpu", domain="mars"), "domain"),
    ],
)
def test_faces_refuse_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(*drawn(2))
