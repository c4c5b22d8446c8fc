"""TaxiBJ: whole days, windows by time, honest and published splits, damaged files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from samples.taxibj import NAMES, dates_of, flow_file, four_files

import framecast as fc
from framecast.data.clips import ClipData
from framecast.data.sets.taxibj import open_taxibj, read_flow
from framecast.errors import DataError, DatasetNotFoundError

DAY = 86_400


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return four_files(tmp_path_factory.mktemp("data") / "taxibj", days=20)


def counts_of(data: ClipData, split: Any, index: int) -> np.ndarray[Any, Any]:
    """Return what the maker counted, of one pixel of a clip."""
    return data.spec.scaling.unscale(data[split][index]["frames"])[:, 0, 0, 0].numpy()


def test_days_that_lack_a_slot_are_dropped(tmp_path: Path) -> None:
    flow = read_flow(flow_file(tmp_path / "a.h5", dates_of("2015-11-01", 4, missing=[(1, 7), (3, 1), (3, 48)])))
    assert flow.dropped == 2
    assert len(flow.times) == 2 * 48
    assert flow.times[0] == np.datetime64("2015-11-01T00:00", "s").astype(int)
    assert flow.times[48] == np.datetime64("2015-11-03T00:00", "s").astype(int)
    assert flow.frames[48, 0, 0, 0] == 48 + 47, "the dropped day's frames must not stand in for the next day's"


def test_the_last_four_weeks_are_the_test_set(root: Path) -> None:
    data = open_taxibj(root=root)
    days = 4 * (20 - 1)  # a day of each file is dropped, and breaks its run in one day and the rest
    assert sum(len(clips.windows) for clips in data.splits.values()) < days * 48
    assert len(data["test"]) == 28 * 48 == 1344
    assert data.spec.interval == 1800
    assert (data.spec.height, data.spec.channels, data.spec.unit) == (4, 1, "vehicles per slot")


def test_no_clip_spans_a_gap_and_no_two_splits_share_a_frame(root: Path) -> None:
    data = open_taxibj(root=root)
    seen: dict[str, set[int]] = {}
    for split, clips in data.splits.items():
        for index in (0, len(clips) // 2, len(clips) - 1):
            assert (clips[index]["times"].diff() == 1800).all()
        times = clips.source.times[clips.windows]
        assert (np.diff(times, axis=1) == 1800).all()
        seen[split] = set(clips.windows.ravel().tolist())
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]
    assert max(seen["train"]) < min(seen["validation"]) < max(seen["validation"]) < min(seen["test"])


def test_scaling_is_fitted_on_the_training_part_only(root: Path) -> None:
    data = open_taxibj(root=root)
    clips = data["train"]
    largest = clips.source.frames[: int(clips.windows.max()) + 1].max()
    assert data.spec.scaling.limits == (0, largest)
    assert largest < clips.source.frames.max()
    assert counts_of(data, "test", len(data["test"]) - 1).max() > largest, "the truth beyond the range is kept"
    assert open_taxibj(root=root, as_published=True)["test"][0]["frames"].max() <= 1


def test_channels(root: Path) -> None:
    entering, leaving, both = (open_taxibj(root=root, channels=name) for name in ("in", "out", "both"))
    assert both["train"][0]["frames"].shape == (8, 2, 4, 4)
    np.testing.assert_allclose(counts_of(leaving, "train", 5), 10 * counts_of(entering, "train", 5), rtol=1e-5)
    with pytest.raises(ValueError, match="Did you mean 'both'"):
        open_taxibj(root=root, channels="bth")  # type: ignore[arg-type]


def test_as_published(root: Path) -> None:
    data = open_taxibj(root=root, as_published=True)
    honest = open_taxibj(root=root)
    clip = counts_of(data, "train", 3)
    assert (np.diff(clip) <= 0).all(), "newest first"
    assert (data["train"][3]["times"].diff() == -1800).all()
    assert len(data["test"]) == 1344
    assert len(data["validation"]) == 0
    first_test, last_train = data["test"].windows[0], data["train"].windows[-1]
    assert len(set(first_test) & set(last_train)) == 7, "the published test set shares frames with the training set"
    assert not set(honest["test"].windows[0]) & set(honest["validation"].windows[-1])
    levels = data["train"][3]["frames"] * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    frames = data["train"].source.frames
    step = data.spec.scaling.high / 255
    exact = np.arange(48)  # the first day of the first file
    lost = exact - frames[:48, 0, 0, 0]
    assert lost.min() > -1e-3
    assert 0 < lost.max() < step + 1e-3, "8 bits cut downwards by less than a step"
    assert len(open_taxibj(root=root, as_published=True, validation=0.25)["validation"]) > 0


def test_published_clips_end_one_frame_early(tmp_path: Path) -> None:
    """The released code lists t - 1 ... t - 8 for every frame t it has, so a run's last frame is never used."""
    for number, name in enumerate(NAMES):
        flow_file(tmp_path / name, dates_of(f"{2013 + number}-03-01", 3), start=144 * number)
    honest, published = (
        open_taxibj(root=tmp_path, test_days=1, as_published=flag, validation=0.0) for flag in (False, True)
    )
    ends = {name: {int(w.max()) for split in d.splits.values() for w in split.windows}
            for name, d in (("honest", honest), ("published", published))}  # fmt: skip
    assert 143 in ends["honest"]
    assert 143 not in ends["published"]
    assert len(published["train"]) + len(published["test"]) == 4 * (3 * 48 - 8)


