"""Rendered portraits with known identity parameters: data that anybody may attack.

A person is a row of `IDENTITY` parameters, a picture of them a row of `NUISANCE` parameters; all lie in [0, 1]. Parts are soft
masks on a supersampled grid, painted back to front, so that a batch is drawn at once, on any device, at any size.

Coordinates: x to the right, y down, both in [-1, 1]; the head is centred near (0, -0.05) and about 0.55 wide.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Parameter:
    """One number in [0, 1] and what 0 and 1 mean."""

    name: str
    says: str


IDENTITY = tuple(
    Parameter(*pair)
    for pair in (
        ("skin", "skin tone from light to dark"),
        ("undertone", "cool to warm skin"),
        ("face_width", "narrow to wide head"),
        ("face_height", "short to long head"),
        ("jaw", "pointed to square jaw"),
        ("cheeks", "hollow to full, rosy cheeks"),
        ("hair_tone", "hair colour: black, brown, red, blond, grey"),
        ("hair_volume", "flat to voluminous hair"),
        ("hair_length", "cropped, short, bob, long"),
        ("hair_curl", "smooth to curly outline"),
        ("fringe", "receding hairline to low fringe"),
        ("parting", "parting to the left or to the right"),
        ("eye_distance", "close-set to wide-set eyes"),
        ("eye_size", "small to large eyes"),
        ("eye_height", "low to high eyes"),
        ("eye_tilt", "drooping to upturned eyes"),
        ("iris", "brown, hazel, green, blue, grey eyes"),
        ("brow_thickness", "thin to thick brows"),
        ("brow_angle", "arched to stern brows"),
        ("nose_length", "short to long nose"),
        ("nose_width", "narrow to broad nose"),
        ("mouth_width", "small to wide mouth"),
        ("mouth_height", "high to low mouth"),
        ("lips", "thin to full lips"),
        ("beard", "none below 0.6, then stubble to full beard"),
        ("moustache", "none below 0.75, then thin to thick"),
        ("glasses", "none below 0.72, then thin to thick frames"),
        ("ears", "small to large ears"),
    )
)
NUISANCE = tuple(
    Parameter(*pair)
    for pair in (
        ("rotation", "head tilted to the left or right, up to 9 degrees"),
        ("scale", "far to near, 0.9 to 1.1"),
        ("shift_x", "left to right, up to 0.08"),
        ("shift_y", "up to down, up to 0.08"),
        ("yaw", "turned to the left or right; features move with it"),
        ("light_x", "light from the left or right"),
        ("light", "strength of that light"),
        ("gaze", "looking left or right"),
        ("smile", "frown to smile"),
        ("open", "closed to open mouth"),
        ("background_hue", "hue of the background"),
        ("background_tone", "dark to light background"),
        ("clothes_hue", "hue of the clothes"),
        ("clothes_tone", "dark to light clothes"),
        ("gain", "under- to overexposed"),
        ("noise", "sensor noise, up to 0.03"),
        ("noise_seed", "which noise"),
    )
)
_IDENTITY_INDEX = {parameter.name: i for i, parameter in enumerate(IDENTITY)}
_NUISANCE_INDEX = {parameter.name: i for i, parameter in enumerate(NUISANCE)}

SKIN = ((0.99, 0.87, 0.78), (0.94, 0.76, 0.63), (0.80, 0.59, 0.44), (0.60, 0.41, 0.29), (0.38, 0.25, 0.18))
HAIR = ((0.07, 0.06, 0.07), (0.25, 0.15, 0.09), (0.45, 0.27, 0.14), (0.63, 0.27, 0.12), (0.86, 0.69, 0.38), (0.72, 0.72, 0.74))
IRIS = ((0.28, 0.16, 0.08), (0.50, 0.36, 0.16), (0.30, 0.48, 0.26), (0.24, 0.45, 0.72), (0.50, 0.55, 0.60))


def sample_identities(
    n: int, generator: torch.Generator, device: torch.device | str, closeness: float = 0.0, candidates: int = 6
) -> Tensor:
    """n people (n, P), each the candidate farthest from those before it, so that no two are near duplicates.

    `closeness` in [0, 1) draws all of them towards a common mean. Raises ValueError outside that range.
    """
    if not 0 <= closeness < 1:
        raise ValueError(f"closeness must lie in [0, 1), not {closeness}")
    drawn = torch.rand(n * candidates, len(IDENTITY), generator=generator, device=device)
    chosen = drawn[:1]
    for options in drawn[candidates:].split(candidates):
        gaps = torch.cdist(options, chosen).min(dim=1).values
        chosen = torch.cat([chosen, options[gaps.argmax()][None]])
    return 0.5 + (1 - closeness) * (chosen - 0.5)


def sample_nuisances(n: int, generator: torch.Generator, device: torch.device | str, domain: str = "private") -> Tensor:
    """n pictures (n, Q). `shifted`: bright coloured backgrounds, hard light from one side, more noise, turned heads."""
    drawn = torch.rand(n, len(NUISANCE), generator=generator, device=device)
    if domain == "private":
        return drawn
    if domain != "shifted":
        raise ValueError(f"domain must be private or shifted, not {domain!r}")
    for name, low, high in (
        ("background_tone", 0.75, 1.0),
        ("background_hue", 0.05, 0.45),
        ("light", 0.7, 1.0),
        ("light_x", 0.0, 0.3),
        ("yaw", 0.45, 1.0),
        ("noise", 0.6, 1.0),
        ("gain", 0.5, 1.0),
    ):
        index = _NUISANCE_INDEX[name]
        drawn[:, index] = low + (high - low) * drawn[:, index]
    return drawn


def identity_error(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of identity parameters, (..., P) and (..., P) to (...), in [0, 1]."""
    return (a - b).abs().mean(dim=-1)


