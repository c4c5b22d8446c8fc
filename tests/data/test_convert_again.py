"""A conversion that was interrupted goes on, and never over an archive of other files."""

from __future__ import annotations

import errno
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples.conversion import START, converted, expected, raw, values_of
from samples.radar import knmi_folder

from framecast.data import convert as converting
from framecast.errors import DataError, DiskFullError


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


def test_a_full_disk_is_no_fault_of_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = raw(40)
    knmi_folder(tmp_path / "in", values, START)
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar.gz", "w:gz") as archive:
            for file in sorted((tmp_path / "in").iterdir())[20 * number : 20 * number + 20]:
                archive.add(file, file.name)
    shutil.rmtree(tmp_path / "in")
    copy, calls = shutil.copyfileobj, []

    def full(source: Any, target: Any) -> None:
        calls.append(1)
        if len(calls) == 25:
            raise OSError(errno.ENOSPC, "No space left on device")
        copy(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfileobj", full)
        with pytest.raises(DiskFullError, match=r"\d\.tar\.gz \(.*RAD_NL25.*h5\): free some.*TMPDIR"):
            converted(tmp_path, tmp_path / "out.zarr")
    report = converted(tmp_path, tmp_path / "out.zarr")
    assert (report.frames, report.unreadable) == (40, [])
    np.testing.assert_allclose(values_of(tmp_path / "out.zarr")["rainfall_rate"].values, expected(values), atol=1e-6)


def test_a_file_that_vanishes_between_the_two_readings_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    knmi_folder(tmp_path / "in", raw(6), START)
    original, gone = converting.frames_of, sorted((tmp_path / "in").iterdir())[3]
    readings: list[int] = []

    def without_one(work: Any) -> Any:
        readings.append(1)
        return (item for item in original(work) if len(readings) == 1 or item.label != str(gone))

    monkeypatch.setattr(converting, "frames_of", without_one)
    report = converted(tmp_path / "in", tmp_path / "out.zarr")
    assert report.unreadable == [(str(gone), "it was there when it was first read, and is gone")]
