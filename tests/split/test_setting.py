"""The split setting: cuts, grants, perturbed clients, metrics, and the paper preset's loaders on tiny folders."""

import pytest
import torch
from torch import nn

from implementations.common.metrics import psnr
from implementations.experiment import Reconstruction
from implementations.split.networks import cnn_layers, cut_after, cuts, lenet_layers
from implementations.split.setting import SplitConfig, SplitSetting, split_target, turned

CPU = torch.device("cpu")


def generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def tiny(**changes) -> SplitSetting:
    return SplitSetting(SplitConfig(**{"images": 64, "public_images": 40, "victims": 4, "width": 4, "epochs": 1, **changes}))


@pytest.fixture(scope="module")
def setting() -> SplitSetting:
    return tiny()


def among(images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Which images (N, ...) equal one of the others, (N,)."""
    return (images.flatten(1)[:, None] == others.flatten(1)[None]).all(dim=2).any(dim=1)


class Noise(nn.Module):
    """Seeded noise of one scale; the scale is part of the state."""

    def __init__(self, scale: float):
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale, device=CPU))

    def forward(self, v):
        return v + self.scale * torch.randn(v.shape, generator=generator(0), device=v.device)


# --- networks and data


@pytest.mark.parametrize("architecture", ["cnn", "lenet"])
def test_client_and_server_make_the_whole_network_at_every_cut(architecture):
    torch.manual_seed(0)
    layers = cnn_layers(3, 32, 4, 4) if architecture == "cnn" else lenet_layers(1, 32, 10)
    x = torch.rand((2, 3 if architecture == "cnn" else 1, 32, 32), generator=generator(0), device=CPU)
    whole = nn.Sequential(layers)(x)
    for cut in cuts(architecture):
        torch.testing.assert_close(cut_after(layers, cut)(x), whole)
    assert "standardize" not in cuts(architecture)
    assert list(layers)[-1] not in cuts(architecture)


def test_turned_images_turn_back():
    images = torch.rand((40, 3, 8, 8), generator=generator(0), device=CPU)
    rotated, quarters = turned(images, generator(1))
    assert set(quarters.tolist()) == {0, 1, 2, 3}
    for original, found, k in zip(images, rotated, quarters.tolist(), strict=True):
        assert torch.equal(found.rot90(-k, (1, 2)), original)


def test_splits_have_the_sizes_asked_for(setting):
    assert tuple(setting.private["inputs"].shape) == (4, 3, 32, 32)
    assert tuple(setting.public.shape) == (40, 3, 32, 32)
    assert len(setting.private["images"]) == 64
    assert setting.classes == 4
    digits = tiny(data="digits")
    assert tuple(digits.private["inputs"].shape) == (4, 1, 32, 32)
    assert digits.classes == 10
    for split in ("images", "inputs"):
        assert not among(digits.private[split], digits.public).any(), "the adversary has none of the private digits"


def test_training_teaches_the_task():
    taught = SplitSetting(SplitConfig(data="digits", images=1000, public_images=500, victims=6, epochs=8))
    untaught = cut_after(lenet_layers(1, 32, 10), "relu2")
    random_target = split_target(untaught.client, untaught.server, taught.private["inputs"])
    assert taught.utility(taught.target)["test_accuracy"] > 0.85
    assert taught.utility(random_target)["test_accuracy"] < 0.5


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"cut": "conv99"}, "relu21"),
        ({"data": "digits", "cut": "relu21"}, "conv1"),
        ({"data": "faces"}, "crops"),
        ({"victims": 0}, "victims"),
    ],
)
def test_wrong_options_are_refused_and_the_right_ones_named(changes, word):
    with pytest.raises(ValueError, match=word):
        SplitConfig(**changes)


# --- grants


def test_what_is_observed_is_what_the_client_sends(setting):
    x = setting.private["inputs"]
    for client in ("weights", "queries", "none"):
        oracle = setting.target.grant("features", client=client)
        torch.testing.assert_close(oracle.observed, setting.target.model.client(x))
    torch.testing.assert_close(setting.target.grant("features", client="weights").client(x), oracle.observed)
    torch.testing.assert_close(setting.target.grant("features", client="queries")(x), oracle.observed)


def test_one_training_serves_every_cut(setting):
    deep = tiny(cut="relu32")
    assert deep.target.grant("features").observed.shape != setting.target.grant("features").observed.shape
    x = setting.private["inputs"]
    torch.testing.assert_close(deep.target.model(x), setting.target.model(x))


def test_a_perturbing_client_changes_what_is_sent_but_not_its_weights(setting):
    x, plain = setting.private["inputs"], setting.target.model
    noisy = split_target(plain.client, plain.server, x, Noise(0.5))
    clean = plain.client(x)
    observed = noisy.grant("features").observed
    assert not torch.allclose(observed, clean, atol=0.1)
    torch.testing.assert_close(observed, noisy.grant("features").observed)
    torch.testing.assert_close(noisy.grant("features", client="queries")(x), observed)
    torch.testing.assert_close(noisy.grant("features", client="weights").client(x), clean)
    torch.testing.assert_close(noisy.model(x), plain.server(observed))
    assert noisy.fingerprint() != setting.target.fingerprint()
    assert set(setting.utility(noisy)) == set(setting.utility_metrics)


def test_a_defended_target_is_attacked_and_judged_in_place_of_the_first(setting):
    plain = setting.target.model
    defended = setting.with_target(split_target(plain.client, plain.server, setting.private["inputs"], Noise(2.0)))
    nearest = [s.baselines()["nearest_public"](generator(0)).data for s in (setting, defended)]
    assert not torch.equal(*nearest)


# --- metrics and baselines


def test_metrics_tell_good_from_bad(setting):
    x = setting.private["inputs"]
    close = setting.evaluate(Reconstruction((x + 0.01).clamp(0, 1)))
    assert close["psnr"] >= 39.9
    assert close["ssim"] > 0.95
    assert close["recognizable"] == 1.0
    assert close["feature_error"] < 0.2
    far = setting.evaluate(setting.baselines()["noise"](generator(0)))
    assert far["psnr"] < 12
    assert far["recognizable"] == 0.0
    assert far["feature_error"] > close["feature_error"]
    with pytest.raises(ValueError, match="expected pictures"):
        setting.evaluate(Reconstruction(x[:2]))


def test_order_matters_to_metrics(setting):
    x = (setting.private["inputs"] + 0.01).clamp(0, 1)
    assert setting.evaluate(Reconstruction(x.roll(1, 0)))["psnr"] < setting.evaluate(Reconstruction(x))["psnr"] - 10


def test_baselines_use_public_images_only(setting):
    baselines = setting.baselines()
    nearest = baselines["nearest_public"](generator(0)).data
    assert among(nearest, setting.public).all()
    assert torch.equal(baselines["public_mean"](generator(0)).data[1], setting.public.mean(dim=0))
    own = setting.with_target(split_target(setting.target.model.client, setting.target.model.server, setting.public[:4]))
    assert psnr(own.baselines()["nearest_public"](generator(0)).data, setting.public[:4]).min() > 60


# --- paper preset


def write_cifar(root, records: int = 12) -> list[bytes]:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    written = []
    for number, name in enumerate([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]):
        pixels = torch.randint(0, 256, (records, 3072), generator=generator(number), dtype=torch.uint8, device=CPU)
        labels = torch.arange(records, dtype=torch.uint8, device=CPU)[:, None] % 10
        written.append(bytes(torch.cat([labels, pixels], dim=1).flatten().tolist()))
        (folder / name).write_bytes(written[-1])
    return written


def idx(shape: tuple[int, ...], values: torch.Tensor) -> bytes:
    header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
    return header + bytes(values.flatten().tolist())


def write_mnist(root, counts: tuple[int, int] = (30, 12)) -> None:
    folder = root / "mnist"
    folder.mkdir(parents=True)
    for split, count in zip(("train", "t10k"), counts, strict=True):
        pixels = torch.randint(0, 256, (count, 28, 28), generator=generator(count), dtype=torch.uint8, device=CPU)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx((count, 28, 28), pixels))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx((count,), torch.arange(count, device=CPU) % 10))


def paper(root, **changes) -> SplitSetting:
    return tiny(preset="paper", folder=str(root), **changes)


def test_cifar10_is_read_from_its_binary_version(tmp_path):
    written = write_cifar(tmp_path)
    setting = paper(tmp_path)
    assert tuple(setting.private["images"].shape) == (30, 3, 32, 32)
    assert tuple(setting.public.shape) == (30, 3, 32, 32)
    assert setting.classes == 10
    both = torch.cat([setting.private["images"], setting.public])
    first = torch.tensor(list(written[0][1:3073]), dtype=torch.float32, device=CPU).view(3, 32, 32) / 255
    assert among(first[None], both).all(), "the first record is among them, channel by channel"
    assert tuple(setting.target.grant("features").observed.shape) == (4, 8, 16, 16)


def test_mnist_is_read_from_its_idx_files(tmp_path):
    write_mnist(tmp_path)
    setting = paper(tmp_path, data="digits")
    assert tuple(setting.private["images"].shape) == (15, 1, 28, 28)
    assert setting.private["images"].max() <= 1
    assert tuple(setting.target.grant("features").observed.shape) == (4, 16, 8, 8)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("cifar-10-batches-bin/data_batch_3.bin", b"\0" * 3000, "3073"),
        ("cifar-10-batches-bin/test_batch.bin", bytes([11]) + b"\0" * 3072, "above 9"),
        ("cifar-10-batches-bin/test_batch.bin", None, "no cifar-10-batches-bin/test_batch.bin"),
        ("mnist/train-images-idx3-ubyte", b"\x1f\x8b\x08\0" + b"\0" * 100, "no idx file"),
        ("mnist/t10k-labels-idx1-ubyte", idx((3,), torch.zeros(3, dtype=torch.uint8, device=CPU)), "3 labels"),
        ("mnist/t10k-images-idx3-ubyte", None, "no mnist/t10k-images-idx3-ubyte"),
    ],
)
def test_a_wrong_folder_is_told_with_the_expected_tree(tmp_path, name, content, word):
    write_cifar(tmp_path)
    write_mnist(tmp_path)
    path = tmp_path / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileNotFoundError, match=word) as error:
        paper(tmp_path, data="digits" if name.startswith("mnist") else "crops")
    assert str(tmp_path) in str(error.value)
    assert "Expected:" in str(error.value)


def test_too_few_images_are_told(tmp_path):
    write_mnist(tmp_path, (30, 3))
    with pytest.raises(FileNotFoundError, match="3 to test on"):
        paper(tmp_path, data="digits")