def render(identities: Tensor, nuisances: Tensor, size: int = 32, supersample: int = 2, chunk: int | None = None) -> Tensor:
    """Pictures (B, 3, size, size) in [0, 1] of people (B, P) under circumstances (B, Q).

    Each part of the face is evaluated on a grid `supersample` times as fine. `chunk` pictures are drawn at once: 16 on a CPU,
    where they then stay in its cache, 512 elsewhere. Raises ValueError for wrong shapes or sizes.
    """
    if identities.ndim != 2 or identities.shape[1] != len(IDENTITY) or nuisances.shape != (len(identities), len(NUISANCE)):
        raise ValueError(
            f"expected people (B, {len(IDENTITY)}) and circumstances (B, {len(NUISANCE)}), "
            f"not {tuple(identities.shape)} and {tuple(nuisances.shape)}"
        )
    if size < 8 or supersample < 1:
        raise ValueError(f"size must be at least 8 and supersample at least 1, not {size} and {supersample}")
    chunk = chunk or (16 if identities.device.type == "cpu" else 512)
    parts = zip(identities.split(chunk), nuisances.split(chunk), strict=True)
    return torch.cat([_render(people, how, size, supersample) for people, how in parts])


class _Canvas:
    """A batch of pictures being painted: colours (B, 3, H, W), coordinates (B, H, W), softness of edges."""

    def __init__(self, background: Tensor, x: Tensor, y: Tensor, soft: float):
        self.rgb, self.x, self.y, self.soft = background, x, y, soft

    def paint(self, mask: Tensor, colour: Tensor, strength: Tensor | float = 1.0) -> None:
        """Lays a colour (B, 3) or (B, 3, H, W) over the picture where the mask (B, H, W) is 1."""
        alpha = (mask * strength)[:, None]
        self.rgb = self.rgb + alpha * ((colour if colour.ndim == 4 else colour[:, :, None, None]) - self.rgb)

    def edge(self, signed: Tensor, soft: float = 1.0) -> Tensor:
        """A soft step: 1 where signed > 0; `signed` is a distance in coordinates."""
        return torch.sigmoid(signed / (self.soft * soft))

    def ellipse(self, cx, cy, rx, ry, power: float = 2.0, soft: float = 1.0) -> Tensor:
        """Mask of |x/rx|^p + |y/ry|^p < 1; centre and radii are (B, 1, 1) or numbers."""
        u = ((self.x - cx).abs() / rx).pow(power) + ((self.y - cy).abs() / ry).pow(power)
        return self.edge((1 - u.clamp_min(1e-9).pow(1 / power)) * (rx + ry) / 2, soft)


def _palette(colours: tuple, position: Tensor) -> Tensor:
    """Colours (B, 3) at positions (B,) in [0, 1] along a list, blended between neighbours."""
    table = torch.tensor(colours, dtype=position.dtype, device=position.device)
    place = position.clamp(0, 1) * (len(colours) - 1)
    low = place.floor().long().clamp(max=len(colours) - 2)
    return torch.lerp(table[low], table[low + 1], (place - low)[:, None])


def _hue(hue: Tensor, saturation: float, tone: Tensor) -> Tensor:
    """Muted colours (B, 3) from hue, saturation and lightness in [0, 1]."""
    offsets = torch.tensor([0.0, 1 / 3, 2 / 3], dtype=hue.dtype, device=hue.device)
    wave = 0.5 + 0.5 * torch.cos(2 * torch.pi * (hue[:, None] - offsets))
    return tone[:, None] * (1 - saturation + saturation * wave)


