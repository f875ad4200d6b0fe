"""Pictures for pages, notebooks and the command line: galleries of images, and a look shared by all charts."""

import itertools
from collections.abc import Mapping

import matplotlib
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

# A notebook's backend turns interactive mode on when it loads. Loaded inside `rc_context` it would be turned off again
# at the end, and only the first figure of a notebook would be shown.
plt.switch_backend(matplotlib.get_backend())

INK, FAINT = "#1f2937", "#d1d5db"
STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": matplotlib.cycler(color=["#3f51b5", "#e0792b", "#2a9d8f", "#b5487a", "#7a7f87", "#c9a227"]),
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "white",
}


def figure(width: float = 8.0, height: float = 3.0, **grid) -> tuple[Figure, object]:
    """A figure of the house style with its axes (one, or an array where `nrows`/`ncols` say so); inches."""
    with plt.rc_context(STYLE):
        return plt.subplots(figsize=(width, height), layout="constrained", **grid)


def gallery(rows: Mapping[str, Tensor], columns: int = 12, cell: float = 0.62) -> Figure:
    """One labelled row of pictures for each entry; images (N, 1 or 3, H, W) in [0, 1], the first `columns` of each."""
    if not rows:
        raise ValueError("a gallery needs at least one row of images")
    columns = min(columns, *(len(images) for images in rows.values()))
    label = 0.085 * max(len(name) for name in rows) + 0.15
    with plt.rc_context(STYLE):
        drawn = plt.figure(figsize=(label + columns * cell, len(rows) * cell))
        for index, (name, images) in enumerate(rows.items()):
            strip = torch.nn.functional.pad(images[:columns].detach().float().clamp(0, 1).cpu(), (1, 1, 1, 1), value=1.0)
            if strip.shape[1] == 1:
                strip = strip.expand(-1, 3, -1, -1)
            axes = drawn.add_axes(
                (
                    label / (label + columns * cell),
                    1 - (index + 1) / len(rows),
                    columns * cell / (label + columns * cell),
                    1 / len(rows),
                )
            )
            axes.imshow(torch.cat(list(strip), dim=2).permute(1, 2, 0).numpy(), interpolation="nearest", aspect="auto")
            axes.set_axis_off()
            drawn.text(
                (label - 0.08) / (label + columns * cell),
                1 - (index + 0.5) / len(rows),
                name,
                ha="right",
                va="center",
                fontsize=8.5,
            )
    return drawn


def tradeoff(points: Mapping[str, tuple[float, float]], x_label: str, y_label: str, highlight: str = "method") -> Figure:
    """Named points (utility, leakage): up is what an attack recovers, right is what the model is worth."""
    drawn, axes = figure(7.2, 3.4)
    shapes = itertools.cycle("osD^vPX*")
    for name, (x, y) in points.items():
        colour = {highlight: "#3f51b5", "undefended": "#e0792b"}.get(name)
        label = f"{name.replace('_', ' ')}: {x:.2f}, {y:.2f}"
        axes.scatter([x], [y], color=colour, marker=next(shapes), s=44, alpha=0.8, label=label, zorder=2)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=8)
    axes.set(xlabel=x_label, ylabel=y_label, xlim=(-0.02, 1.05), ylim=(-0.02, 1.05))
    axes.grid(color=FAINT, linewidth=0.5)
    return drawn


def bars(values: Mapping[str, float], axis: str, highlight: str = "method", width: float = 7.0) -> Figure:
    """Horizontal bars, the largest name first as given; the highlighted one stands out."""
    drawn, axes = figure(width, 0.32 * len(values) + 0.7)
    names = list(values)[::-1]
    colours = ["#3f51b5" if name == highlight else "#aab0bb" for name in names]
    axes.barh(names, [values[name] for name in names], color=colours)
    axes.set_xlabel(axis)
    for row, name in enumerate(names):
        axes.text(values[name], row, f" {values[name]:.3g}", va="center", fontsize=8)
    return drawn
