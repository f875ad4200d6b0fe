"""Real pictures from a user's folder, for the paper preset: data sets in their official layouts, the literature's splits.

Under one FOLDER lie the data sets as their makers publish them, unpacked; TREES shows where. Nothing is downloaded. Who is
private and who is public:

    celeba        The 1,000 identities with the most pictures are private, ties in the order of the identity file (the rule of
                  PPA, datasets/celeba.py). Public are 30,000 pictures (as many as in GMI's list) of all other identities.
    celeba_lists  The split of GMI, KED-MI and PLG-MI, picture by picture, from the lists that PLG-MI's repository publishes in
                  data_files: 1,000 classes with 30 to 35 pictures, and 30,000 public pictures. How those classes were chosen
                  is not documented.
    facescrub     All people, or the `classes` with the most pictures; public are the others, where it is its own public set.
    ffhq          Public only; all pictures.
    mnist         Digits 0-4 are private, 5-9 public, the evaluator knows all ten. KED-MI's network for MNIST has five outputs
    cifar10       and GMI judges with ten classes; that it is the first five, and the same for CIFAR-10, is our reading.
    people        A folder of one's own: everybody in private/ is private.

Crops are those of GMI, KED-MI and PLG-MI: the central 108 pixels of CelebA's aligned pictures and the central 88 of FFHQ's
thumbnails; of all others the largest central square. CelebA publishes no names, so people who occur in FaceScrub as well
cannot be taken out of the public pictures.

Deviation: in the literature the evaluator learns from the target's own training pictures. Here `evaluator_share` of them is
kept from the target and goes to the evaluator instead; `evaluator_share=0` gives the literature's way.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import CIFAR10, MNIST
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from ..common.folders import ENDINGS, missing_data
from ..experiment import require

TREES = {
    "celeba": """  FOLDER/
    celeba/img_align_celeba/000001.jpg ... 202599.jpg   the aligned and cropped pictures of CelebA, 178 x 218 pixels
    celeba/identity_CelebA.txt                          a line a picture: 000001.jpg 2880""",
    "celeba_lists": """  FOLDER/
    celeba/img_align_celeba/000001.jpg ... 202599.jpg   the aligned and cropped pictures of CelebA, 178 x 218 pixels
    celeba/celeba_trainset.txt                          a line a picture: 107724.jpg 0
    celeba/celeba_testset.txt                           a line a picture: 069364.jpg 0
    celeba/celeba_ganset.txt                            a line a public picture: 075673.jpg
  The three lists are in the folder data_files of https://github.com/LetheSec/PLG-MI-Attack""",
    "facescrub": """  FOLDER/
    facescrub/actors/faces/<name>/*.jpg      pictures cropped to the face, a folder a person; faces/ may be left out
    facescrub/actresses/faces/<name>/*.jpg""",
    "ffhq": """  FOLDER/
    ffhq/thumbnails128x128/00000/00000.png ... 69000/69999.png   the thumbnails of FFHQ, 128 x 128 pixels""",
    "mnist": """  FOLDER/
    MNIST/raw/train-images-idx3-ubyte   the four files of MNIST, unpacked, where torchvision puts them
    MNIST/raw/train-labels-idx1-ubyte
    MNIST/raw/t10k-images-idx3-ubyte
    MNIST/raw/t10k-labels-idx1-ubyte""",
    "cifar10": """  FOLDER/
    cifar-10-batches-py/data_batch_1 ... data_batch_5   the Python version of CIFAR-10, unpacked, files unchanged
    cifar-10-batches-py/test_batch
    cifar-10-batches-py/batches.meta""",
    "people": """  FOLDER/
    private/<person>/*.jpg   at least 3 pictures a person
    public/**/*.jpg          pictures of other people: what the adversary has""",
}
PRIVATE_CLASSES = {"celeba": 1000, "celeba_lists": 1000}  # of the others: everybody
PUBLIC_IMAGES = {"celeba": 30_000}  # of the others: all
PUBLIC = {  # which public data a private data set goes with; the first is the default
    "celeba": ("celeba", "ffhq", "facescrub"),
    "celeba_lists": ("celeba_lists", "ffhq", "facescrub"),
    "facescrub": ("ffhq", "celeba", "facescrub"),
    "mnist": ("mnist",),
    "cifar10": ("cifar10",),
    "people": ("people", "celeba", "ffhq", "facescrub"),
}
CROPS = {"celeba": ((178, 218), 108), "celeba_lists": ((178, 218), 108), "ffhq": ((128, 128), 88)}  # expected size, crop
TEST_SHARE = 0.1  # of a person's pictures, as in PPA and in KED-MI's lists