def _render(people: Tensor, how: Tensor, size: int, supersample: int) -> Tensor:
    p = {name: people[:, i].view(-1, 1, 1) for name, i in _IDENTITY_INDEX.items()}
    q = {name: how[:, i].view(-1, 1, 1) for name, i in _NUISANCE_INDEX.items()}
    fine = size * supersample
    line = (torch.arange(fine, device=people.device, dtype=people.dtype) + 0.5) / fine * 2 - 1
    y0, x0 = torch.meshgrid(line, line, indexing="ij")
    angle = (q["rotation"] - 0.5) * 0.3
    zoom = 1 / (0.9 + 0.2 * q["scale"])
    x1, y1 = x0 - (q["shift_x"] - 0.5) * 0.16, y0 - (q["shift_y"] - 0.5) * 0.16
    x = (angle.cos() * x1 + angle.sin() * y1) * zoom
    y = (-angle.sin() * x1 + angle.cos() * y1) * zoom
    tone = 0.25 + 0.65 * q["background_tone"].flatten()
    wall = _hue(q["background_hue"].flatten(), 0.28, tone)[:, :, None, None]
    canvas = _Canvas(wall * (1.06 - 0.14 * (y0 * 0.5 + 0.5)), x, y, 1.6 / fine)

    skin = _palette(SKIN, p["skin"].flatten())
    warm = (p["undertone"].flatten() - 0.5)[:, None] * torch.tensor([0.04, 0.0, -0.07], dtype=skin.dtype, device=skin.device)
    skin = (skin + warm).clamp(0, 1)
    hair = _palette(HAIR, p["hair_tone"].flatten())
    head = {"rx": 0.38 + 0.12 * p["face_width"], "ry": 0.50 + 0.12 * p["face_height"], "turn": (q["yaw"] - 0.5) * 0.24}
    _hair_behind(canvas, p, head, hair)
    _neck_and_clothes(canvas, q, skin)
    face = _head(canvas, p, q, head, skin)
    _eyes(canvas, p, q, head, skin, hair)
    _nose(canvas, p, head, skin)
    _mouth(canvas, p, q, head, skin, hair, face)
    _hair_in_front(canvas, p, head, hair)
    _glasses(canvas, p, head)
    small = F.avg_pool2d(canvas.rgb, supersample)
    exposed = small * (0.88 + 0.24 * q["gain"])[:, None]
    grain = _grain(q["noise_seed"], size).to(exposed.dtype)
    return (exposed + 0.03 * q["noise"][:, None] * grain).clamp(0, 1)


def _grain(seed: Tensor, size: int) -> Tensor:
    """Noise (B, 3, size, size) in [-1, 1] that depends on the seed (B, 1, 1) alone: a hash, the same on every device."""
    cell = torch.arange(3 * size * size, device=seed.device, dtype=torch.float64).view(1, 3, size, size)
    return 2 * torch.frac((torch.sin(cell * 12.9898 + seed[:, None].double() * 78233.0) * 43758.5453).abs()) - 1


def _hair_behind(c: _Canvas, p: dict, head: dict, hair: Tensor) -> None:
    """Hair that hangs behind the neck: from nothing (cropped) to the shoulders."""
    length = (p["hair_length"] - 0.35).clamp_min(0) / 0.65
    volume = 0.03 + 0.12 * p["hair_volume"]
    wave = 0.03 * p["hair_curl"] * torch.sin(22 * c.y + 3 * c.x)
    bottom = 0.05 + 0.85 * length
    sides = c.edge(head["rx"] + volume + wave - (c.x - 0.3 * head["turn"]).abs())
    falls = sides * c.edge(bottom - c.y) * c.edge(c.y + 0.35)
    c.paint(falls * (length > 0), hair * 0.72)


def _neck_and_clothes(c: _Canvas, q: dict, skin: Tensor) -> None:
    cloth = _hue(q["clothes_hue"].flatten(), 0.7, 0.3 + 0.6 * q["clothes_tone"].flatten())
    c.paint(c.edge(0.19 - c.x.abs()) * c.edge(c.y - 0.3) * c.edge(1.0 - c.y), skin * 0.78)
    shoulders = c.ellipse(0.0, 1.18, 0.86, 0.46, 2.4)
    c.paint(shoulders, cloth)
    c.paint(c.ellipse(0.0, 0.70, 0.22, 0.13), skin * 0.82)


