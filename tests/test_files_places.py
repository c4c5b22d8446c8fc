"""Places where nothing can be written, and names that are not text: said before the work, with the way on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import framecast as fc
from framecast.data.convert import convert
from framecast.errors import DataError, OutputPlaceError
from framecast.files import check_place

FRAMES = np.random.default_rng(0).random((12, 64, 64)).astype(np.float32)
NOT_UTF8 = os.fsdecode(b"f\xff\xfe")


def _train(frames: Path, out: Path) -> None:
    fc.train("convlstm", frames, out=out, model_options={"hidden": 4, "layers": 1}, steps=1, progress=False,
             data_options={"context": 2, "horizon": 2})  # fmt: skip


WRITERS: dict[str, Callable[[Path, Path], Any]] = {
    "train": _train,
    "convert": lambda frames, out: convert(frames, out, workers=1, progress=False),
    "predict": lambda frames, out: fc.predict("ms-lstm-moving-mnist", frames, out=out),
    "evaluate": lambda frames, out: fc.evaluate("ms-lstm-moving-mnist", limit=1, out=out, progress=False),
    "report": lambda frames, out: fc.report(frames.parent, out=out),
}


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_written_beyond_a_link_that_leads_nowhere(name: str, tmp_path: Path) -> None:
    np.save(tmp_path / "frames.npy", FRAMES)
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    for out in (tmp_path / "out", tmp_path / "out/inner"):
        with pytest.raises(OutputPlaceError, match=r"out is a link to .*nowhere, which is not there"):
            WRITERS[name](tmp_path / "frames.npy", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames.npy", "out"]


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_no_folder(name: str, tmp_path: Path) -> None:
    np.save(tmp_path / "frames.npy", FRAMES)
    with pytest.raises(OutputPlaceError, match=r"frames.npy is a file: choose another folder"):
        WRITERS[name](tmp_path / "frames.npy", tmp_path / "frames.npy" / "out")


def test_a_folder_that_is_read_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(OutputPlaceError, match="read-only, or not yours: choose another folder"):
        check_place(tmp_path / "a/b")


def test_names_that_are_not_text(tmp_path: Path) -> None:
    folder = tmp_path / NOT_UTF8
    folder.mkdir()
    np.save(folder / "frames.npy", FRAMES)
    (tmp_path / "inner").mkdir()
    np.save(tmp_path / "inner" / f"{NOT_UTF8}.npy", FRAMES)
    for path in (folder, folder / "frames.npy", tmp_path / "inner"):
        with pytest.raises(DataError, match=r"udcff.*is not UTF-8.*rename it"):
            fc.data(path, context=2, horizon=2)
        with pytest.raises(DataError, match=r"udcff.*is not UTF-8.*rename it"):
            fc.predict("ms-lstm-moving-mnist", path)
    with pytest.raises(OutputPlaceError, match=r"udcff.*is not UTF-8"):
        check_place(folder / "run")
