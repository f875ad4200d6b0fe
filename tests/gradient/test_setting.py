"""The gradient setting: gradients against autograd, what is granted, metrics, loaders of the paper preset."""

import pytest
import torch
from torch.nn import functional as F

from implementations.experiment import Reconstruction
from implementations.gradient.networks import NETWORKS, client_gradients, make_network
from implementations.gradient.setting import GradientConfig, GradientSetting, flat, gradient_target, noisy, pruned


def small(**options):
    return GradientSetting(GradientConfig(**{"victims": 3, "public_images": 8, **options}))


@pytest.mark.parametrize("name", NETWORKS)
def test_vmapped_gradients_equal_autograd(name):
    network = make_network(name, 3, 32, 5, seed=0, device="cpu")
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((2, 3, 3, 32, 32), generator=generator)  # two clients, batches of three
    labels = torch.randint(5, (2, 3), generator=generator)
    update = client_gradients(network)(images, F.one_hot(labels, 5).float())
    for client in range(2):
        loss = F.cross_entropy(network(images[client]), labels[client])
        for (key, sent), true in zip(update.items(), torch.autograd.grad(loss, list(network.parameters())), strict=True):
            torch.testing.assert_close(sent[client], true, rtol=1e-4, atol=1e-6, msg=key)


def test_weights_of_lenet_are_as_in_the_authors_code():
    network = make_network("lenet", 3, 32, 100, seed=0, device="cpu")
    assert [tuple(p.shape) for p in network.parameters()][::2] == [(12, 3, 5, 5), (12, 12, 5, 5), (12, 12, 5, 5), (100, 768)]
    for parameter in network.parameters():
        assert parameter.abs().max() <= 0.5
    assert abs(network[-1].weight.std().item() - 12**-0.5) < 0.01, "the deviation of a uniform on [-0.5, 0.5]"


def test_the_oracle_gives_gradients_and_the_model_only():
    setting = small()
    oracle = setting.target.grant("gradients")
    assert set(oracle.update) == {name for name, _ in oracle.model.named_parameters()}
    assert all(len(value) == 3 for value in oracle.update.values())
    assert not [name for name in vars(oracle) if "image" in name or "label" in name]
    truth = gradient_target(setting.network, setting.private["images"], setting.private["labels"])
    torch.testing.assert_close(flat(oracle.update), flat(truth.grant("gradients").update))


def test_perturbed_updates_change_the_target_but_not_the_network():
    plain = small()
    for options in ({"prune": 0.5}, {"noise_variance": 1e-2}):
        changed = small(**options)
        assert changed.target.fingerprint() != plain.target.fingerprint()
        assert 0 < plain.utility(changed.target)["update_cosine"] < 1
        for a, b in zip(plain.network.parameters(), changed.network.parameters(), strict=True):
            assert torch.equal(a, b)
    assert plain.utility(plain.target)["update_cosine"] == pytest.approx(1.0, abs=1e-5)


def test_pruning_by_hand():
    update = {"w": torch.tensor([[[1.0, -4.0], [0.5, 2.0]]])}
    assert pruned(update, 0.5)["w"].tolist() == [[[0.0, -4.0], [0.0, 2.0]]]
    assert torch.equal(pruned(update, 0.0)["w"], update["w"])


def test_noise_has_the_stated_variance():
    update = {"w": torch.zeros(1, 20000)}
    found = noisy(update, 0.04, torch.Generator().manual_seed(0))["w"]
    assert found.var().item() == pytest.approx(0.04, rel=0.05)


def test_perfect_and_poor_reconstructions_are_told_apart():
    setting = small()
    images, labels = setting.private["images"], setting.private["labels"]
    close = setting.evaluate(Reconstruction({"images": images + 0.01, "labels": labels}))
    assert close["psnr"] == pytest.approx(40, abs=0.5), "an error of 0.01 is 40 dB, less where clipped"
    assert close["label_accuracy"] == 1
    assert close["above_25db"] == 1
    assert close["worse_than_grey"] == 0
    broken = setting.evaluate(Reconstruction({"images": (images < 0.5).float() * 1e6, "labels": (labels + 1) % 10}))
    assert broken["worse_than_grey"] == 1
    assert broken["label_accuracy"] == 0
    with pytest.raises(ValueError, match="expected images"):
        setting.evaluate(Reconstruction({"images": images[:1], "labels": labels}))


