"""Frames as pictures: strips, animations, and the colour scale of rain rates."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from framecast.reporting.maps import Overlay

Picture = NDArray[np.uint8]
FrameArray = NDArray[Any]
Painter = Callable[[FrameArray], Picture]

PAST, FORECAST = (120, 120, 120), (214, 96, 28)
NO_DATA = 180
BORDER, LINE = 2, 14
PLAIN = Image.Dither.NONE


def to_picture(frame: FrameArray) -> Picture:
    """Turn a frame (C, H, W) in [0, 1] into a picture (H, W, 3); more than three channels show the first.

    Where there is no data (NaN) it is grey.
    """
    pixels = np.clip(frame.astype(np.float32), 0, 1) * 255
    channels = pixels if len(pixels) == 3 else np.repeat(pixels[:1], 3, 0)
    return np.nan_to_num(np.moveaxis(channels, 0, -1), nan=NO_DATA).round().astype(np.uint8)


def enlarge(picture: Picture, least: int) -> Picture:
    """Repeat pixels until the shorter side has at least ``least`` of them."""
    factor = max(1, -(-least // min(picture.shape[:2])))
    return picture.repeat(factor, 0).repeat(factor, 1)


def strip(
    rows: Sequence[FrameArray],
    gap: int = 1,
    least: int = 48,
    *,
    columns: int = 0,
    paint: Painter = to_picture,
    overlay: Overlay | None = None,
) -> bytes:
    """Return a PNG with one row of frames per entry (T, C, H, W).

    Args:
        rows: frames in time; shorter rows end at the right.
        gap: white pixels between frames.
        least: pixels of a frame's shorter side.
        columns: frames that a row has room for, where it is more than the longest row.
        paint: turns a frame into a picture; by default, one in [0, 1].
        overlay: draws on the enlarged picture, such as a graticule.
    """
    columns = max(columns, *(len(row) for row in rows))
    finish = overlay or (lambda picture: picture)
    cells = [[finish(enlarge(paint(frame), least)) for frame in row] for row in rows]
    height, width = cells[0][0].shape[:2]
    sheet = np.full((len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for y, row in enumerate(cells):
        for x, cell in enumerate(row, columns - len(row)):
            top, left = y * (height + gap), x * (width + gap)
            sheet[top : top + height, left : left + width] = cell
    return _png(sheet)


def _png(pixels: Picture) -> bytes:
    content = io.BytesIO()
    if (pixels == pixels[..., :1]).all():
        image = Image.fromarray(np.ascontiguousarray(pixels[..., 0]))
    else:
        image = Image.fromarray(pixels)
        indexed = image.quantize(256, dither=PLAIN)
        # A third of the size where nothing is lost: rain has a dozen colours.
        image = indexed if (np.asarray(indexed.convert("RGB")) == pixels).all() else image
    image.save(content, "PNG", optimize=True)
    return content.getvalue()


def animation(
    panels: dict[str, tuple[FrameArray, int]],
    milliseconds: float = 250,
    least: int = 160,
    *,
    paint: Painter = to_picture,
    captions: Sequence[str] = (),
    foot: Callable[[int], Picture] | None = None,
    overlay: Overlay | None = None,
    kind: Literal["GIF", "PNG", "MP4"] = "GIF",
) -> bytes:
    """Return a moving picture of panels side by side.

    Args:
        panels: title -> frames (T, C, H, W) and the number of them that are past; past frames have a grey border,
            forecasts an orange one.
        milliseconds: per frame.
        least: pixels of a panel's shorter side.
        paint: turns a frame into a picture; by default, one in [0, 1].
        captions: a line of text per frame, such as its time.
        foot: makes a picture of a given width to stand below, such as a colour scale.
        overlay: draws on an enlarged frame, such as a graticule.
        kind: a GIF, which opens anywhere, its pace in hundredths of a second; an animated PNG, which browsers show and
            which is a sixth as large; or a video, for which PyAV is needed and no bytes are returned without it.
    """
    length = max(len(frames) for frames, _ in panels.values())
    pictures = []
    for step in range(length):
        cells = [
            _panel(title, paint(frames[min(step, len(frames) - 1)]), PAST if step < past else FORECAST, least, overlay)
            for title, (frames, past) in panels.items()
        ]
        sheet = np.concatenate(cells, 1)
        head = [_line(captions[step], sheet.shape[1])] if captions else []
        below = [foot(sheet.shape[1])] if foot else []
        pictures.append(Image.fromarray(np.concatenate([*head, sheet, *below])))
    if kind == "MP4":
        return _video(pictures, milliseconds)
    first, *more = _reduced(pictures) if kind == "PNG" else [one.quantize(64, dither=PLAIN) for one in pictures]
    content = io.BytesIO()
    first.save(
        content, kind, save_all=True, append_images=more, duration=round(milliseconds), loop=0, optimize=kind == "PNG"
    )
    return content.getvalue()


def _video(pictures: list[Image.Image], milliseconds: float) -> bytes:
    """Return a video in H.264, or no bytes where PyAV is not installed."""
    try:
        import av
    except ImportError:
        return b""
    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=Fraction(1000 / milliseconds).limit_denominator(1001))
        # Colours are kept for each two by two pixels, so sides are even.
        stream.width, stream.height = (side + side % 2 for side in pictures[0].size)
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "18", "threads": "1"}
        for picture in pictures:
            sheet = Image.new("RGB", (stream.width, stream.height), "white")
            sheet.paste(picture)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(sheet), format="rgb24")))
        file.mux(stream.encode())
    return content.getvalue()


def _reduced(pictures: list[Image.Image]) -> list[Image.Image]:
    """Return pictures in 256 colours that all of them share, as the frames of an animated PNG must."""
    sheet = Image.fromarray(np.concatenate([np.asarray(picture) for picture in pictures]))
    palette = sheet.quantize(256, dither=PLAIN)
    return [picture.quantize(palette=palette, dither=PLAIN) for picture in pictures]


def _panel(title: str, picture: Picture, colour: tuple[int, int, int], least: int, overlay: Overlay | None) -> Picture:
    picture = enlarge(picture, least)
    if overlay is not None:
        picture = overlay(picture)
    framed = np.full((picture.shape[0] + 2 * BORDER, picture.shape[1] + 2 * BORDER, 3), colour, np.uint8)
    framed[BORDER:-BORDER, BORDER:-BORDER] = picture
    return np.concatenate([_line(title, framed.shape[1]), framed]) if title else framed


def _line(words: str, width: int) -> Picture:
    """Return a line of text of a given width."""
    sheet = Image.new("RGB", (width, LINE), "white")
    ImageDraw.Draw(sheet).text((2, 1), words, fill="black")
    return np.asarray(sheet)


# From this rate in mm/h on -> colour; blue is weak rain, warm colours are strong.
CLASSES: tuple[tuple[float, str], ...] = (
    (0.1, "#cfe7f5"),
    (0.5, "#8cc6ea"),
    (1, "#4696d2"),
    (2, "#2a63b0"),
    (5, "#f7dc5e"),
    (10, "#f5a33a"),
    (20, "#e4572e"),
    (50, "#b0234f"),
    (100, "#6a1a6e"),
)
DRY, NO_DATA_COLOUR = "#f7f9fa", "#b4b8bd"
UNIT = "mm/h"

_TABLE = np.array(
    [tuple(bytes.fromhex(colour[1:])) for colour in (DRY, *(colour for _, colour in CLASSES), NO_DATA_COLOUR)], np.uint8
)
_EDGES = np.array([edge for edge, _ in CLASSES])


def rain_picture(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """Turn rain rates (C, H, W) in mm/h, NaN where there is no data, into a picture (H, W, 3) of the first channel."""
    rates = frame[0].astype(np.float64)
    classes = np.searchsorted(_EDGES, np.nan_to_num(rates), side="right")
    return _TABLE[np.where(np.isnan(rates), len(_TABLE) - 1, classes)]


def rain_legend() -> list[tuple[str, str]]:
    """Return colour and label of each class, from no data to the strongest rain."""
    edges = [edge for edge, _ in CLASSES]
    labels = [f"{low:g}–{high:g}" for low, high in pairwise(edges)] + [f"≥ {edges[-1]:g}"]
    colours = [colour for _, colour in CLASSES]
    return [(NO_DATA_COLOUR, "no data"), (DRY, f"< {edges[0]:g}"), *zip(colours, labels, strict=True)]


def legend_picture(width: int) -> NDArray[np.uint8]:
    """Return the colour scale as a picture (H, width, 3) to stand below a map: lower edges of the classes in mm/h."""
    cells = [("-", NO_DATA_COLOUR), ("0", DRY), *((f"{edge:g}", colour) for edge, colour in CLASSES)]
    step = max(1, (width - 30) // len(cells))
    sheet = Image.new("RGB", (width, 26), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (label, colour) in enumerate(cells):
        pen.rectangle((number * step, 2, (number + 1) * step - 2, 10), fill=colour, outline="#8a8f98")
        pen.text((number * step, 12), label, fill="black")
    pen.text((len(cells) * step, 1), UNIT, fill="black")
    return np.asarray(sheet)
