"""Speed of inversion in one batch against a loop over classes and against a toolbox: scripts/bench_classifier.py [THREADS]

Three comparisons on the classifier setting's default target, each at equal steps, learning rates and starts:

    gmi         GMI's search of codes for all classes and restarts as one batch, and class after class
    fredrikson  Fredrikson et al.'s descent on pixels as one batch, and class after class
    art         the same descent and MIFace of adversarial-robustness-toolbox, with its default batch of one class and with all
                classes as one batch (`pip install -e .[bench]`); left out with several threads, since it takes minutes

Each is repeated in turns; seconds are medians, and what counts is the ratio within one run. Quality is that of the setting's
first evaluator. Recorded in docs/benchmarks/classifier.json, by number of threads: a loop over classes leaves cores idle, so
that one batch gains more where there are several.
"""

import dataclasses
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from implementations.classifier import fredrikson2015_confidence as fredrikson  # noqa: E402
from implementations.classifier import gmi  # noqa: E402
from implementations.classifier.setting import ClassifierSetting  # noqa: E402
from implementations.common.priors import GanConfig, public_gan  # noqa: E402
from implementations.experiment import Reconstruction  # noqa: E402

RECORD = ROOT / "docs" / "benchmarks" / "classifier.json"
REPEATS = 3
STEPS = 100


def in_turns(ways: dict[str, Callable[[], Tensor]]) -> dict[str, tuple[float, Tensor]]:
    """Median seconds and the pictures (C, K, c, s, s) of each way, run in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    pictures = {}
    for _ in range(REPEATS):
        for name, way in ways.items():
            start = time.perf_counter()
            pictures[name] = way()
            seconds[name].append(time.perf_counter() - start)
    return {name: (statistics.median(seconds[name]), pictures[name]) for name in ways}


def compared(setting: ClassifierSetting, ways: dict[str, Callable[[], Tensor]]) -> dict[str, Any]:
    """Seconds, quality and how often the first way fits into each of the others."""
    found = in_turns(ways)
    first = next(iter(found.values()))[0]
    rows = {}
    for name, (seconds, pictures) in found.items():
        quality = setting.evaluate(Reconstruction(pictures))
        rows[name] = {
            "seconds": round(seconds, 2),
            "times the first": round(seconds / first, 2),
            "accuracy_top1": round(quality["accuracy_top1"], 3),
            "target_accuracy": round(quality["target_accuracy"], 3),
        }
        print(name, rows[name], flush=True)
    return rows


def gmi_ways(setting: ClassifierSetting) -> dict[str, Callable[[], Tensor]]:
    """GMI's search for two restarts of each class."""
    prior = public_gan(setting.public, GanConfig())
    config = dataclasses.replace(gmi.GmiConfig(), steps=STEPS)
    labels = torch.arange(setting.classes, device=setting.device).repeat_interleave(2)

    def searched(chosen: Tensor) -> Tensor:
        return gmi.search(setting.target.grant("white-box"), prior, chosen, config)[0]

    return {
        "one batch": lambda: searched(labels).view(setting.classes, 2, *setting.shape),
        "class by class": lambda: torch.stack([searched(chosen) for chosen in labels.split(2)]),
    }


class OneClass:
    """A view of a target with its other classes as they are, for an attack that is to run for one class alone."""

    def __init__(self, oracle: Any, label: int):
        self.oracle, self.label, self.device = oracle, label, oracle.device

    def __call__(self, x: Tensor) -> Tensor:
        logits = self.oracle(x)
        return logits.roll(-self.label, dims=1)  # the class asked for comes first


@dataclasses.dataclass
class Asked:
    """What Fredrikson's attack reads of the adversary's knowledge."""

    num_classes: int
    image_shape: tuple[int, ...]


def pixel_ways(setting: ClassifierSetting) -> dict[str, Callable[[], Tensor]]:
    """Descent on pixels from grey, all steps done: nobody stops early."""
    config = dataclasses.replace(fredrikson.EXPERIMENT.config, steps=STEPS, patience=STEPS + 1, enough=1.0)
    oracle = setting.target.grant("white-box")

    def found(view: Any, classes: int) -> Tensor:
        return fredrikson.attack(view, Asked(classes, setting.shape), config).data

    return {
        "one batch": lambda: found(oracle, setting.classes),
        "class by class": lambda: torch.cat([found(OneClass(oracle, label), 1) for label in range(setting.classes)]),
    }


def toolbox_ways(setting: ClassifierSetting) -> dict[str, Callable[[], Tensor]]:
    """MIFace on the same network (which gives probabilities, as it expects), with the same steps and learning rate."""
    from art.attacks.inference.model_inversion import MIFace
    from art.estimators.classification import PyTorchClassifier

    network = nn.Sequential(setting.target.grant("white-box").model, nn.Softmax(dim=1))
    classifier = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), setting.shape, setting.classes, clip_values=(0.0, 1.0), device_type="cpu"
    )
    start = np.full((setting.classes, *setting.shape), 0.5, dtype=np.float32)

    def found(batch: int) -> Tensor:
        attack = MIFace(
            classifier,
            max_iter=STEPS,
            window_length=STEPS + 1,
            threshold=1.0,
            learning_rate=fredrikson.EXPERIMENT.config.lr,
            batch_size=batch,
            verbose=False,
        )
        return torch.as_tensor(attack.infer(start.copy(), np.arange(setting.classes)), device="cpu")[:, None]

    return {"toolbox, class by class": lambda: found(1), "toolbox, one batch": lambda: found(setting.classes)}


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else os.cpu_count() or 1
    torch.set_num_threads(threads)
    setting = ClassifierSetting()
    setting.prepare()
    pixels = pixel_ways(setting) | (toolbox_ways(setting) if threads == 1 else {})
    rows = {"gmi": compared(setting, gmi_ways(setting)), "pixels": compared(setting, pixels)}
    machine = f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}"
    found = {"machine": machine, "steps": STEPS, "classes": setting.classes, **rows}
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"command": "make bench-classifier"}
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(record | {f"threads: {threads}": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