@dataclass(frozen=True)
class Person:
    """One identity: pictures to learn from and, where a list fixes them, pictures to test with."""

    name: str
    pictures: list[Path]
    test: tuple[Path, ...] = ()


def load(
    name: str,
    folder: Path | str,
    size: int,
    device: torch.device | str,
    public: str = "",
    *,
    classes: int | None = None,
    distractors: int = 0,
    evaluator_share: float = 0.4,
    public_images: int | None = None,
    seed: int = 0,
) -> tuple[dict[str, Tensor], Tensor]:
    """Private pictures with labels in three splits, and public pictures.

    Returns {"images", "test_images", "evaluator_images"}, each (N, channels, size, size) in [0, 1], with {"labels", ...},
    each (N,) of 0 to classes - 1, and the public pictures (N, channels, size, size). Channels are 1 for mnist, else 3.

    `name` and `public` say which data set is private and which public (default: the first of PUBLIC[name]). `classes` is the
    number of private people (default: the literature's). `distractors` further people go to the evaluator alone, labelled
    `classes` and up; for mnist and cifar10 those are the public digits and classes. `evaluator_share` in [0, 1) of the
    target's training pictures are kept for the evaluator; with 0 the evaluator gets the target's. `public_images` is the most
    public pictures to read, drawn at random with `seed`, which also fixes the splits.

    Raises FileNotFoundError, with the expected tree, for a folder that is not as in TREES, and ValueError, naming the file,
    for a picture that cannot be read, or for options that do not fit.
    """
    require(name in PUBLIC, f"private data must be one of {', '.join(PUBLIC)}, not {name!r}")
    public = public or PUBLIC[name][0]
    require(public in PUBLIC[name], f"public data for {name} must be one of {', '.join(PUBLIC[name])}, not {public!r}")
    require(0 <= evaluator_share < 1, f"evaluator_share must lie in [0, 1), not {evaluator_share}")
    require(classes is None or classes >= 2, f"at least two private classes are needed, not {classes}")
    root, generator = Path(folder), torch.Generator("cpu").manual_seed(seed)
    if name in OFFICIAL:
        require(classes in (None, 5), f"{name} has five private classes, not {classes}")
        require(distractors == 0, f"{name} has no further classes: distractors must be 0, not {distractors}")
        return _first_five(name, root, size, device, evaluator_share, public_images, generator)

    people = PEOPLE[name](root)
    count = classes or PRIVATE_CLASSES.get(name) or len(people) - distractors
    if not 2 <= count <= len(people) - distractors:
        wanted = f"{max(2, count)} private ones and {distractors} more are needed"
        raise missing_data(root, TREES[name], f"{len(people)} people, and {wanted}")
    mine, strangers, others = people[:count], people[count : count + distractors], people[count + distractors :]

    paths: dict[str, list[Path]] = {"": [], "test_": [], "evaluator_": []}
    labels: dict[str, list[int]] = {split: [] for split in paths}
    for label, person in enumerate([*mine, *strangers]):
        parts = _split(person, root, name, evaluator_share, generator)
        for split in paths if label < count else ["evaluator_"]:
            paths[split] += parts[split]
            labels[split] += [label] * len(parts[split])
    data = {}
    for split in paths:
        data[f"{split}images"] = read(paths[split], size, name, device)
        data[f"{split}labels"] = torch.tensor(labels[split], device=device)

    candidates = [path for person in others for path in person.pictures] if public == name else None
    found = _public_paths(public, root, candidates, public_images, generator)
    return data, read(found, size, public, device)


