"""Natural-image crops from the photographs that scikit-image ships: no download, private and public pictures disjoint.

A crop is a window of a picture that was scaled down first, so that it shows a thing and not a patch of texture. Windows with
little contrast are left out. Everything is drawn on the CPU: a seed gives the same crops on every device.
"""

from functools import cache

import torch
from skimage import data
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import resize, rgb_to_grayscale

PICTURES = {
    "private": ("astronaut", "chelsea", "coffee"),
    "public": ("stereo_motorcycle", "rocket", "immunohistochemistry", "retina"),
}
ZOOMS = (1.5, 2.0, 3.0, 4.0)  # shorter side of the scaled picture, in crop sizes
CONTRAST = 0.12  # smallest standard deviation of a crop's values, all channels together


@cache
def picture(name: str) -> Tensor:
    """One shipped photograph (3, H, W) in [0, 1], on the CPU; of the stereo pair only the left one."""
    pixels = getattr(data, name)()
    pixels = pixels[0] if isinstance(pixels, tuple) else pixels
    return torch.as_tensor(pixels.copy(), device="cpu").permute(2, 0, 1).float() / 255


@cache
def scaled(name: str, zoom: float, size: int) -> tuple[Tensor, Tensor]:
    """A photograph scaled so that its shorter side is `zoom * size`, and the corners (N, 2) of windows with contrast."""
    small = resize(picture(name), [round(zoom * size)], antialias=True).clamp(0, 1)
    moments = F.avg_pool2d(torch.stack([small, small.square()]), size, stride=1).mean(dim=1)  # (2, rows, columns)
    deviation = (moments[1] - moments[0].square()).clamp_min(0).sqrt()
    return small, (deviation >= CONTRAST).nonzero()


def natural_crops(
    count: int, size: int = 32, seed: int = 0, split: str = "private", device: torch.device | str = "cpu", grey: bool = False
) -> Tensor:
    """Crops (count, 3, size, size) in [0, 1], or (count, 1, size, size) where `grey`; the pictures take turns.

    `split` is private or public: crops of the two never come from the same picture. Crops of one split may overlap. Raises
    ValueError for another split or sizes outside 8 to 128.
    """
    if split not in PICTURES:
        raise ValueError(f"split must be private or public, not {split!r}")
    if not 8 <= size <= 128:
        raise ValueError(f"size must lie in 8 to 128, not {size}")
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    generator = torch.Generator("cpu").manual_seed(2 * seed + (split == "public"))
    names = PICTURES[split]
    turn = torch.arange(count, device="cpu") % len(names)
    zoom, where = torch.rand((2, count), generator=generator, dtype=torch.float64, device="cpu")
    crops = torch.empty((count, 3, size, size), device="cpu")
    for number, name in enumerate(names):
        sources = [found for found in (scaled(name, z, size) for z in ZOOMS) if len(found[1])]
        for level, (small, corners) in enumerate(sources):
            chosen = ((turn == number) & ((zoom * len(sources)).long() == level)).nonzero().squeeze(1)
            top, left = corners[(where[chosen] * len(corners)).long()].unbind(dim=1)
            windows = small.unfold(1, size, 1).unfold(2, size, 1)  # (3, rows, columns, size, size), a view
            crops[chosen] = windows[:, top, left].transpose(0, 1)
    return (rgb_to_grayscale(crops) if grey else crops).to(device)
