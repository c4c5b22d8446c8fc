"""KTH: dirty lists, splits by person, windows, decoding once, damaged videos."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from samples.kth import kth_folder, moving_bar, video_file

import framecast as fc
from framecast.data.formats import video
from framecast.data.formats.pictures import resize_frames
from framecast.data.formats.video import cached_video, decode_into_cache
from framecast.data.sets.kth import MOVING, Segment, clamp, open_kth, read_segments, split_of, windows_of
from framecast.errors import DataError, DatasetNotFoundError, MissingExtraError

SMALL = {"context": 4, "horizon": 4, "size": 8, "progress": False}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMECAST_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kth_folder(tmp_path_factory.mktemp("data") / "kth", persons=(1, 15, 17))


def segments(tmp_path: Path, text: str) -> list[Segment]:
    (tmp_path / "list.txt").write_text(text)
    return read_segments([tmp_path / "list.txt"])


# ---- lists


def test_the_public_lists_give_the_known_numbers_of_clips(shared: Path) -> None:
    def count(name: str) -> Counter[str]:
        runs = read_segments([shared / "data/kth" / name])
        return Counter(run.action for run in runs for _ in windows_of(run, 20) if run.action in MOVING)

    assert count("train_data_list_trimmed.txt") == {"running": 1196, "jogging": 853, "walking": 1676}
    assert count("train_data_list.txt").total() == 6429
    assert count("test_data_list.txt").total() == 2166
    runs = read_segments([shared / "data/kth" / name for name in ("train_data_list_trimmed.txt", "test_data_list.txt")])
    assert {run.person for run in runs if split_of(run.person, ()) == "test"} == set(range(17, 26))
    assert {run.person for run in runs if split_of(run.person, ()) == "train"} == set(range(1, 17))


@pytest.mark.parametrize(
    "line",
    [
        "person01_walking_d1\t\tframes\t1-75, 152-225",
        "person01_walking_d1 frames 1-75,152-225,",
        "  person01_walking_d1   1 - 75 ,  152-225 ,\t",
        "PERSON01_WALKING_D1: 1-75, 152-225",
        "person01_walking_d1_uncomp.avi\tframes 1-75, 152-225\r",
        "person01_walking_d1 1 75\nperson01_walking_d1 152 225\nperson01_walking_d1 152 225",
    ],
)
def test_dirty_lines(tmp_path: Path, line: str) -> None:
    text = f"Training:\tperson11, 12, 13\n\n{line}\nperson13_handclapping_d3\t*missing*\nperson02_running_d4\n"
    assert segments(tmp_path, text) == [
        Segment("person01_walking_d1", 1, 75),
        Segment("person01_walking_d1", 152, 225),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("person01_walking_d1 frames 1-75, 152", "list.txt, line 2: '1-75, 152' is not a run"),
        ("person01_walking_d1 75 1", "frames 75 to 1 run backwards"),
        ("person01_walking_d1 0-20", "start before 1"),
        ("nothing here", "no line names a run"),
    ],
)
def test_lists_that_cannot_be_read(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        segments(tmp_path, f"head\n{line}\n")


@given(st.integers(1, 50), st.integers(0, 80), st.sampled_from(MOVING), st.integers(2, 20))
def test_windows_stay_in_their_run(first: int, more: int, action: str, length: int) -> None:
    run = Segment(f"person01_{action}_d1", first, first + more)
    windows = windows_of(run, length)
    stride = 3 if action == "running" else 10
    assert len(windows) == max(0, (more + 1 - length) // stride + 1 if more + 1 >= length else 0)
    if len(windows):
        assert windows.min() == first - 1, "lists count from 1"
        assert windows.max() <= first + more - 1
        assert (np.diff(windows, axis=1) == 1).all()


def test_runs_beyond_the_last_frame_are_cut() -> None:
    runs = [Segment("a_walking_d1", 1, 50), Segment("a_walking_d1", 51, 120), Segment("a_walking_d1", 130, 140)]
    kept, cut = clamp(runs, {"a_walking_d1": 100})
    assert kept == [runs[0], Segment("a_walking_d1", 51, 100)]
    assert cut == runs[1:]


# ---- the set


def test_splits_by_person(root: Path) -> None:
    data = open_kth(root=root, **SMALL)
    # runs 1-25 and 26-45: walking every 10, running every 3
    per_person = (2 + 2) + (6 + 5)
    assert {split: len(clips) for split, clips in data.splits.items()} == {
        "train": per_person,
        "validation": per_person,
        "test": per_person,
    }
    brightness = {split: float(data[split][0]["frames"][0].min()) for split in ("train", "validation", "test")}
    assert brightness["train"] < brightness["validation"] < brightness["test"], "the maker's background is the person"
    assert (data.spec.height, data.spec.width, data.spec.interval) == (8, 8, 0.04)
    assert "valid" not in data["train"][0]


def test_no_clip_spans_two_runs_or_videos(root: Path) -> None:
    data = open_kth(root=root, **SMALL)
    for clips in data.splits.values():
        video, place = np.divmod(clips.windows, 45)
        assert (video == video[:, :1]).all()
        assert ((place < 25) == (place[:, :1] < 25)).all(), "frames 25 and 26 belong to two runs"


def test_actions(root: Path) -> None:
    assert len(open_kth(root=root, actions=["walking"], **SMALL)["train"]) == 4
    with pytest.raises(ValueError, match="Did you mean 'jogging'"):
        open_kth(root=root, actions=["joging"], **SMALL)
    with pytest.raises(DatasetNotFoundError, match="videos of boxing"):
        open_kth(root=root, actions=["boxing"], **SMALL)


def test_persons_for_validation(root: Path) -> None:
    data = open_kth(root=root, validation_persons=(1,), **SMALL)
    assert float(data["validation"][0]["frames"][0].min()) < float(data["train"][0]["frames"][0].min())
    with pytest.raises(DataError, match="must be of 1 to 16"):
        open_kth(root=root, validation_persons=(17,), **SMALL)


def test_a_run_beyond_the_end_is_cut_and_told(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mine.txt").write_text("person01_walking_d1 38 99\nperson02_walking_d1 1 20\n")
    with caplog.at_level(logging.WARNING):
        data = open_kth(root=root, segments=tmp_path / "mine.txt", **SMALL)
    assert len(data["train"]) == 1
    assert data["train"].windows.max() == 44
    assert "1 runs end beyond" in caplog.text
    assert any("1 videos that the lists name are not there" in note for note in data.notes)


def test_lists_in_the_root_are_found(root: Path, tmp_path: Path) -> None:
    video_file(tmp_path / "walking/person01_walking_d1_uncomp.avi", moving_bar(30), "mpeg4", "yuv420p")
    (tmp_path / "train_data_list.txt").write_text("person01_walking_d1 1 30\n")
    assert len(open_kth(root=tmp_path, **SMALL)["train"]) == 3
    (tmp_path / "train_data_list_trimmed.txt").write_text("person01_walking_d1 1 10\n")
    assert len(open_kth(root=tmp_path, **SMALL)["train"]) == 1, "the trimmed list takes the place of the other"
    (tmp_path / "00sequences.txt").write_text("person01_walking_d1 1-18\n")
    assert len(open_kth(root=tmp_path, **SMALL)["train"]) == 2


def test_missing_files(tmp_path: Path, root: Path) -> None:
    with pytest.raises(DatasetNotFoundError) as error:
        fc.data("kth", root=tmp_path)
    for part in ("_uncomp.avi", str(tmp_path), "csc.kth.se", "00sequences.txt", "walking/", "Nothing is downloaded"):
        assert part in str(error.value)
    video_file(tmp_path / "person01_walking_d1_uncomp.avi", moving_bar(9), "mpeg4", "yuv420p")
    with pytest.raises(DatasetNotFoundError, match=r"00sequences\.txt: not found"):
        open_kth(root=tmp_path, **SMALL)
    with pytest.raises(DatasetNotFoundError, match=r"mine.txt: not found"):
        open_kth(root=tmp_path, segments="mine.txt", **SMALL)
    with pytest.raises(DatasetNotFoundError, match="there is no list"):
        read_segments([tmp_path / "nowhere.txt"])
    with pytest.raises(DataError, match="no run is as long as a clip of 60"):
        open_kth(root=root, context=30, horizon=30, size=8, progress=False)


# ---- decoding


def test_the_real_clip(shared: Path) -> None:
    folder = shared / "data/kth"
    data = open_kth(root=folder, segments=folder / "train_data_list_trimmed.txt", progress=False)
    frames = data["train"][0]["frames"]
    assert frames.shape == (20, 1, 128, 128)
    assert 0.2 < frames.mean() < 0.9
    moved = (frames[1:] - frames[:-1]).abs().mean((1, 2, 3))
    assert (moved > 0).all(), "people walk"
    assert moved.max() < 0.1, "and do not jump"


def test_frames_are_resized_in_one_interpolation(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 120, 160), np.uint8)
    path = video_file(tmp_path / "a.avi", frames)
    exact = np.load(decode_into_cache(path, None, 1), allow_pickle=False)
    assert np.array_equal(exact[:, 0], frames), "ffv1 loses nothing, so decoding must not"
    small = np.load(decode_into_cache(path, (128, 128), 1), allow_pickle=False)
    once = np.rint(resize_frames(frames[:, None].astype(np.float32), (128, 128)))
    assert np.array_equal(small, once.astype(np.uint8))


def test_videos_are_decoded_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_kth(root=root, **SMALL).fingerprint()
    monkeypatch.setattr(video, "_decoded", None)
    assert open_kth(root=root, **SMALL).fingerprint() == first


def test_a_changed_video_is_decoded_again(tmp_path: Path) -> None:
    path = video_file(tmp_path / "a.avi", moving_bar(4))
    first = decode_into_cache(path)
    video_file(path, moving_bar(5))
    assert decode_into_cache(path) != first
    assert len(np.load(decode_into_cache(path), allow_pickle=False)) == 5
    assert decode_into_cache(path, (6, 8)) != decode_into_cache(path, (8, 6))


def test_an_interrupted_decoding_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = video_file(tmp_path / "a.avi", moving_bar(4))

    def interrupted(*_: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr("framecast.files.os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decode_into_cache(path)
    assert not list(cached_video(path, None, None).parent.iterdir())


def test_damaged_videos(tmp_path: Path) -> None:
    good = video_file(tmp_path / "good.avi", moving_bar(4)).read_bytes()
    (tmp_path / "empty.avi").write_bytes(b"")
    (tmp_path / "text.avi").write_text("no video")
    (tmp_path / "codec.avi").write_bytes(good.replace(b"FFV1", b"ZZZZ").replace(b"ffv1", b"zzzz"))
    for name in ("empty", "text", "codec"):
        with pytest.raises(DataError, match=rf"{name}\.avi cannot be decoded"):
            decode_into_cache(tmp_path / f"{name}.avi")
    assert not list((tmp_path / "cache/video").glob("*"))


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = video_file(tmp_path / "a.avi", moving_bar(4))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"reading videos needs av.*pip install 'framecast\[video\]'"):
        decode_into_cache(path)


def test_loading_with_workers(root: Path) -> None:
    clips = open_kth(root=root, **SMALL)["train"]
    alone = torch.stack([clips[i]["frames"] for i in range(len(clips))])
    loader = torch.utils.data.DataLoader(clips, batch_size=4, num_workers=2)
    assert torch.equal(torch.cat([batch["frames"] for batch in loader]), alone)
