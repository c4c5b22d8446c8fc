"""Miniature files of TaxiBJ's layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

NAMES = tuple(f"BJ{year}_M32x32_T30_InOut.h5" for year in (13, 14, 15, 16))


def dates_of(first: str, days: int, slots: int = 48, missing: Sequence[tuple[int, int]] = ()) -> list[bytes]:
    """Return dates yyyymmddSS of whole days, without the slots named as (day, slot)."""
    start = np.datetime64(first)
    return [
        f"{str(start + day).replace('-', '')}{slot:02}".encode()
        for day in range(days)
        for slot in range(1, slots + 1)
        if (day, slot) not in set(missing)
    ]


def flow_file(
    path: Path, dates: Sequence[bytes], cells: tuple[int, int] = (4, 4), *, start: int = 0, low: float = 0
) -> Path:
    """Write a file whose frame k counts start + k vehicles entering and ten times as many leaving everywhere."""
    counts = np.arange(start, start + len(dates), dtype=np.float64)
    data = np.broadcast_to(counts[:, None, None, None], (len(dates), 2, *cells)) * np.array([1, 10])[:, None, None]
    with h5py.File(path, "w") as file:
        file["data"] = np.where(data == start, low, data)
        file["date"] = np.array(dates, "S10")
    return path


def four_files(folder: Path, days: int = 9, cells: tuple[int, int] = (4, 4)) -> Path:
    """Write TaxiBJ's four files with so many days each, the second of every file lacking a slot."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(NAMES):
        dates = dates_of(f"{2013 + number}-03-01", days, missing=[(1, 7)])
        flow_file(folder / name, dates, cells, start=1000 * number)
    return folder
