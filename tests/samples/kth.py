"""Miniature videos and lists of KTH."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def video_file(
    path: Path, frames: NDArray[np.uint8], codec: str = "ffv1", pixels: str | None = None, rate: int = 25
) -> Path:
    """Write frames (T, H, W) or (T, H, W, 3) uint8 as a video; ffv1 loses nothing."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    grey = frames.ndim == 3
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels or ("gray" if grey else "bgr0")
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="gray" if grey else "rgb24")
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def moving_bar(count: int, height: int = 12, width: int = 16, seed: int = 0) -> NDArray[np.uint8]:
    """Draw frames (T, H, W) uint8 of a bright bar that walks to the right."""
    frames = np.full((count, height, width), 40 + seed, np.uint8)
    for number, frame in enumerate(frames):
        frame[2:-2, number % width] = 220
    return frames


def kth_folder(
    folder: Path, persons: Sequence[int], actions: Sequence[str] = ("walking", "running"), count: int = 45
) -> Path:
    """Write one clip a person and action as official AVI files, and ``00sequences.txt`` with its dirt."""
    lines = ["Training: person11, 12", "", "Number of frames and sequences"]
    for person in persons:
        for action in actions:
            name = f"person{person:02}_{action}_d1"
            video_file(folder / action / f"{name}_uncomp.avi", moving_bar(count, seed=person), "mpeg4", "yuv420p")
            lines.append(f"{name}\t\tframes\t1-25, 26-{count},")
    (folder / "00sequences.txt").write_text("\n".join([*lines, "person13_handclapping_d3\t*missing*", ""]))
    return folder
