"""Rendered portraits with known identity parameters: face data that anybody may attack, share and measure.

A person is a row of `IDENTITY` parameters, a picture of that person a row of `NUISANCE` parameters; all lie in [0, 1]. Parts
are soft masks on a supersampled grid, painted back to front over a whole batch, on any device and at any size.

Coordinates: x to the right, y down, both in [-1, 1] over the picture. The head is an ellipse about (0, 0) with radii near 0.45
and 0.57, eyes near y = -0.05, chin near 0.57, shoulders from 0.75. Head parts live in face coordinates (`fx`, `fy`), where a
turn of the head moves the middle of the face and leaves its outline; `m` = |fx| draws a left and a right part at once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Parameter:
    """One number in [0, 1] and what its ends mean."""

    name: str
    description: str


def _parameters(table: dict[str, str]) -> tuple[Parameter, ...]:
    return tuple(Parameter(*row) for row in table.items())


IDENTITY = _parameters(
    {
        "skin": "light to dark skin",
        "undertone": "rosy to golden skin",
        "face_width": "narrow to wide head",
        "face_height": "short to long head",
        "jaw": "pointed to square jaw",
        "cheeks": "pale to rosy cheeks",
        "ears": "small to large ears",
        "hair_tone": "black, brown, blond, silver hair",
        "hair_red": "ash to copper hair",
        "hair_volume": "flat to voluminous hair",
        "hair_length": "shaved below 0.1, short, bob near 0.55, long",
        "hair_curl": "smooth to curly hair",
        "fringe": "receding hairline to fringe above the brows",
        "parting": "parting on the left or on the right",
        "eye_distance": "close-set to wide-set eyes",
        "eye_size": "small to large eyes",
        "eye_height": "low to high eyes",
        "eye_tilt": "drooping to upturned eyes",
        "iris": "dark brown, hazel, green, blue, grey eyes",
        "lashes": "faint to heavy lash line",
        "brow_thickness": "thin to thick brows",
        "brow_angle": "flat to arched brows",
        "nose_length": "short to long nose",
        "nose_width": "narrow to broad nose",
        "mouth_width": "small to wide mouth",
        "mouth_height": "high to low mouth",
        "lips": "thin to full lips",
        "lip_colour": "skin-coloured to red lips",
        "beard": "none below 0.6, then stubble to full beard",
        "moustache": "none below 0.7, then thin to full",
        "glasses": "none below 0.65, then fine to bold frames",
        "glasses_shape": "round to square glasses",
        "freckles": "none below 0.6, then faint to many",
    }
)
NUISANCE = _parameters(
    {
        "rotation": "head tilted left or right, up to 9 degrees",
        "scale": "far to near, 0.97 to 1.14",
        "shift_x": "left to right, up to 0.08",
        "shift_y": "up to down, up to 0.06",
        "yaw": "head turned left or right",
        "pitch": "looking up or down",
        "light_x": "light from the left or the right",
        "light": "flat to strong light",
        "warmth": "cool to warm light",
        "gaze": "looking left or right",
        "lids": "eyes wide open to closed",
        "smile": "serious to smiling",
        "open": "closed mouth below 0.5, then open",
        "background_hue": "hue of the background",
        "background_saturation": "grey to coloured background",
        "background_tone": "dark to light background",
        "clothes_hue": "colour of the clothes",
        "clothes_tone": "dark to light clothes",
        "neckline": "round to deep neckline",
        "gain": "under- to overexposed, 0.88 to 1.12",
        "noise": "sensor noise, standard deviation up to 0.03",
        "noise_seed": "which noise",
    }
)
# Ranges of the two domains; parameters not named are uniform in [0, 1].
_PRIVATE = {"background_saturation": (0.0, 0.55), "background_tone": (0.1, 0.8), "light": (0.0, 0.8), "smile": (0.2, 1.0)}
_PRIVATE |= {"noise": (0.0, 0.6)}
_SHIFTED = {"background_saturation": (0.6, 1.0), "background_tone": (0.65, 1.0), "light": (0.7, 1.0), "light_x": (0.0, 0.3)}
_SHIFTED |= {"noise": (0.6, 1.0), "yaw": (0.5, 1.0), "warmth": (0.6, 1.0), "gain": (0.4, 1.0), "smile": (0.0, 0.7)}
DOMAINS = {"private": _PRIVATE, "shifted": _SHIFTED}
# How much a parameter counts when people are spread apart: what is seen first counts most.
_VISIBLE = {"skin": 2.0, "hair_tone": 2.0, "hair_length": 2.0, "glasses": 2.0, "beard": 2.0, "fringe": 1.5, "hair_volume": 1.5}

SKIN = ((0.98, 0.85, 0.75), (0.95, 0.77, 0.63), (0.88, 0.67, 0.50), (0.72, 0.50, 0.35), (0.53, 0.35, 0.24), (0.36, 0.23, 0.165))
ASH_HAIR = ((0.09, 0.085, 0.10), (0.24, 0.17, 0.13), (0.42, 0.31, 0.22), (0.76, 0.63, 0.44), (0.80, 0.79, 0.78))
RED_HAIR = ((0.13, 0.07, 0.06), (0.33, 0.16, 0.09), (0.57, 0.27, 0.12), (0.89, 0.62, 0.30), (0.90, 0.82, 0.70))
IRIS = ((0.24, 0.13, 0.07), (0.46, 0.29, 0.12), (0.33, 0.47, 0.25), (0.22, 0.47, 0.72), (0.50, 0.58, 0.64))
CLOTHES = (
    (0.20, 0.29, 0.45),
    (0.21, 0.47, 0.48),
    (0.45, 0.52, 0.33),
    (0.87, 0.68, 0.33),
    (0.78, 0.42, 0.28),
    (0.55, 0.23, 0.30),
)
WALLS = ((0.55, 0.68, 0.83), (0.55, 0.76, 0.70), (0.74, 0.78, 0.55), (0.92, 0.77, 0.55), (0.90, 0.63, 0.55), (0.74, 0.62, 0.80))


def sample_identities(
    n: int,
    generator: torch.Generator,
    device: torch.device | str,
    closeness: float = 0.0,
    glasses: bool = True,
    beards: bool = True,
    candidates: int = 6,
) -> Tensor:
    """n people (n, P), each the one of some candidates that is farthest from those before it: no near duplicates.

    Half of the people have short hair and may have beards, half have longer hair, fuller lips and none; dark skin makes dark
    hair and eyes more frequent. `closeness` in [0, 1) draws all towards a common mean person; `glasses` and `beards` say
    whether any have them. Raises ValueError for a closeness outside its range.
    """
    if not 0 <= closeness < 1:
        raise ValueError(f"closeness must lie in [0, 1), not {closeness}")
    drawn = torch.rand(n * candidates, len(IDENTITY), generator=generator, device=device)
    rough = (torch.rand(len(drawn), generator=generator, device=device) < 0.5).to(drawn.dtype)
    column = {parameter.name: drawn[:, i] for i, parameter in enumerate(IDENTITY)}  # views: changed in place
    column["hair_length"].mul_(0.62 - 0.16 * rough).add_(0.38 * (1 - rough))
    column["fringe"].mul_(0.8 + 0.2 * (1 - rough)).add_(0.12 * (1 - rough)).clamp_(max=1)
    for name, share in (("beard", rough * beards), ("moustache", rough * beards), ("glasses", torch.full_like(rough, glasses))):
        column[name].mul_(0.55 + 0.45 * share)
    for name, lean in (("lips", -0.3), ("lip_colour", -0.6), ("lashes", -0.5), ("brow_thickness", 0.3), ("jaw", 0.3)):
        column[name].mul_(1 - abs(lean)).add_(abs(lean) * (rough if lean > 0 else 1 - rough))
    column["hair_tone"].mul_(1 - 0.7 * column["skin"])
    column["iris"].mul_(1 - 0.8 * column["skin"])
    weights = drawn.new_tensor([_VISIBLE.get(parameter.name, 1.0) for parameter in IDENTITY])
    chosen = drawn[:1]
    for options in drawn[candidates:].split(candidates):
        gaps = torch.cdist(options * weights, chosen * weights).min(dim=1).values
        chosen = torch.cat([chosen, options[gaps.argmax()][None]])
    return 0.5 + (1 - closeness) * (chosen - 0.5)


def sample_nuisances(n: int, generator: torch.Generator, device: torch.device | str, domain: str = "private") -> Tensor:
    """n circumstances (n, Q).

    `private`: muted backgrounds, soft light from any side, little noise. `shifted`: bright coloured backgrounds, hard warm
    light from the left, more noise, heads turned to one side, fewer smiles (`DOMAINS`). Raises ValueError for another domain.
    """
    if domain not in DOMAINS:
        raise ValueError(f"domain must be one of {', '.join(DOMAINS)}, not {domain!r}")
    drawn = torch.rand(n, len(NUISANCE), generator=generator, device=device)
    ranges = [DOMAINS[domain].get(parameter.name, (0.0, 1.0)) for parameter in NUISANCE]
    low, high = drawn.new_tensor(ranges).T
    lids = [parameter.name for parameter in NUISANCE].index("lids")
    drawn[:, lids] = drawn[:, lids] ** 6  # eyes are mostly open
    return low + (high - low) * drawn


def identity_error(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of identity parameters, (..., P) and (..., P) to (...), as a share of their range: in [0, 1]."""
    return (a - b).abs().mean(dim=-1)