def test_other_files_of_the_layout(tmp_path: Path) -> None:
    flow_file(tmp_path / "NYC14_M16x8_T60_NewEnd.h5", dates_of("2014-04-01", 60, slots=24), (16, 8))
    data = open_taxibj(root=tmp_path, files=["NYC14_M16x8_T60_NewEnd.h5"], channels="both", context=3, horizon=2)
    assert data["train"][0]["frames"].shape == (5, 2, 16, 8)
    assert data.spec.interval == 3600
    assert len(data["test"]) == 28 * 24


def test_negative_counts_become_none(tmp_path: Path) -> None:
    flow = read_flow(flow_file(tmp_path / "a.h5", dates_of("2015-11-01", 1), low=-5))
    assert flow.frames.min() == 0


def test_by_name_and_by_place(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMECAST_DATA", str(root.parent))
    data = fc.data("taxibj")
    assert data.name == "taxibj"
    assert any("19 whole days, 1 dropped" in note for note in data.notes)
    assert any("has md5" in note for note in data.notes), "a file that is not the published one is told"


def test_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / NAMES[0]).write_bytes(b"")
    with pytest.raises(DatasetNotFoundError) as error:
        open_taxibj(root=tmp_path)
    for part in (*NAMES[1:], str(tmp_path), "1drv.ms", "DeepST", "taxibj/", "root=FOLDER", "Nothing is downloaded"):
        assert part in str(error.value)
    monkeypatch.setenv("FRAMECAST_DATA", str(tmp_path))
    with pytest.raises(DatasetNotFoundError, match="taxibj"):
        fc.data("taxibj")


def rewrite(path: Path, **datasets: Any) -> Path:
    with h5py.File(path, "a") as file:
        for name, values in datasets.items():
            if name in file:
                del file[name]
            if values is not None:
                file[name] = values
    return path


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"date": None}, "has data and needs the datasets data and date"),
        ({"data": np.zeros((96, 3, 4, 4))}, r"must be \(N, 2, H, W\)"),
        ({"data": np.zeros((95, 2, 4, 4))}, "with 96 dates"),
        ({"data": np.full((96, 2, 4, 4), np.nan)}, "3072 counts are NaN"),
        ({"data": np.array([[[[b"x"]] * 2]] * 96)}, "must be"),
        ({"date": np.array([b"201511x101"] * 96)}, "not a date yyyymmddSS"),
        ({"date": np.array([b"2015133101"] * 96)}, "a date is none"),
        ({"date": np.array([b"2015110100"] * 96)}, "slots run from"),
        ({"date": np.array([b"2015110149"] * 96)}, "must divide a day"),
        ({"date": np.array(dates_of("2015-11-01", 2)[::-1])}, "out of order"),
        ({"date": np.array(dates_of("2015-11-01", 1) * 2)}, "out of order"),
        ({"date": np.repeat(np.array(dates_of("2015-11-01", 1)), 2)}, "doubled"),
        ({"data": np.zeros((0, 2, 4, 4)), "date": np.array([], "S10")}, "holds no frames"),
        ({"data": np.zeros((47, 2, 4, 4)), "date": np.array(dates_of("2015-11-01", 1)[1:])}, "no day has all"),
    ],
)
def test_wrong_files(tmp_path: Path, datasets: dict[str, Any], message: str) -> None:
    path = rewrite(flow_file(tmp_path / "a.h5", dates_of("2015-11-01", 2)), **datasets)
    with pytest.raises(DataError, match=message):
        read_flow(path)


def test_damaged_files(tmp_path: Path) -> None:
    path = flow_file(tmp_path / "a.h5", dates_of("2015-11-01", 2))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"\x00" + whole[1:], whole[:8] + b"\xff" * 64 + whole[72:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.h5 cannot be read as HDF5"):
            read_flow(path)


def test_too_little_or_impossible(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lower test_days"):
        open_taxibj(root=root, files=NAMES[:1])
    for options in ({"test_days": 75}, {"test_days": 70, "validation": 0.999}):
        with pytest.raises(DataError, match=r"lower test_days|no clip is left"):
            open_taxibj(root=root, **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="validation is 1"):
        open_taxibj(root=root, validation=1)
    with pytest.raises(ValueError, match="test_days is 0"):
        open_taxibj(root=root, test_days=0)
    with pytest.raises(DataError, match="out of order"):
        open_taxibj(root=root, files=NAMES[::-1])
    flow_file(tmp_path / "a.h5", dates_of("2015-11-01", 2))
    flow_file(tmp_path / "b.h5", dates_of("2016-11-01", 2), (5, 5))
    with pytest.raises(DataError, match="files of one city"):
        open_taxibj(root=tmp_path, files=["a.h5", "b.h5"])
    flow_file(tmp_path / "c.h5", dates_of("2015-11-01", 1), low=0)
    rewrite(tmp_path / "c.h5", data=np.zeros((48, 2, 4, 4)), date=np.array(dates_of("2015-11-01", 1)))
    flow_file(tmp_path / "d.h5", dates_of("2015-11-05", 2))
    with pytest.raises(DataError, match="the files hold no flow"):
        open_taxibj(root=tmp_path, files=["c.h5", "d.h5"], test_days=1, validation=0, context=2, horizon=46)
