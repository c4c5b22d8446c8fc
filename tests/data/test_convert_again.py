"""A conversion that was interrupted goes on, and never over an archive of other files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples.conversion import START, converted, expected, raw, values_of
from samples.radar import knmi_folder

from framecast.data import convert as converting
from framecast.errors import DataError


def test_a_second_start_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = raw(80)
    knmi_folder(tmp_path / "in", values, START)
    done: list[str] = []

    def watched(name: str, stop_after: int) -> Callable[[Any], Any]:
        task = getattr(converting, name)

        def run(piece: Any) -> Any:
            if sum(step == name for step in done) == stop_after:
                raise KeyboardInterrupt
            done.append(name)
            return task(piece)

        return run

    tasks = {name: getattr(converting, name) for name in ("index_work", "write_work")}
    for name, stop_after in (("index_work", 2), ("write_work", 3)):
        with monkeypatch.context() as patched:
            patched.setattr(converting, name, watched(name, stop_after))
            with pytest.raises(KeyboardInterrupt):
                converted(tmp_path / "in", tmp_path / "out.zarr")
        assert not (tmp_path / "out.zarr").exists(), "an archive that is not whole has not its name"
    assert len(list((tmp_path / "out.zarr.part/index").iterdir())) == 5
    assert len(list((tmp_path / "out.zarr.part/written").iterdir())) == 3
    calls: list[str] = []
    for name, task in tasks.items():
        monkeypatch.setattr(converting, name, lambda piece, name=name, task=task: calls.append(name) or task(piece))
    report = converted(tmp_path / "in", tmp_path / "out.zarr")
    assert calls == ["write_work"] * 2, "what is done is not redone"
    assert (report.frames, report.written) == (80, 2)
    np.testing.assert_allclose(values_of(tmp_path / "out.zarr")["rainfall_rate"].values, expected(values), atol=1e-6)
    calls.clear()
    again = converted(tmp_path / "in", tmp_path / "out.zarr")
    assert (again.frames, again.written, calls) == (80, 0, [])


def test_files_that_changed_between_two_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    knmi_folder(tmp_path / "in", raw(40), START)

    def stop(piece: Any) -> Any:
        if 20 in piece[1].values():
            raise KeyboardInterrupt
        return original(piece)

    original = converting.write_work
    with monkeypatch.context() as patched:
        patched.setattr(converting, "write_work", stop)
        with pytest.raises(KeyboardInterrupt):
            converted(tmp_path / "in", tmp_path / "out.zarr")
    more = raw(4, seed=1)
    knmi_folder(tmp_path / "in", more, START - 4 * 300)
    assert converted(tmp_path / "in", tmp_path / "out.zarr").frames == 44
    stored = values_of(tmp_path / "out.zarr")["rainfall_rate"].values
    np.testing.assert_allclose(stored, expected(np.concatenate([more, raw(40)])), atol=1e-6)
    knmi_folder(tmp_path / "in", raw(1), START + 90_000)
    with pytest.raises(DataError, match=r"out\.zarr exists and was not made from these files"):
        converted(tmp_path / "in", tmp_path / "out.zarr")
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="was not made from these files"):
        converted(tmp_path / "in", tmp_path / "other")