def _split(person: Person, root: Path, name: str, share: float, generator: torch.Generator) -> dict[str, list[Path]]:
    """A person's pictures for the target's training, its test and the evaluator, in random order, none of them empty."""
    order = torch.randperm(len(person.pictures), generator=generator, device="cpu").tolist()
    pictures, test = [person.pictures[i] for i in order], list(person.test)
    if len(pictures) + len(test) < 3 or len(pictures) < 2:
        raise missing_data(root, TREES[name], f"{person.name} has only {len(pictures) + len(test)} pictures")
    if not test:
        cut = max(1, round(TEST_SHARE * len(pictures)))
        test, pictures = pictures[:cut], pictures[cut:]
    keep = min(len(pictures) - 1, max(1, round(share * len(pictures)))) if share else 0
    return {"": pictures[keep:], "test_": test, "evaluator_": pictures[:keep] if share else pictures}


# --- who there is, most pictures first


def _most_pictures_first(people: Sequence[Person]) -> list[Person]:
    return sorted(people, key=lambda person: len(person.pictures), reverse=True)  # stable: ties keep their order


def _lines(path: Path, fields: int, root: Path, tree: str) -> list[list[str]]:
    """The lines of a list, split at spaces; an error names the line that has not as many fields as it should."""
    if not path.is_file():
        raise missing_data(root, tree, f"no {path.relative_to(root)}")
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for number, row in enumerate(rows, start=1):
        if len(row) != fields or (fields == 2 and not row[1].isdigit()):
            raise missing_data(root, tree, f"line {number} of {path.relative_to(root)} is {' '.join(row)!r}")
    return rows


def _celeba(root: Path) -> list[Person]:
    pictures: dict[str, list[Path]] = {}
    for file, identity in _lines(root / "celeba" / "identity_CelebA.txt", 2, root, TREES["celeba"]):
        pictures.setdefault(identity, []).append(root / "celeba" / "img_align_celeba" / file)
    return _most_pictures_first([Person(f"identity {who}", paths) for who, paths in pictures.items()])


def _celeba_lists(root: Path) -> list[Person]:
    parts = []
    for file in ("celeba_trainset.txt", "celeba_testset.txt"):
        pictures: dict[int, list[Path]] = {}
        for picture, label in _lines(root / "celeba" / file, 2, root, TREES["celeba_lists"]):
            pictures.setdefault(int(label), []).append(root / "celeba" / "img_align_celeba" / picture)
        parts.append(pictures)
    train, test = parts
    return [Person(f"class {label}", train[label], tuple(test.get(label, ()))) for label in sorted(train)]


def _facescrub(root: Path) -> list[Person]:
    people = []
    for group in ("actors", "actresses"):
        folder = root / "facescrub" / group
        people += _folders(folder / "faces" if (folder / "faces").is_dir() else folder, root, "facescrub")
    return _most_pictures_first(people)


def _people(root: Path) -> list[Person]:
    return _folders(root / "private", root, "people")


def _folders(folder: Path, root: Path, name: str) -> list[Person]:
    """A person a subfolder, in the order of their names."""
    people = [Person(str(path), _pictures(path)) for path in sorted(folder.glob("*")) if path.is_dir()]
    if not people:
        raise missing_data(root, TREES[name], f"no folders of people in {folder.relative_to(root)}/")
    return people


PEOPLE: dict[str, Callable[[Path], list[Person]]] = {
    "celeba": _celeba,
    "celeba_lists": _celeba_lists,
    "facescrub": _facescrub,
    "people": _people,
}


def _public_paths(
    public: str, root: Path, candidates: list[Path] | None, most: int | None, generator: torch.Generator
) -> list[Path]:
    """The files of the public pictures. `candidates` are those of people left over, where private and public data are one."""
    if public == "celeba_lists":
        rows = _lines(root / "celeba" / "celeba_ganset.txt", 1, root, TREES[public])
        candidates = [root / "celeba" / "img_align_celeba" / file for (file,) in rows]
    elif public == "people":
        candidates = _pictures(root / "public")
    elif public == "ffhq":
        candidates = _pictures(root / "ffhq" / "thumbnails128x128")
    elif candidates is None:
        candidates = [path for person in PEOPLE[public](root) for path in person.pictures]
    if not candidates:
        raise missing_data(
            root, TREES[public], "no public pictures (where private people are taken from the same: ask for fewer)"
        )
    order = torch.randperm(len(candidates), generator=generator, device="cpu").tolist()
    return [candidates[i] for i in order[: most or PUBLIC_IMAGES.get(public)]]


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)