def test_order_within_a_batch_does_not_count():
    setting = small(batch_size=4)
    order = [2, 0, 3, 1]
    data = {"images": setting.private["images"][:, order] + 0.01, "labels": setting.private["labels"][:, order]}
    found = setting.evaluate(Reconstruction(data))
    assert found["psnr"] > 39
    assert found["label_accuracy"] == 1


def test_nearest_public_finds_a_public_picture_that_is_the_private_one():
    setting = small()
    setting.public[5] = setting.private["images"][1, 0]
    found = setting.baselines()["nearest_public"](torch.Generator()).data
    assert torch.equal(found["images"][1, 0], setting.private["images"][1, 0])
    assert found["labels"][1] == setting.private["labels"][1]


@pytest.mark.parametrize(
    "wrong", [{"model": "vgg"}, {"prune": 1.0}, {"noise_variance": -1.0}, {"victims": 0}, {"size": 8}, {"num_classes": 1}]
)
def test_wrong_options_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GradientConfig(**wrong)


# --- the paper preset's loaders, on tiny folders of the same layout


def write_records(path, classes, head, count=20):
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(len(path.name))
    pixels = torch.randint(256, (count, 3072), generator=generator)
    heads = torch.randint(classes, (count, head), generator=generator)
    path.write_bytes(torch.cat([heads, pixels], dim=1).to(torch.uint8).numpy().tobytes())


def paper(folder, **options):
    return GradientSetting(GradientConfig(preset="paper", folder=str(folder), victims=4, public_images=6, **options))


def test_cifar100_is_read(tmp_path):
    for name in ("train", "test"):
        write_records(tmp_path / f"cifar-100-binary/{name}.bin", 20, 2)
    setting = paper(tmp_path)
    assert setting.classes == 100
    assert setting.private["images"].shape == (4, 1, 3, 32, 32)
    content = (tmp_path / "cifar-100-binary/test.bin").read_bytes()
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, 3074)
    at = (records[:, 2:].float() / 255 == setting.private["images"][0].flatten()).all(dim=1).nonzero().item()
    assert records[at, 1] == setting.private["labels"][0], "the fine class stands after the coarse one"
    assert setting.target.grant("gradients").update["7.weight"].shape == (4, 100, 768)


def test_cifar10_is_read(tmp_path):
    for name in ("data_batch_1", "test_batch"):
        write_records(tmp_path / f"cifar-10-batches-bin/{name}.bin", 10, 1)
    setting = paper(tmp_path, data="cifar10")
    assert setting.classes == 10
    assert len(setting.public) == 6


def test_lfw_keeps_people_apart(tmp_path):
    from PIL import Image

    for who in range(5):
        folder = tmp_path / "lfw" / f"Person_{who}"
        folder.mkdir(parents=True)
        for shot in range(3):
            Image.new("RGB", (50, 60), (40 * who, 10 * shot, 90)).save(folder / f"Person_{who}_{shot:04d}.jpg")
    setting = paper(tmp_path, data="lfw", batch_size=1, size=32)
    assert setting.classes == 5
    private = {round(image[0].mean().item() * 255 / 40) for image in setting.private["images"][:, 0]}
    public = {round(image[0].mean().item() * 255 / 40) for image in setting.public}
    assert private == set(setting.private["labels"].flatten().tolist())
    assert not private & public


@pytest.mark.parametrize("data", ["cifar10", "cifar100", "lfw"])
def test_a_missing_folder_shows_the_tree(tmp_path, data):
    with pytest.raises(FileNotFoundError, match="Expected"):
        paper(tmp_path, data=data)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "cifar-100-binary/test.bin"
    path.parent.mkdir()
    path.write_bytes(b"\0" * 5000)
    with pytest.raises(FileNotFoundError, match="no multiple of 3074"):
        paper(tmp_path)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_secret_labels_are_not_the_first_draw_of_an_attack(seed):
    """A generator seeded like an attack's must not draw the private labels."""
    setting = small(victims=20)
    guess = torch.randint(10, (20, 1), generator=torch.Generator().manual_seed(seed))
    assert (guess == setting.private["labels"]).float().mean() < 0.5


def test_figure_shows_runs_of_the_same_clients_only():
    setting, other = small(), small(victims=5)
    own, theirs = (one.baselines()["noise"](torch.Generator()) for one in (setting, other))
    rows = [len(setting.figure(shown).axes) for shown in ({"noise": own}, {"noise": own, "other": theirs})]
    assert rows == [2, 2], "the private row and one more"
