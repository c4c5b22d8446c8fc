"""Files and folders that several processes may write: what killed ones and full disks leave, and who holds what."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from samples.holding import CODE, holding
from samples.kth import moving_bar, video_file
from torture.faults import attempt
from torture.finite import DATA, MODELS

import framecast as fc
from framecast import files as storage
from framecast.data.cache import kept_index
from framecast.data.formats.video import cached_video, decode_into_cache
from framecast.errors import LockedError, RunFolderError
from framecast.files import locked, remove_leftovers, replacing, write_atomically


def train(out: Path, **options: Any) -> Any:
    return fc.train(MODELS[0][0], "moving-mnist", out=out, model_options=MODELS[0][1], data_options=DATA, steps=1,
                    validate_clips=4, accelerator="cpu", progress=False, **options)  # fmt: skip


def left_over(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


# ---- what a message says is so


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"old")
    monkeypatch.setattr(storage.os, "fsync", failing)
    with pytest.raises(OSError, match=r"cannot write .*a: No space left.*the old file is intact") as error:
        write_atomically(path, b"new")
    assert error.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old"
    with pytest.raises(OSError, match="cannot write") as error:
        write_atomically(tmp_path / "b", b"new")
    assert "intact" not in str(error.value), "there was none"
    assert not left_over(tmp_path)


def test_a_folder_that_cannot_be_flushed_holds_the_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"old")
    monkeypatch.setattr(storage, "_sync_folder", failing)
    with pytest.raises(OSError, match=r"a is written, and its folder cannot be flushed.*the new file is in place") as e:
        write_atomically(path, b"new")
    assert "intact" not in str(e.value)
    assert path.read_bytes() == b"new"
    assert not left_over(tmp_path)


def failing(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_errors_about_what_is_read_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"^no run$"), replacing(tmp_path / "a"):
        raise RunFolderError("no run")
    assert not list(tmp_path.iterdir())


# ---- what killed writers left


def killed_while_writing(path: Path) -> None:
    """Have a process write half a file and be killed."""
    assert not attempt(lambda: write_atomically(path, bytes(1000)), 500, "SIGKILL")


def starts_anew() -> None:
    """Forget which folders this process has written into, as a new one knows of none."""
    storage._checked_folders.clear()


def test_the_next_writer_cleans_up(tmp_path: Path) -> None:
    killed_while_writing(tmp_path / "a")
    (tmp_path / ".of another program.tmp").touch()
    assert len(left_over(tmp_path)) == 2
    starts_anew()
    write_atomically(tmp_path / "b", b"")
    assert [path.name for path in left_over(tmp_path)] == [".of another program.tmp"]


def test_what_is_being_written_stays(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with replacing(tmp_path / "a") as file:
        file.write(b"half")
        remove_leftovers(tmp_path)
        assert len(left_over(tmp_path)) == 1
        file.write(b" and whole")
    assert (tmp_path / "a").read_bytes() == b"half and whole"
    assert not left_over(tmp_path)


def test_a_temporary_file_taken_for_a_leftover_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fcntl")
    make, made = storage.tempfile.mkstemp, []

    def overtaken(**options: Any) -> tuple[int, str]:
        handle, name = make(**options)
        made.append(name)
        if len(made) == 1:
            Path(name).unlink()
        return handle, name

    monkeypatch.setattr(storage.tempfile, "mkstemp", overtaken)
    write_atomically(tmp_path / "a", b"new")
    assert len(made) == 2
    assert (tmp_path / "a").read_bytes() == b"new"


def test_killed_decoding_indexing_and_evaluating_leave_nothing_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAMECAST_CACHE", str(tmp_path / "cache"))
    video = video_file(tmp_path / "a.avi", moving_bar(4))
    run = train(tmp_path / "run").path
    places = {"video": cached_video(video, None, None), "index": tmp_path / "cache/any", "out": tmp_path / "out/any"}
    for path in places.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        killed_while_writing(path)
        assert left_over(path.parent)
    starts_anew()
    decode_into_cache(video)
    kept_index("facts", dict)
    fc.evaluate(run, out=tmp_path / "out", limit=1, bootstrap=0, examples=1, progress=False)
    assert not [name for name, path in places.items() if left_over(path.parent)]


# ---- who holds a run folder


def test_two_trainings_never_share_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    out = tmp_path / "run"
    said = r"run is being trained by process {} on .* since 20.*training\.lock: wait until it has ended, stop it, or"
    with holding(out / "training.lock") as other:
        # Started at the same moment: the other one has written nothing yet.
        with pytest.raises(RunFolderError, match=said.format(other)):
            train(out)
        assert [path.name for path in out.iterdir()] == ["training.lock"]
    # It was killed, and what it started still lives: its lock is free.
    assert (out / "training.lock").exists()
    assert train(out).finished
    assert not (out / "training.lock").exists()
    with holding(out / "training.lock") as other, pytest.raises(RunFolderError, match=said.format(other)):
        fc.train(out=out, resume=True, progress=False)
    assert fc.train(out=out, resume=True, accelerator="cpu", progress=False).finished


def test_a_folder_of_something_else_gets_no_lock(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").touch()
    with pytest.raises(RunFolderError, match="never overwritten"):
        train(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


def test_a_lock_is_held_once_and_freed_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "a.lock"
    with locked(lock):
        assert f"process {os.getpid()} on " in lock.read_text()
        with pytest.raises(LockedError, match=f"^process {os.getpid()} on"), locked(lock):
            pass
        other = subprocess.run([sys.executable, "-c", CODE, str(lock)], capture_output=True, text=True, timeout=60)
        assert f"LockedError: process {os.getpid()} on" in other.stderr
    assert not lock.exists()
    with pytest.raises(ZeroDivisionError), locked(lock):
        raise ZeroDivisionError
    with locked(lock):
        pass

    def without_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(storage.fcntl, "flock", without_locks)
    with locked(lock):
        assert lock.exists()
    assert not lock.exists()
