"""Patterns: names for the boxes of the attention layers that follow one another in a block of Earthformer.

Reference: Gao et al., Earthformer: Exploring Space-Time Transformers for Earth System Forecasting,
NeurIPS 2022, doi:10.48550/arXiv.2207.05833.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from framecast.errors import UnknownNameError
from framecast.models.cuboid import Cuboid, Shape

Pattern = Callable[..., list[Cuboid]]


def _axial(shape: Shape) -> list[Cuboid]:
    t, h, w = shape
    return [Cuboid((t, 1, 1)), Cuboid((1, h, 1)), Cuboid((1, 1, w))]


def _divided(shape: Shape) -> list[Cuboid]:
    t, h, w = shape
    return [Cuboid((t, 1, 1)), Cuboid((1, h, w))]


def _video_swin(shape: Shape, frames: int, width: int) -> list[Cuboid]:
    p, m = min(frames, shape[0]), min(width, *shape[1:])
    return [Cuboid((p, m, m)), Cuboid((p, m, m), shift=(p // 2, m // 2, m // 2))]


def _spatial_lg(shape: Shape, width: int) -> list[Cuboid]:
    if max(shape[1:]) <= width:
        return _divided(shape)
    box = (1, width, width)
    return [Cuboid((shape[0], 1, 1)), Cuboid(box), Cuboid(box, dilated=True)]


def _axial_space_dilate(shape: Shape, parts: int) -> list[Cuboid]:
    t, h, w = shape
    parts = min(parts, h, w)
    boxes = (1, h // parts, 1), (1, 1, w // parts)
    return [Cuboid((t, 1, 1)), *(Cuboid(box, dilated) for box in boxes for dilated in (True, False))]


def _cross(shape: Shape, height: int, width: int, kinds: int = 1) -> list[Cuboid]:
    if height != width:
        raise ValueError(f"cross-attention takes square boxes: use cross_{height}x{height}, not {height}x{width}")
    k = min(width, *shape[1:])
    box = (1, k, k)
    return [Cuboid(box), Cuboid(box, dilated=True), Cuboid(box, shift=(0, k // 2, k // 2))][:kinds]


SELF_PATTERNS: dict[str, Pattern] = {
    "axial": _axial,
    "divided_st": _divided,
    "full": lambda shape: [Cuboid(shape)],
    "video_swin_PxM": _video_swin,
    "spatial_lg_M": _spatial_lg,
    "axial_space_dilate_K": _axial_space_dilate,
}
CROSS_PATTERNS: dict[str, Pattern] = {
    "cross_KxK": _cross,
    "cross_KxK_lg": lambda shape, height, width: _cross(shape, height, width, 2),
    "cross_KxK_heter": lambda shape, height, width: _cross(shape, height, width, 3),
}


def level_boxes(
    option: str, names: str | Sequence[str], table: dict[str, Pattern], shapes: Sequence[Shape], padding: str
) -> list[list[Cuboid]]:
    """Return the cuts of each level by the name of its pattern."""
    names = [names] * len(shapes) if isinstance(names, str) else names
    check_levels(option, names, len(shapes))
    found = (_pattern(name, table, shape) for name, shape in zip(names, shapes, strict=True))
    return [[cuboid._replace(padding=padding) for cuboid in cuboids] for cuboids in found]


def _pattern(name: str, table: dict[str, Pattern], shape: Shape) -> list[Cuboid]:
    for template, pattern in table.items():
        if match := re.fullmatch(re.sub("[A-Z]", r"([1-9]\\d*)", template), name):
            return pattern(shape, *map(int, match.groups()))
    raise UnknownNameError("pattern", name, table)


def check_levels(option: str, values: Sequence[object], levels: int) -> None:
    """Refuse an option that has not one entry for each level.

    Raises:
        ValueError: it has more or fewer, or there are no levels.
    """
    if not levels:
        raise ValueError("encoder_depths is empty: give an entry for at least one level, such as (4, 4)")
    if len(values) != levels:
        raise ValueError(
            f"{option} has length {len(values)} and encoder_depths {levels}: both have an entry for every level, so "
            f"give {option} {levels} entries"
        )