def read(paths: Sequence[Path], size: int, name: str, device: torch.device | str) -> Tensor:
    """Pictures of a data set, cropped as in the literature and scaled, (N, 3, size, size) in [0, 1]; bytes until the end.

    Raises FileNotFoundError, with the expected tree, for a missing file or a picture of another size than the data set has,
    ValueError for one that cannot be read.
    """
    expected, crop = CROPS.get(name, (None, None))

    def picture(path: Path) -> Tensor:
        if not path.is_file():
            raise missing_data(path, TREES[name], "no such file")
        try:
            with Image.open(path) as opened:
                pixels = pil_to_tensor(opened.convert("RGB"))
        except (OSError, SyntaxError) as error:  # what Pillow raises for damaged files
            raise ValueError(f"{path}: not a readable picture ({error})") from error
        height, width = pixels.shape[1:]
        if expected and (width, height) != expected:
            raise missing_data(path, TREES[name], f"{width} x {height} pixels, not {expected[0]} x {expected[1]}")
        side = crop or min(height, width)
        return resize(center_crop(pixels, [side, side]), [size, size], antialias=True)

    pixels = torch.empty((len(paths), 3, size, size), dtype=torch.uint8, device="cpu")
    with ThreadPoolExecutor() as pool:
        for row, one in zip(pixels, pool.map(picture, paths), strict=True):
            row.copy_(one)
    return pixels.to(device).float().div_(255)


# --- digits and objects

OFFICIAL = {"mnist": MNIST, "cifar10": CIFAR10}


def _first_five(
    name: str,
    root: Path,
    size: int,
    device: torch.device | str,
    share: float,
    most: int | None,
    generator: torch.Generator,
) -> tuple[dict[str, Tensor], Tensor]:
    """Classes 0 to 4 are private, 5 to 9 public; the evaluator gets its share of both and knows ten classes."""
    (images, labels), (test, test_labels) = (_official(name, root, train) for train in (True, False))
    order = torch.randperm(len(images), generator=generator, device="cpu")
    images, labels = images[order], labels[order]
    mine, theirs = (labels < 5).nonzero()[:, 0], (labels >= 5).nonzero()[:, 0]
    if not (min(len(mine), len(theirs)) >= 2 and (test_labels < 5).any()):
        raise missing_data(root, TREES[name], "too few pictures of classes 0-4 or 5-9")
    keep = [min(len(part) - 1, max(1, round(share * len(part)))) if share else 0 for part in (mine, theirs)]
    target, public = mine[keep[0] :], theirs[keep[1] :]
    evaluator = torch.cat([mine[: keep[0]], theirs[: keep[1]]] if share else [mine, theirs])

    def ready(pictures: Tensor) -> Tensor:
        return resize(pictures, [size, size], antialias=True).to(device).float().div_(255)

    return {
        "images": ready(images[target]),
        "labels": labels[target].to(device),
        "test_images": ready(test[test_labels < 5]),
        "test_labels": test_labels[test_labels < 5].to(device),
        "evaluator_images": ready(images[evaluator]),
        "evaluator_labels": labels[evaluator].to(device),
    }, ready(images[public[:most]])


def _official(name: str, root: Path, train: bool) -> tuple[Tensor, Tensor]:
    """Pictures (N, C, S, S) in bytes and classes (N,), as torchvision reads them; it checks CIFAR-10's files by their MD5."""
    try:
        data = OFFICIAL[name](root, train=train, download=False)
    except (RuntimeError, AssertionError, ValueError, OSError) as error:
        raise missing_data(root, TREES[name], f"torchvision cannot read it ({error or 'wrong content'})") from error
    pixels = torch.as_tensor(data.data, device="cpu")
    labels = torch.as_tensor(data.targets, dtype=torch.int64, device="cpu")
    return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2), labels