def _head(c: _Canvas, p: dict, q: dict, head: dict, skin: Tensor) -> Tensor:
    """Ears, face and its shading; returns the mask of the face."""
    rx, ry, turn = head["rx"], head["ry"], head["turn"]
    ear = 0.06 + 0.05 * p["ears"]
    for side in (-1.0, 1.0):
        c.paint(c.ellipse(side * rx * 0.98 + 0.1 * turn, 0.02, ear, ear * 1.5), skin * 0.86)
    chin = (c.y / ry).clamp(0, 1.2)
    narrow = 1 - (0.42 - 0.34 * p["jaw"]) * chin.square()
    u = (c.x / (rx * narrow)).abs().pow(2.2) + (c.y / ry).abs().pow(2.2)
    face = c.edge((1 - u.clamp_min(1e-9).pow(1 / 2.2)) * rx)
    side = (q["light_x"] - 0.5) * 2
    shade = 1 + (0.05 + 0.17 * q["light"]) * side * c.x / rx - 0.10 * (c.x / rx).square() - 0.06 * c.y
    c.paint(face, skin[:, :, None, None] * shade[:, None])
    rosy = torch.stack([skin[:, 0], skin[:, 1] * 0.72, skin[:, 2] * 0.70], dim=1)
    for sign in (-1.0, 1.0):
        blush = c.ellipse(sign * rx * 0.55 + turn, 0.17, 0.13, 0.09, soft=6.0)
        c.paint(blush * face, rosy, 0.15 + 0.45 * p["cheeks"])
    return face


def _eyes(c: _Canvas, p: dict, q: dict, head: dict, skin: Tensor, hair: Tensor) -> None:
    iris = _palette(IRIS, p["iris"].flatten())
    white, black = torch.full_like(iris, 0.96), torch.full_like(iris, 0.05)
    apart, level = 0.155 + 0.075 * p["eye_distance"], -0.04 - 0.12 * p["eye_height"]
    rx = 0.07 + 0.045 * p["eye_size"]
    ry = rx * 0.62
    thick = 0.014 + 0.034 * p["brow_thickness"]
    for side in (-1.0, 1.0):
        cx = side * apart + head["turn"]
        tilt = (p["eye_tilt"] - 0.5) * 0.5 * side
        lean = (c.x - cx) * tilt
        inside = ((c.x - cx) / rx).square() + ((c.y - level + lean) / ry).square()
        eye = c.edge((1 - inside.clamp_min(1e-9).sqrt()) * rx)
        c.paint(c.ellipse(cx, level, rx * 1.45, ry * 1.7, soft=5.0), skin * 0.8, 0.5)
        c.paint(eye, white)
        look = cx + (q["gaze"] - 0.5) * 0.05
        c.paint(eye * c.ellipse(look, level, ry * 0.92, ry * 0.92), iris)
        c.paint(eye * c.ellipse(look, level, ry * 0.45, ry * 0.45), black)
        c.paint(eye * c.ellipse(look - 0.018, level - 0.018, 0.014, 0.014), white)
        lid = c.edge(0.016 - ((inside.clamp_min(1e-9).sqrt() - 1) * ry).abs()) * c.edge(level - lean - c.y)
        c.paint(lid, hair * 0.25, 0.9)
        slope = (p["brow_angle"] - 0.5) * 0.9 * side
        bend = 1.6 * (1 - p["brow_angle"]) * (c.x - cx).square()
        brow_y = level - ry - 0.075 - slope * (c.x - cx) * -1 + bend
        brow = c.edge(thick - (c.y - brow_y).abs()) * c.edge(rx * 1.35 - (c.x - cx).abs())
        c.paint(brow, hair * 0.7)


def _nose(c: _Canvas, p: dict, head: dict, skin: Tensor) -> None:
    cx, tip = head["turn"] * 1.25, 0.09 + 0.13 * p["nose_length"]
    width = 0.045 + 0.06 * p["nose_width"]
    c.paint(c.ellipse(cx + 0.35 * width, tip - 0.09, width * 0.35, 0.12, soft=3.0), skin * 0.84, 0.6)
    c.paint(c.ellipse(cx - 0.3 * width, tip - 0.08, width * 0.28, 0.12, soft=3.0), (skin * 1.12).clamp(max=1), 0.6)
    c.paint(c.ellipse(cx, tip, width, 0.038, soft=1.5), skin * 0.80)
    for side in (-1.0, 1.0):
        c.paint(c.ellipse(cx + side * width * 0.55, tip + 0.018, width * 0.26, 0.016), skin * 0.45)


