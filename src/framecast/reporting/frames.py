"""Frames as pictures: strips and animations."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Picture = NDArray[np.uint8]
Frames = NDArray[Any]

PAST, FORECAST = (120, 120, 120), (214, 96, 28)
BORDER = 2


def to_picture(frame: Frames) -> Picture:
    """Turn a frame (C, H, W) in [0, 1] into a picture (H, W, 3); more than three channels show the first."""
    pixels = np.clip(np.nan_to_num(frame.astype(np.float32)), 0, 1)
    channels = pixels if len(pixels) == 3 else np.repeat(pixels[:1], 3, 0)
    return (np.moveaxis(channels, 0, -1) * 255).round().astype(np.uint8)


def enlarge(picture: Picture, least: int) -> Picture:
    """Repeat pixels until the shorter side has at least ``least`` of them."""
    factor = max(1, -(-least // min(picture.shape[:2])))
    return picture.repeat(factor, 0).repeat(factor, 1)


def strip(rows: list[Frames], gap: int = 1, least: int = 48) -> bytes:
    """Return a PNG with one row of frames per entry (T, C, H, W) in [0, 1]; shorter rows end at the right."""
    columns = max(len(row) for row in rows)
    cells = [[enlarge(to_picture(frame), least) for frame in row] for row in rows]
    height, width = cells[0][0].shape[:2]
    sheet = np.full((len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for y, row in enumerate(cells):
        for x, cell in enumerate(row, columns - len(row)):
            top, left = y * (height + gap), x * (width + gap)
            sheet[top : top + height, left : left + width] = cell
    return _png(sheet)


def _png(pixels: Picture) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", optimize=True)
    return content.getvalue()


def animation(panels: dict[str, tuple[Frames, int]], milliseconds: int = 250, least: int = 160) -> bytes:
    """Return a GIF of panels side by side.

    Args:
        panels: title -> frames (T, C, H, W) in [0, 1] and the number of them that are past; past frames have a
            grey border, forecasts an orange one.
        milliseconds: per frame.
        least: pixels of a panel's shorter side.
    """
    length = max(len(frames) for frames, _ in panels.values())
    pictures = []
    for step in range(length):
        cells = [
            _panel(title, frames[min(step, len(frames) - 1)], PAST if step < past else FORECAST, least)
            for title, (frames, past) in panels.items()
        ]
        pictures.append(Image.fromarray(np.concatenate(cells, 1)))
    palette = [picture.quantize(64, dither=Image.Dither.NONE) for picture in pictures]
    content = io.BytesIO()
    palette[0].save(content, "GIF", save_all=True, append_images=palette[1:], duration=milliseconds, loop=0)
    return content.getvalue()


def _panel(title: str, frame: Frames, colour: tuple[int, int, int], least: int) -> Picture:
    picture = enlarge(to_picture(frame), least)
    framed = np.full((picture.shape[0] + 2 * BORDER, picture.shape[1] + 2 * BORDER, 3), colour, np.uint8)
    framed[BORDER:-BORDER, BORDER:-BORDER] = picture
    if not title:
        return framed
    sheet = Image.new("RGB", (framed.shape[1], framed.shape[0] + 14), "white")
    sheet.paste(Image.fromarray(framed), (0, 14))
    ImageDraw.Draw(sheet).text((2, 1), title, fill="black")
    return np.asarray(sheet)