def face_dataset(
    identities: Tensor, per_identity: int, generator: torch.Generator, size: int = 32, domain: str = "private"
) -> tuple[Tensor, Tensor, Tensor]:
    """`per_identity` pictures of each person (N, P): images (N * per_identity, 3, size, size), labels, nuisances."""
    nuisances = sample_nuisances(len(identities) * per_identity, generator, identities.device, domain)
    labels = torch.arange(len(identities), device=identities.device).repeat_interleave(per_identity)
    return render(identities[labels], nuisances, size), labels, nuisances


def render(identities: Tensor, nuisances: Tensor, size: int = 32, supersample: int = 2, chunk: int | None = None) -> Tensor:
    """Pictures (B, 3, size, size) in [0, 1] of people (B, P) under circumstances (B, Q).

    The grid is `supersample` times as fine as the picture. `chunk` pictures are drawn at once; by default so many that the grid
    stays in a CPU's cache, or in 1 GiB elsewhere. Raises ValueError for wrong shapes, sizes or values.
    """
    if identities.ndim != 2 or identities.shape[1] != len(IDENTITY) or nuisances.shape != (len(identities), len(NUISANCE)):
        raise ValueError(
            f"expected people (B, {len(IDENTITY)}) and circumstances (B, {len(NUISANCE)}), "
            f"not {tuple(identities.shape)} and {tuple(nuisances.shape)}"
        )
    if size < 8 or supersample < 1 or (chunk is not None and chunk < 1):
        raise ValueError(f"size must be at least 8, supersample and chunk at least 1, not {size}, {supersample}, {chunk}")
    for what, values in (("identities", identities), ("nuisances", nuisances)):
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"{what} must lie in [0, 1]")
    chunk = chunk or max(1, (2**16 if identities.device.type == "cpu" else 2**22) // (size * supersample) ** 2)
    parts = zip(identities.split(chunk), nuisances.split(chunk), strict=True)
    return torch.cat([_portrait(people, how, size, supersample) for people, how in parts])


def _portrait(people: Tensor, how: Tensor, size: int, supersample: int) -> Tensor:
    """One chunk, back to front."""
    p = {parameter.name: people[:, i].view(-1, 1, 1) for i, parameter in enumerate(IDENTITY)}
    q = {parameter.name: how[:, i].view(-1, 1, 1) for i, parameter in enumerate(NUISANCE)}
    p |= {"rx": 0.40 + 0.09 * p["face_width"], "ry": 0.52 + 0.09 * p["face_height"], "eye_y": 0.03 - 0.10 * p["eye_height"]}
    p |= {"eye_x": 0.165 + 0.055 * p["eye_distance"], "nose_y": 0.15 + 0.10 * p["nose_length"]}
    p |= {"mouth_y": 0.31 + 0.06 * p["mouth_height"] + 0.02 * p["nose_length"], "mouth_x": 0.115 + 0.07 * p["mouth_width"]}
    skin = _palette(SKIN, p["skin"]) + (p["undertone"][:, None] - 0.5) * _colour(people, 0.00, 0.025, -0.05)
    hair = torch.lerp(_palette(ASH_HAIR, p["hair_tone"]), _palette(RED_HAIR, p["hair_tone"]), p["hair_red"][:, None])
    c = _Canvas.blank(p, q, size * supersample)
    _background(c, q)
    outline = _hair_outline(c, p)
    _hair_behind(c, p, hair, outline)
    _body(c.window(0.50, 1.0, 0.0, 1.0), p, q, skin)
    face = _face_outline(c, p)
    _head(c, p, q, skin, face)
    features, eyes = c.window(0.32, 0.90, 0.16, 0.84), c.window(0.20, 0.70, 0.14, 0.86)
    _beard(c.window(0.30, 1.0, 0.10, 0.90), p, hair)
    _nose(features, p, q, skin)
    _mouth(features, p, q, skin, hair)
    _eyes(eyes, p, q, skin, hair)
    _hair_in_front(c, p, q, skin, hair, outline)
    _brows(eyes, p, q, hair)
    _glasses(eyes, p)
    return _photograph(c, q, size, supersample)


class _Canvas:
    """A batch being painted in place: colours (B, 3, H, W), coordinates (B, H, W) of body, head and face, width of edges."""

    def __init__(self, rgb: Tensor, planes: dict[str, Tensor], soft: float):
        self.rgb, self.planes, self.soft = rgb, planes, soft
        self.__dict__.update(planes)

    @classmethod
    def blank(cls, p: dict, q: dict, fine: int) -> "_Canvas":
        """Black; the body is shifted and scaled, the head also rotated about the neck, the face also turned."""
        like = q["scale"]
        line = (torch.arange(fine, device=like.device, dtype=like.dtype) + 0.5) / fine * 2 - 1
        angle, zoom = (q["rotation"] - 0.5) * 0.31, 1 / (0.97 + 0.17 * q["scale"])
        body_x = ((line - (q["shift_x"] - 0.5) * 0.16) * zoom).expand(-1, fine, -1)
        body_y = (line[:, None] + 0.07 - (q["shift_y"] - 0.5) * 0.12) * zoom
        neck = 0.55
        x = angle.cos() * body_x + angle.sin() * (body_y - neck)
        y = angle.cos() * (body_y - neck) - angle.sin() * body_x + neck
        bulge = (1 - (x / p["rx"]).square() - (y / p["ry"]).square()).clamp_min(0)
        fx, fy = x - (q["yaw"] - 0.5) * 0.25 * bulge, y - (q["pitch"] - 0.5) * 0.10 * bulge
        planes = {"bx": body_x, "by": body_y.expand_as(x), "x": x, "y": y, "fx": fx, "fy": fy, "m": fx.abs()}
        return cls(like.new_zeros(len(like), 3, fine, fine), planes, 3.0 / fine)

    def window(self, top: float, bottom: float, left: float, right: float) -> "_Canvas":
        """The same canvas within these shares of its height and width: small parts need not look at every pixel."""
        fine = self.rgb.shape[-1]
        rows, columns = slice(int(top * fine), int(bottom * fine)), slice(int(left * fine), int(right * fine))
        return _Canvas(
            self.rgb[..., rows, columns], {k: v[:, rows, columns].contiguous() for k, v in self.planes.items()}, self.soft
        )

    def paint(self, mask: Tensor, colour: Tensor, strength: Tensor | float = 1.0) -> None:
        """Lays a colour (B, 3, 1 or H, 1 or W) over the picture, as far as mask (B, H, W) times strength (B, 1, 1) say."""
        self.rgb.addcmul_((mask * strength)[:, None], colour - self.rgb)

    def edge(self, signed: Tensor, width: float = 1.0) -> Tensor:
        """1 where a signed distance is positive, 0 where negative, a ramp about one pixel (times `width`) wide between."""
        return (signed * (1 / (self.soft * width)) + 0.5).clamp(0, 1)

    def ellipse(self, x: Tensor, y: Tensor, rx: Tensor | float, ry: Tensor | float) -> Tensor:
        """Mask of an ellipse; x and y are coordinates relative to its centre."""
        return self.edge((1 - _radius(x / rx, y / ry)) * ry)

    @staticmethod
    def glow(x: Tensor, y: Tensor, rx: Tensor | float, ry: Tensor | float) -> Tensor:
        """A blob that fades from 1 at its centre to 0 on an ellipse."""
        return (1 - (x / rx).square() - (y / ry).square()).clamp_min(0).square()


def _radius(u: Tensor, v: Tensor, square: Tensor | float = 0.0) -> Tensor:
    """Distance from the origin in a norm whose unit circle goes from round (0) to square (1): the squircle's."""
    u2, v2 = u.square(), v.square()
    return (u2 + v2 - square * u2.clamp_max(1) * v2.clamp_max(1)).clamp_min(1e-6).sqrt()


def _ramp(value: Tensor, low: float, high: float) -> Tensor:
    """0 below low, 1 above high, smooth between."""
    t = ((value - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _blunt_min(a: Tensor, b: Tensor, size: float) -> Tensor:
    """The smaller of two distances, with a corner rounded over `size`."""
    return torch.minimum(a, b) - (size - (a - b).abs()).clamp_min(0).square() / (4 * size)


def _colour(like: Tensor, *rgb: float) -> Tensor:
    return like.new_tensor(rgb).view(1, 3, 1, 1)


def _palette(colours: tuple, position: Tensor, circular: bool = False) -> Tensor:
    """Colours (B, 3, 1, 1) at positions (B, 1, 1) in [0, 1] along a list, blended between neighbours."""
    table = position.new_tensor(colours + colours[:1] if circular else colours)
    place = position.flatten() * (len(table) - 1)
    low = place.detach().long().clamp(max=len(table) - 2)
    return torch.lerp(table[low], table[low + 1], (place - low)[:, None])[:, :, None, None]


def _darker(colour: Tensor, amount: Tensor | float) -> Tensor:
    """A shadow on skin: darker and warmer."""
    return colour * (1 - amount * _colour(colour, 0.78, 1.0, 1.04))


def _background(c: _Canvas, q: dict) -> None:
    """A wall with a soft gradient and light behind the head."""
    tone = (0.22 + 0.70 * q["background_tone"])[:, None]
    wall = tone * torch.lerp(
        _colour(tone, 0.93, 0.94, 0.96), 1.12 * _palette(WALLS, q["background_hue"], True), q["background_saturation"][:, None]
    )
    side = 0.06 * (q["light_x"] - 0.5) * c.bx
    c.rgb.add_(wall * (1.0 - 0.10 * c.by + side + 0.16 * c.glow(c.bx, c.by, 1.3, 1.3))[:, None])


def _hair_outline(c: _Canvas, p: dict) -> Tensor:
    """Signed distance (B, H, W), positive inside the silhouette of the hair."""
    cover, falls = _ramp(p["hair_length"], 0.06, 0.14), _ramp(p["hair_length"], 0.25, 0.60)
    bushy = torch.maximum(falls, p["hair_curl"] * 0.8)
    top = p["ry"] + cover * (0.035 + 0.125 * p["hair_volume"])
    side = p["rx"] + cover * (0.015 + bushy * (0.02 + 0.10 * p["hair_volume"]))
    curls = 0.035 * p["hair_curl"] * torch.sin(25 * c.x + 1) * torch.sin(23 * c.y)
    flare = 1 + (0.18 - 0.30 * falls) * c.y.clamp(0, 0.5) + 0.9 * falls * (c.y - 0.35).clamp_min(0).square()
    shell = (1 - _radius(c.x * flare / side, c.y.clamp_max(0) / top, 0.25)) * side
    bottom = -0.04 + 1.12 * p["hair_length"] ** 1.5 - c.y
    return _blunt_min(shell, bottom, 0.20) + curls


def _hair_behind(c: _Canvas, p: dict, hair: Tensor, outline: Tensor) -> None:
    c.paint(c.edge(outline), hair * 0.58, _ramp(p["hair_length"], 0.06, 0.14))


def _body(c: _Canvas, p: dict, q: dict, skin: Tensor) -> None:
    """Neck in the shadow of the chin, shoulders in clothes with a neckline."""
    width = 0.135 + 0.09 * p["face_width"] + 0.03 * p["jaw"]
    below = c.by - 0.71
    neck = torch.minimum(width + 1.5 * (c.by - 0.60).clamp_min(0).square() - c.bx.abs(), c.by - 0.2)
    c.paint(c.edge(neck), _darker(skin, 0.14))
    c.paint(c.edge(neck) * c.glow(c.x, c.y - 0.45, 0.50, 0.34), _darker(skin, 0.5), 0.75)
    cloth = _palette(CLOTHES, q["clothes_hue"], True) * (0.45 + 0.75 * q["clothes_tone"][:, None])
    cloth = cloth.clamp_max(0.95) + 0.08 * q["clothes_tone"][:, None]
    slope = below - 0.02 - 0.10 * c.bx.square() - 0.38 * c.bx.square().square()
    deep = 0.07 + 0.20 * q["neckline"]
    hole = (_radius(c.bx / (width + 0.085), (below + 0.02) / deep) - 1) * deep
    shade = 1.04 - 0.35 * below.clamp_min(0) - 0.10 * c.bx.square()
    cloths = torch.minimum(slope, hole)
    c.paint(c.edge(cloths), cloth * shade[:, None])
    c.paint(c.edge(cloths) * c.edge(0.035 - hole), cloth * 0.80)


def _face_outline(c: _Canvas, p: dict) -> Tensor:
    """Signed distance (B, H, W), positive inside the face."""
    v = c.y / p["ry"]
    chin = v.clamp_min(0)
    narrow = 1 - (0.36 - 0.26 * p["jaw"]) * chin.square()
    square = 0.25 + (0.55 * p["jaw"] - 0.1) * chin
    return (1 - _radius(c.x / (p["rx"] * narrow), v, square)) * p["rx"]


def _head(c: _Canvas, p: dict, q: dict, skin: Tensor, face: Tensor) -> None:
    """Ears, face with soft light from one side, cheeks."""
    size = 0.065 + 0.04 * p["ears"]
    away = c.x.abs() - p["rx"] * 0.98
    c.paint(c.ellipse(away, c.y - 0.03, size, size * 1.45), _darker(skin, 0.12))
    c.paint(c.glow(away - 0.02, c.y - 0.03, size * 0.8, size * 1.2), _darker(skin, 0.45), 0.8)
    side, strength = 2 * (q["light_x"] - 0.5), 0.35 + 0.65 * q["light"]
    u, v = c.x / p["rx"], c.y / p["ry"]
    lit = strength * (0.20 * side * u - 0.05 * v) - 0.10 * (u.square() + v.square()) + 0.05
    c.paint(c.edge(face), skin * (1 + lit[:, None] * _colour(skin, 0.85, 1.0, 1.05)))
    rosy = skin * _colour(skin, 1.0, 0.72, 0.70)
    c.paint(c.glow(c.m - 0.58 * p["rx"], c.fy - 0.17, 0.17, 0.13), rosy, 0.15 + 0.50 * p["cheeks"])
    c.paint(c.glow(c.fx - 0.12 * side, c.fy + 0.30, 0.26, 0.18), skin + 0.10, 0.5 * strength)


def _beard(c: _Canvas, p: dict, hair: Tensor) -> None:
    """From stubble to a full beard below a line from the ears to the corners of the mouth."""
    full = ((p["beard"] - 0.6) / 0.4).clamp(0, 1)
    across = ((c.m - p["mouth_x"] - 0.04) / (p["rx"] - p["mouth_x"] - 0.04)).clamp_min(0)
    below = c.fy - p["mouth_y"] + 0.035 + 0.36 * across.square()
    grown = _face_outline(c, p) + 0.10 * full.square() * (c.y * 3).clamp(0, 1)
    around = (_radius(c.fx / (1.25 * p["mouth_x"]), (c.fy - p["mouth_y"]) / 0.075) - 1) * 0.08
    mask = c.edge(torch.minimum(grown, below), 3.0) * c.edge(around, 2.0)
    texture = 0.80 + 0.10 * torch.sin(38 * c.fx) * torch.sin(33 * c.fy)
    c.paint(mask, hair * texture[:, None], _ramp(p["beard"], 0.58, 0.64) * (0.22 + 0.75 * full.sqrt()))


def _nose(c: _Canvas, p: dict, q: dict, skin: Tensor) -> None:
    """A lit bridge and tip, a shadow beside and below them, two nostrils; it sticks out, so it moves more with a turn."""
    x, y = c.fx - 0.08 * (q["yaw"] - 0.5), c.fy - p["nose_y"]
    wide, side = 0.055 + 0.045 * p["nose_width"], 2 * (q["light_x"] - 0.5)
    c.paint(c.glow(x + side * 0.07, y + 0.10, 0.07, 0.20), _darker(skin, 0.30), 0.30 + 0.4 * side.abs())
    c.paint(c.glow(x.abs() - wide, y, 0.042, 0.055), _darker(skin, 0.38), 0.75)
    c.paint(c.glow(x, y - 0.035, wide * 1.5, 0.042), _darker(skin, 0.50), 0.85)
    c.paint(c.glow(x - 0.012 * side, y + 0.09, 0.035, 0.17), skin + 0.12, 0.45)
    c.paint(c.glow(x - 0.012 * side, y + 0.012, wide * 0.75, 0.045), skin + 0.10, 0.8)
    c.paint(c.ellipse(x.abs() - wide * 0.52, y - 0.024, 0.020, 0.012), _darker(skin, 0.65), 0.75)
    speckled = (torch.sin(83 * c.fx + 19 * c.fy) * torch.sin(71 * c.fy - 23 * c.fx) * 4 - 2).clamp(0, 1)
    c.paint(speckled * c.glow(c.fx, y + 0.07, 0.40, 0.17), _darker(skin, 0.40), 2.0 * (p["freckles"] - 0.6).clamp_min(0))


def _mouth(c: _Canvas, p: dict, q: dict, skin: Tensor, hair: Tensor) -> None:
    """Lips about a line that smiles, teeth where the mouth is open, moustache."""
    wide = p["mouth_x"] * (0.95 + 0.2 * q["smile"])
    t = c.fx / wide
    k = 1 - t.square()  # 1 in the middle, 0 at the corners
    y = c.fy - p["mouth_y"] - 0.085 * (q["smile"] - 0.22) * (k.clamp_min(-0.5) - 0.6)
    gap = 0.05 * (q["open"] - 0.5).clamp_min(0) * 2
    upper = y + (0.3 * gap + (0.017 + 0.022 * p["lips"]) * (1 - 0.35 * (1 - 9 * t.square()).clamp_min(0))) * k
    lower = (0.9 * gap + 0.022 + 0.034 * p["lips"]) * k - y
    lips = torch.lerp(
        skin * _colour(skin, 0.86, 0.64, 0.62), 0.35 * skin + _colour(skin, 0.48, 0.06, 0.10), p["lip_colour"][:, None] * 0.75
    )
    c.paint(c.glow(c.fx, y - 0.085, wide * 0.8, 0.045), _darker(skin, 0.32), 0.8)
    c.paint(c.glow(c.m - wide * 1.06, y, 0.035, 0.035), _darker(skin, 0.45), 0.6)
    c.paint(c.edge(torch.minimum(upper, lower)), lips)
    c.paint(c.edge(torch.minimum(upper, -y)), lips * 0.84, 0.8)
    c.paint(c.glow(c.fx, y - 0.9 * gap - 0.5 * (0.022 + 0.034 * p["lips"]), wide * 0.5, 0.016), lips + 0.16, 0.6)
    inside = torch.minimum(y + 0.3 * gap * k, 0.9 * gap * k - y)
    c.paint(c.edge(inside), _colour(skin, 0.30, 0.09, 0.10), _ramp(q["open"], 0.5, 0.6))
    c.paint(c.edge(torch.minimum(inside, 0.45 * gap * k - y)), _colour(skin, 0.95, 0.94, 0.91), _ramp(q["open"], 0.55, 0.65))
    c.paint(c.edge(0.007 - y.abs()) * c.edge(wide * 1.02 - c.m), lips * 0.50, 0.9 * (1 - _ramp(q["open"], 0.5, 0.6)))
    full = ((p["moustache"] - 0.7) / 0.3).clamp(0, 1)
    tip = 1 - (c.m / (p["mouth_x"] * 1.2)).square()
    band = (0.016 + 0.022 * full) * tip - (c.fy - p["mouth_y"] + 0.052 - 1.2 * c.m.square()).abs()
    c.paint(c.edge(band, 1.5), hair * 0.82, 0.92 * _ramp(p["moustache"], 0.68, 0.74))


def _eyes(c: _Canvas, p: dict, q: dict, skin: Tensor, hair: Tensor) -> None:
    """Sockets, sclera between two lids, iris with pupil and highlight, lash line and crease."""
    half = 0.086 + 0.030 * p["eye_size"]
    out = c.m - p["eye_x"]  # towards the ear
    y = c.fy - p["eye_y"] + (p["eye_tilt"] - 0.5) * 0.32 * out
    k = 1 - (out / half).square()
    high = half * 0.74
    upper = y + high * (0.80 - 1.25 * q["lids"]) * k
    lower = high * (0.62 - 0.15 * q["smile"]) * k - y
    c.paint(c.glow(out + 0.01, y + 0.02, half * 1.8, half * 1.5), _darker(skin, 0.32), 0.65)
    white = c.edge(torch.minimum(torch.minimum(upper, lower), half - out.abs()))
    c.paint(white, _colour(skin, 0.965, 0.955, 0.945))
    c.paint(white * (1 - upper / 0.035).clamp_min(0), _darker(skin, 0.5), 0.55)
    x = torch.where(c.fx < 0, -out, out) - 0.055 * (q["gaze"] - 0.5)
    radius = _radius(x, y + 0.012)
    iris = _palette(IRIS, p["iris"])
    size = half * 0.56
    c.paint(white * c.edge(size - radius), iris * 0.45)
    c.paint(white * c.edge(size * 0.84 - radius), iris * (1.0 + 6 * y.clamp(-0.04, 0.04))[:, None])
    c.paint(white * c.edge(size * 0.46 - radius), _colour(skin, 0.04, 0.03, 0.04))
    c.paint(white * c.ellipse(x + 0.018, y + 0.030, 0.014, 0.014), torch.ones_like(skin), 0.95)
    dark = hair * 0.18 + _darker(skin, 0.75) * 0.3
    line = (0.008 + 0.010 * p["lashes"]) * (1 + 0.35 * out / half)
    c.paint(c.edge(line - upper.abs()) * c.edge(half * 1.06 - out.abs()), dark, 0.95)
    c.paint(c.edge(0.005 - lower.abs()) * c.edge(half * 0.9 - out.abs()), _darker(skin, 0.5), 0.5)
    crease = (y + high * 0.80 * k + 0.030).abs()
    c.paint(c.edge(0.007 - crease, 2.0) * c.edge(half * 0.9 - out.abs(), 3.0), _darker(skin, 0.45), 0.6)


def _brows(c: _Canvas, p: dict, q: dict, hair: Tensor) -> None:
    out = c.m - p["eye_x"] - 0.01
    half = 0.115 + 0.02 * p["eye_size"]
    t = out / half
    arch = (0.012 + 0.040 * p["brow_angle"]) * (1 - (t - 0.15).square() - 0.45 * t) - 0.02 * (p["eye_tilt"] - 0.5) * t
    y = c.fy - p["eye_y"] + 0.115 + 0.03 * p["eye_size"] + arch + 0.03 * (q["smile"] - 0.5) * 0.5
    thick = (0.012 + 0.020 * p["brow_thickness"]) * (1 - 0.55 * t.clamp(-0.6, 1))
    c.paint(c.edge(thick - y.abs(), 1.4) * c.edge(half - out.abs(), 1.5), hair * 0.62, 0.60 + 0.35 * p["brow_thickness"])


def _face_opening(c: _Canvas, p: dict) -> Tensor:
    """Signed distance (B, H, W), positive where the hair leaves the face free: below the hairline, between the sides."""
    part = (p["parting"] - 0.5) * 1.1 * p["rx"]
    sides = p["rx"] * (0.96 - 0.10 * _ramp(p["hair_length"], 0.30, 0.60))
    reach = torch.where(c.fx > part, (c.fx - part) / (sides - part), (part - c.fx) / (sides + part)).clamp(0, 1.2)
    recede = 1 - _ramp(p["fringe"], 0.0, 0.3)
    top = -p["ry"] * (0.84 - 0.26 * p["fringe"] + 0.10 * recede)
    temple = p["eye_y"] - 0.10
    parted = top + (temple - top) * reach.square() - 0.55 * recede * p["ry"] * reach.square() * (1 - reach).clamp_min(0)
    strands = 0.014 * torch.sin(34 * c.fx) + 0.15 * (p["parting"] - 0.5) * c.fx
    low = p["eye_y"] - 0.215 - 0.35 * (p["fringe"] - 0.8) + 0.35 * c.fx.square() + strands
    line = torch.lerp(parted, low, _ramp(p["fringe"], 0.60, 0.78))
    curls = 0.020 * p["hair_curl"] * torch.sin(31 * c.fx)
    return _blunt_min(c.fy - line + curls, sides - c.m, 0.10)


def _hair_in_front(c: _Canvas, p: dict, q: dict, skin: Tensor, hair: Tensor, outline: Tensor) -> None:
    """The cap of hair with its strands and gloss, the sides, and the shadow that they cast on the face."""
    cover = _ramp(p["hair_length"], 0.06, 0.14)
    opening = _face_opening(c, p)
    inside = c.edge(outline)
    c.paint(inside * c.edge(0.035 - opening, 4.0), skin * 0.35, 0.42 * cover)
    part = (p["parting"] - 0.5) * 1.1 * p["rx"]
    flow = (c.x - part) / (c.y + p["ry"] + 0.55).clamp_min(0.25)  # constant along a strand that falls from the parting
    strands = torch.sin(34 * flow + 5 * c.x) * (0.07 - 0.05 * p["hair_curl"])
    curls = 0.13 * p["hair_curl"] * torch.sin(25 * c.x + 1) * torch.sin(23 * c.y)
    r = _radius(c.x / (p["rx"] + 0.1), c.y / (p["ry"] + 0.08))
    gloss = (1 - ((r - 0.80) / 0.16).square()).clamp_min(0) * (c.y < 0) * (1 + 1.2 * (q["light_x"] - 0.5) * c.x / p["rx"])
    tone = 0.90 + strands + curls - 0.14 * (1 - opening.abs() * 8).clamp_min(0) - 0.10 * c.y.clamp_min(0)
    shaved = 0.30 * _ramp(p["fringe"], 0.1, 0.4) * (1 - cover)
    shine = (0.10 + 0.14 * hair) * (gloss * (0.4 + 0.6 * q["light"]))[:, None]
    c.paint(inside * c.edge(-opening), hair * tone[:, None] + shine, cover + shaved)


def _glasses(c: _Canvas, p: dict) -> None:
    """Two frames that are round to square, a bridge, arms to the ears, a reflection."""
    worn = _ramp(p["glasses"], 0.63, 0.69)
    thick = 0.008 + 0.016 * ((p["glasses"] - 0.65) / 0.35).clamp(0, 1)
    wide, high = 0.148, 0.125 - 0.015 * p["glasses_shape"]
    out, y = c.m - p["eye_x"].clamp_min(wide + 0.025), c.fy - p["eye_y"] - 0.01
    lens = (1 - _radius(out / wide, y / high, 0.9 * p["glasses_shape"])) * 0.13
    frame = torch.lerp(
        _colour(c.rgb, 0.10, 0.09, 0.11), _colour(c.rgb, 0.36, 0.20, 0.11), _ramp(p["glasses_shape"], 0.3, 0.7)[:, None]
    )
    c.paint(c.edge(lens) * (0.5 + 3 * (out - y)).clamp(0, 1), torch.ones_like(frame), 0.14 * worn)
    bridge = torch.minimum(torch.minimum(thick - (y + 0.03).abs(), -out), -lens)
    arms = torch.minimum(torch.minimum(thick - (y + 0.04).abs(), p["rx"] - c.m), -lens)
    c.paint(c.edge(torch.maximum(thick - lens.abs(), torch.maximum(bridge, arms))), frame, 0.95 * worn)


def _photograph(c: _Canvas, q: dict, size: int, supersample: int) -> Tensor:
    """The picture at its size, lit from one side, exposed, with noise."""
    slope = 0.22 * (q["light_x"] - 0.5) * q["light"] * c.bx
    tint = 1 + (q["warmth"][:, None] - 0.5) * _colour(c.rgb, 0.10, 0.0, -0.14)
    exposed = c.rgb * (1 + slope)[:, None] * tint * (0.88 + 0.24 * q["gain"])[:, None]
    small = F.avg_pool2d(exposed, supersample)
    return (small + 0.03 * q["noise"][:, None] * _grain(q["noise_seed"], size)).clamp(0, 1)


def _grain(seed: Tensor, size: int) -> Tensor:
    """Nearly normal noise (B, 3, size, size), an integer hash of seed (B, 1, 1) and place: the same on every device."""
    state = torch.arange(3 * size * size, device=seed.device).view(1, 3, size, size) * 0x9E3779B1
    state = (state + (seed.detach()[:, None] * 2**24).long() * 0x85EBCA6B) & 0xFFFFFFFF
    for factor in (0x7FEB352D, 0x846CA68B):
        state = ((state ^ (state >> 16)) * factor) & 0xFFFFFFFF
    total = sum((state >> shift) & 0xFF for shift in (0, 8, 16, 24))  # four uniform bytes
    return (total.to(seed.dtype) - 510) / 147.8
