"""The paper preset's data: tiny folders in the official layouts, splits that do not overlap, errors that show the tree."""

import hashlib
import itertools
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.datasets import CIFAR10

from implementations.classifier.real_data import PUBLIC, TREES, load
from implementations.common.large_training import Plan, train_large
from implementations.common.training import accuracy, in_batches, seeded_weights

SPLITS = ("", "test_", "evaluator_")


# --- tiny folders; no two pictures have the same colour


@pytest.fixture
def colours():
    return ((r, g, b) for r, g, b in itertools.product(range(0, 256, 25), repeat=3))


def picture(path, colour, size=(30, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path.with_suffix(".png"))
    path.with_suffix(".png").rename(path)  # lossless, whatever the ending says


def write_celeba(root, colours, counts=(6, 5, 8, 4, 7, 5)):
    """Identities 10, 20, ... with so many pictures each."""
    lines, number = [], 0
    for who, count in enumerate(counts):
        for _ in range(count):
            number += 1
            lines.append(f"{number:06}.jpg {10 * (who + 1)}")
            picture(root / "celeba" / "img_align_celeba" / f"{number:06}.jpg", next(colours), (178, 218))
    (root / "celeba" / "identity_CelebA.txt").write_text("\n".join(lines) + "\n")
    return lines


def write_facescrub(root, colours, faces="faces"):
    for group, name, count in (("actors", "Ann", 5), ("actors", "Bob", 4), ("actresses", "Cleo", 6)):
        for number in range(count):
            picture(root / "facescrub" / group / faces / name / f"{number}.jpeg", next(colours))


def write_ffhq(root, colours, count=5):
    for number in range(count):
        picture(root / "ffhq" / "thumbnails128x128" / "00000" / f"{number:05}.png", next(colours), (128, 128))


def write_people(root, colours, count=8):
    for person in ("ada", "bob"):
        for number in range(count):
            picture(root / "private" / person / f"{number}.png", next(colours))
    for number in range(3):
        picture(root / "public" / "more" / f"{number}.jpg", next(colours))


def idx(array):
    """An array of bytes in the format of MNIST's files."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_mnist(root, train=60, test=20):
    random = np.random.default_rng(0)
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", train), ("t10k", test)):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(random.integers(0, 256, (count, 28, 28))))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 10))


def write_cifar(root, monkeypatch, each=20):
    """Batches of other pictures than the official ones, so torchvision is told their check sums."""
    random = np.random.default_rng(0)
    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    sums = {}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        batch = {"data": random.integers(0, 256, (each, 3072), dtype=np.uint8), "labels": [i % 10 for i in range(each)]}
        content = pickle.dumps({"label_names": list("abcdefghij")} if name == "batches.meta" else batch)
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in sums if name.startswith("data")])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums["batches.meta"]})


def rows(images):
    return {tuple(row) for row in images.flatten(1).mul(255).round().int().tolist()}


def check(private, public, channels, size, classes):
    """Shapes, ranges, types, all classes in all splits, no picture in two of them."""
    for split in SPLITS:
        images, labels = private[f"{split}images"], private[f"{split}labels"]
        assert images.shape == (len(labels), channels, size, size)
        assert images.dtype == torch.float32
        assert labels.dtype == torch.int64
        assert 0 <= images.min() <= images.max() <= 1
        assert set(range(classes)) <= set(labels.tolist())
    assert private["labels"].max() == private["test_labels"].max() == classes - 1
    assert public.shape[1:] == (channels, size, size)
    parts = [rows(private[f"{split}images"]) for split in SPLITS] + [rows(public)]
    assert sum(map(len, parts)) == len(set.union(*parts)), "a picture is in two splits"


# --- layouts


def test_celeba_takes_the_people_with_most_pictures(tmp_path, colours):
    lines = write_celeba(tmp_path, colours)
    private, public = load("celeba", tmp_path, 16, "cpu", classes=2, distractors=1)
    check(private, public, 3, 16, 2)
    # most pictures: identities 30 (8), 50 (7), then 10 (6) as the stranger; public: the others
    assert [int((private["labels"] == c).sum() + (private["test_labels"] == c).sum()) for c in (0, 1)] == [8 - 3, 7 - 2]
    assert sorted(set(private["evaluator_labels"].tolist())) == [0, 1, 2]
    assert len(public) == sum(line.split()[1] in ("20", "40", "60") for line in lines)
    few, _ = load("celeba", tmp_path, 16, "cpu", classes=2, public_images=4)
    assert len(load("celeba", tmp_path, 16, "cpu", classes=2, public_images=4)[1]) == 4
    assert torch.equal(few["images"], load("celeba", tmp_path, 16, "cpu", classes=2)[0]["images"])


def test_the_seed_fixes_the_splits(tmp_path, colours):
    write_celeba(tmp_path, colours)
    one, two, other = (load("celeba", tmp_path, 8, "cpu", classes=2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one[0]["images"], two[0]["images"])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0]["images"], other[0]["images"])


def test_the_literatures_evaluator_learns_from_the_targets_pictures(tmp_path, colours):
    write_celeba(tmp_path, colours)
    private, _ = load("celeba", tmp_path, 8, "cpu", classes=2, evaluator_share=0)
    assert torch.equal(private["evaluator_images"], private["images"])
    assert len(private["images"]) + len(private["test_images"]) == 8 + 7


def test_crops_are_those_of_the_literature(tmp_path, colours):
    """The central 108 pixels of 178 x 218 (rows 55 to 162, columns 35 to 142), the central 88 of FFHQ's 128 (20 to 107).

    Pictures are black with a white frame, one pixel wide, just inside the crop.
    """
    write_celeba(tmp_path, colours)
    write_ffhq(tmp_path, colours)
    for folder, size, (left, top, side) in (
        (tmp_path / "celeba" / "img_align_celeba", (178, 218), (35, 55, 108)),
        (tmp_path / "ffhq", (128, 128), (20, 20, 88)),
    ):
        image = Image.new("RGB", size, (0, 0, 0))
        image.paste((255, 255, 255), (left, top, left + side, top + side))
        image.paste((0, 0, 0), (left + 1, top + 1, left + side - 1, top + side - 1))
        for path in (path for path in folder.rglob("*") if path.is_file()):
            image.save(path, format="PNG")
    private = load("celeba", tmp_path, 108, "cpu", "ffhq", classes=2)[0]["images"]
    public = load("celeba", tmp_path, 88, "cpu", "ffhq", classes=2)[1]
    for images in (private, public):
        assert images[:, :, [0, -1]].min() == images[:, :, :, [0, -1]].min() == 1, "the frame"
        assert images[:, :, 1:-1, 1:-1].max() == 0


def test_celeba_by_the_lists_of_plg_mi(tmp_path, colours):
    lines = write_celeba(tmp_path, colours)
    files = [line.split()[0] for line in lines]
    folder = tmp_path / "celeba"
    (folder / "celeba_trainset.txt").write_text("".join(f"{file} {i // 5}\n" for i, file in enumerate(files[:10])))
    (folder / "celeba_testset.txt").write_text(f"{files[10]} 0\n{files[11]} 1\n")
    (folder / "celeba_ganset.txt").write_text("\n".join(files[12:20]))
    private, public = load("celeba_lists", tmp_path, 16, "cpu", classes=2)
    check(private, public, 3, 16, 2)
    assert len(public) == 8
    assert private["test_labels"].tolist() == [0, 1]
    assert [len(private[f"{split}images"]) for split in SPLITS] == [6, 2, 4]


@pytest.mark.parametrize("faces", ["faces", ""])
def test_facescrub(tmp_path, colours, faces):
    write_facescrub(tmp_path, colours, faces)
    write_ffhq(tmp_path, colours)
    private, public = load("facescrub", tmp_path, 16, "cpu")
    check(private, public, 3, 16, 3)
    assert len(public) == 5
    private, public = load("facescrub", tmp_path, 16, "cpu", "facescrub", classes=2)
    check(private, public, 3, 16, 2)
    assert len(public) == 4, "Bob has fewest pictures"


def test_people_of_ones_own(tmp_path, colours):
    write_people(tmp_path, colours)
    private, public = load("people", tmp_path, 16, "cpu")
    check(private, public, 3, 16, 2)
    assert len(public) == 3
    assert [len(private[f"{split}images"]) for split in SPLITS] == [8, 2, 6]


def test_mnist(tmp_path):
    write_mnist(tmp_path)
    private, public = load("mnist", tmp_path, 32, "cpu")
    check(private, public, 1, 32, 5)
    assert sorted(set(private["evaluator_labels"].tolist())) == list(range(10))
    assert [len(private[f"{split}images"]) for split in SPLITS] == [18, 10, 24]
    assert len(public) == 18
    assert len(load("mnist", tmp_path, 32, "cpu", public_images=7)[1]) == 7


def test_cifar10(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch)
    private, public = load("cifar10", tmp_path, 32, "cpu")
    check(private, public, 3, 32, 5)
    assert len(private["images"]) + (private["evaluator_labels"] < 5).sum() == 50
    assert len(public) + (private["evaluator_labels"] >= 5).sum() == 50
    first = pickle.loads((tmp_path / CIFAR10.base_folder / "test_batch").read_bytes())
    expected = torch.as_tensor(first["data"][0].reshape(3, 32, 32), device="cpu") / 255
    assert torch.equal(private["test_images"][0], expected), "channels, rows and columns in their order"


def test_every_public_set_of_every_private_one(tmp_path, colours, monkeypatch):
    lines = write_celeba(tmp_path, colours)
    write_facescrub(tmp_path, colours)
    write_ffhq(tmp_path, colours)
    write_people(tmp_path, colours)
    write_mnist(tmp_path)
    write_cifar(tmp_path, monkeypatch)
    files = [line.split()[0] for line in lines]
    for name, part in (("trainset", range(6, 11)), ("testset", range(11, 12))):
        text = "".join(f"{files[i]} 0\n{files[i + 6]} 1\n" for i in part)
        (tmp_path / "celeba" / f"celeba_{name}.txt").write_text(text)
    (tmp_path / "celeba" / "celeba_ganset.txt").write_text("\n".join(files[:6]))
    for name, publics in PUBLIC.items():
        for public in publics:
            classes = None if name in ("mnist", "cifar10") else 2
            data, others = load(name, tmp_path, 8, "cpu", public, classes=classes)
            assert len(others) >= 3, (name, public)
            assert data["images"].shape[1] == others.shape[1]


# --- errors


@pytest.mark.parametrize("name", PUBLIC)
def test_an_empty_folder_gets_an_error_with_the_tree(tmp_path, name):
    with pytest.raises(FileNotFoundError) as error:
        load(name, tmp_path, 16, "cpu")
    assert str(tmp_path) in str(error.value)
    assert TREES[name] in str(error.value)


def test_missing_public_data_get_an_error_with_their_tree(tmp_path, colours):
    write_celeba(tmp_path, colours)
    for public in ("ffhq", "facescrub"):
        with pytest.raises(FileNotFoundError) as error:
            load("celeba", tmp_path, 16, "cpu", public, classes=2)
        assert TREES[public] in str(error.value)


def test_too_few_people(tmp_path, colours):
    write_celeba(tmp_path, colours)
    with pytest.raises(FileNotFoundError, match="6 people, and 1000 private ones and 0 more are needed"):
        load("celeba", tmp_path, 16, "cpu")
    with pytest.raises(FileNotFoundError, match="5 private ones and 2 more"):
        load("celeba", tmp_path, 16, "cpu", classes=5, distractors=2)
    with pytest.raises(FileNotFoundError, match="no public pictures"):
        load("celeba", tmp_path, 16, "cpu", classes=6)


def test_too_few_pictures_of_a_person(tmp_path, colours):
    write_people(tmp_path, colours)
    picture(tmp_path / "private" / "cyd" / "0.png", next(colours))
    with pytest.raises(FileNotFoundError, match=r"cyd has only 1 pictures(.|\n)*private/<person>"):
        load("people", tmp_path, 16, "cpu")


def test_wrong_files_are_named(tmp_path, colours):
    lines = write_celeba(tmp_path, colours)
    folder = tmp_path / "celeba" / "img_align_celeba"
    target = folder / "000013.jpg"  # of identity 30, who has most
    good = target.read_bytes()
    target.write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match=r"000013\.jpg: not a readable picture"):
        load("celeba", tmp_path, 16, "cpu", classes=2)
    target.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"000013\.jpg: not a readable picture"):
        load("celeba", tmp_path, 16, "cpu", classes=2)
    target.unlink()
    with pytest.raises(FileNotFoundError, match=r"000013\.jpg: no such file(.|\n)*img_align_celeba"):
        load("celeba", tmp_path, 16, "cpu", classes=2)
    picture(target, (1, 2, 3), (409, 687))
    with pytest.raises(FileNotFoundError, match=r"000013\.jpg: 409 x 687 pixels, not 178 x 218"):
        load("celeba", tmp_path, 16, "cpu", classes=2)
    (tmp_path / "celeba" / "identity_CelebA.txt").write_text("\n".join([*lines[:3], "000004.jpg"]))
    with pytest.raises(FileNotFoundError, match=r"line 4 of celeba/identity_CelebA.txt is '000004.jpg'"):
        load("celeba", tmp_path, 16, "cpu", classes=2)


def test_damaged_digits_and_changed_batches_are_refused(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FileNotFoundError, match=r"torchvision cannot read it(.|\n)*MNIST/raw"):
        load("mnist", tmp_path, 32, "cpu")
    write_cifar(tmp_path, monkeypatch)
    (tmp_path / CIFAR10.base_folder / "data_batch_2").write_bytes(b"changed")
    with pytest.raises(FileNotFoundError, match=r"corrupted(.|\n)*cifar-10-batches-py"):
        load("cifar10", tmp_path, 32, "cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "lfw"}, "private data"),
        ({"name": "celeba", "public": "mnist"}, "public data for celeba"),
        ({"name": "celeba", "evaluator_share": 1.0}, "evaluator_share"),
        ({"name": "celeba", "classes": 1}, "two private classes"),
        ({"name": "mnist", "classes": 3}, "five private classes"),
        ({"name": "mnist", "distractors": 3}, "distractors"),
    ],
)
def test_refuses_options_that_do_not_fit(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        load(**{"folder": tmp_path, "size": 16, "device": "cpu", **options})


# --- from a folder to a trained network


def test_from_a_folder_to_a_trained_network(tmp_path, colours):
    write_people(tmp_path, colours, 10)
    for person, shade in (("ada", 255), ("bob", 0)):
        for number, path in enumerate(sorted((tmp_path / "private" / person).iterdir())):
            Image.new("RGB", (30, 20), (shade, 10 * number, 128)).save(path)
    private, public = load("people", tmp_path, 8, "cpu")
    with seeded_weights(0):
        network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    train_large(network, private["images"], private["labels"], Plan(epochs=20, batch=4, warmup=0.0), 0, "a test")
    assert accuracy(network, private["test_images"], private["test_labels"]) == 1
    assert accuracy(network, private["evaluator_images"], private["evaluator_labels"]) == 1
    assert in_batches(network, public).shape == (3, 2)