def _mouth(c: _Canvas, p: dict, q: dict, head: dict, skin: Tensor, hair: Tensor, face: Tensor) -> None:
    """Lips, what the open mouth shows, and the beard and moustache around them."""
    cx, cy = head["turn"] * 1.1, 0.31 + 0.09 * p["mouth_height"]
    wide = 0.11 + 0.10 * p["mouth_width"]
    beard = ((p["beard"] - 0.6) / 0.4).clamp(0, 1)
    chin = face * c.edge(c.y - cy + 0.10 + 0.9 * ((c.x - cx).abs() - wide - 0.12).clamp_min(0) * -1, 2.0)
    c.paint(chin * (1 - c.ellipse(cx, cy, wide * 1.05, 0.07)), hair * 0.85, (beard > 0) * (0.35 + 0.6 * beard))
    lips = torch.stack([skin[:, 0] * 0.86, skin[:, 1] * 0.55, skin[:, 2] * 0.56], dim=1)
    curve = (q["smile"] - 0.35) * 1.6 * (wide * 0.5 - (c.x - cx).square() / wide)
    line = cy + curve - 0.03
    taper = (1 - ((c.x - cx) / wide).square()).clamp_min(0)
    gap = 0.05 * (q["open"] - 0.5).clamp_min(0) * 2 * taper
    full = (0.022 + 0.034 * p["lips"]) * taper.sqrt()
    span = c.edge(wide - (c.x - cx).abs())
    c.paint(span * c.edge(full + gap - (c.y - line).abs()), lips)
    c.paint(span * c.edge(gap - 0.012 - (c.y - line).abs()), torch.full_like(lips, 0.9))
    c.paint(span * c.edge(0.007 - (c.y - line).abs() + gap * 0), lips * 0.5, 0.8 * (gap < 0.012))
    moustache = ((p["moustache"] - 0.75) / 0.25).clamp(0, 1)
    over = c.ellipse(cx, cy - 0.085, wide * 0.95, 0.022 + 0.03 * moustache)
    c.paint(over, hair * 0.8, (moustache > 0) * 0.95)


def _hair_in_front(c: _Canvas, p: dict, head: dict, hair: Tensor) -> None:
    """The cap of hair with its outline, parting and fringe; a receding hairline where the fringe is near 0."""
    rx, ry = head["rx"], head["ry"]
    volume = 0.03 + 0.13 * p["hair_volume"]
    angle = torch.atan2(c.y + 0.05, c.x)
    curls = 0.035 * p["hair_curl"] * torch.sin(17 * angle)
    u = (c.x / (rx + volume + curls)).square() + ((c.y + 0.02) / (ry + volume + curls)).square()
    outline = c.edge((1 - u.clamp_min(1e-9).sqrt()) * rx)
    parting = (p["parting"] - 0.5) * 1.2
    line = (
        -ry * (0.86 - 0.48 * p["fringe"])
        + 0.55 * (c.x - parting * rx).abs() * (p["parting"] - 0.5).abs()
        - 0.1 * (c.x / rx).square()
    )
    sideburn = c.edge(c.x.abs() - rx * 0.86) * c.edge(-0.02 + 0.5 * p["hair_length"] - c.y)
    top = torch.maximum(c.edge(line - c.y), sideburn)
    gloss = 1 + 0.22 * torch.exp(-(((c.y + ry * 0.78) / 0.09).square())) + 0.05 * torch.sin(40 * (c.x + 0.3 * c.y))
    c.paint(outline * top, (hair[:, :, None, None] * gloss[:, None]).clamp(0, 1))


def _glasses(c: _Canvas, p: dict, head: dict) -> None:
    worn = (p["glasses"] - 0.72) / 0.28
    thick = 0.012 + 0.02 * worn.clamp(0, 1)
    frame = torch.full_like(p["skin"].view(-1, 1).expand(-1, 3), 0.12)
    apart, level = 0.155 + 0.075 * p["eye_distance"], -0.03 - 0.12 * p["eye_height"]
    for side in (-1.0, 1.0):
        cx = side * apart + head["turn"]
        u = ((c.x - cx) / 0.15).abs().pow(3) + ((c.y - level) / 0.12).abs().pow(3)
        ring = c.edge(thick - ((u.clamp_min(1e-9).pow(1 / 3) - 1) * 0.13).abs())
        c.paint(ring, frame, (worn > 0) * 0.95)
    bridge = c.edge(thick * 0.8 - (c.y - level + 0.02).abs()) * c.edge(apart - 0.14 - (c.x - head["turn"]).abs())
    c.paint(bridge, frame, (worn > 0) * 0.95)
