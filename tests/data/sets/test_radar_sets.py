"""The radar data sets: splits, windows by time, caches, and folders that are not what they should be."""

from __future__ import annotations

import bz2
import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from samples.radar import knmi_file, knmi_folder, odim_file, radolan_bytes, rydl_file, seconds
from torch.utils.data import DataLoader

import framecast as fc
from framecast.data.cache import cache_folder
from framecast.data.clips import SPLITS, spec_from_dict
from framecast.data.convert import convert
from framecast.data.formats.knmi import read_knmi
from framecast.data.scaling import Log
from framecast.data.sets.german_radar import RydlSource
from framecast.data.sets.knmi_sample import SAMPLE, PackedComposites
from framecast.errors import DataError, DatasetNotFoundError

START = seconds("2010-08-26T00:00")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMECAST_CACHE", str(tmp_path / "cache"))


def numbered(count: int, side: int = 4) -> np.ndarray[Any, Any]:
    """Return maps of pixels, each filled with its own number plus one."""
    return np.arange(1, count + 1)[:, None, None] * np.ones((1, side, side), np.int64)


def amounts(data: fc.api.ClipData, split: Any, index: int) -> list[float]:
    """Return the rate of one pixel of each frame of a clip."""
    rates = data.spec.scaling.unscale(data[split][index]["frames"])
    return rates[:, 0, 0, 0].round(decimals=3).tolist()


# ---- knmi


def test_blocks_and_intervals(tmp_path: Path) -> None:
    root = knmi_folder(tmp_path / "knmi", numbered(60), START)
    data = fc.data("knmi", root=root)
    assert {split: len(data[split]) for split in SPLITS} == {"train": 10, "validation": 1, "test": 7}
    # Pixel n is 0.01 n mm in 5 minutes, so 0.12 n mm/h; every other frame at 10 minutes.
    assert amounts(data, "train", 1) == pytest.approx([0.12 * n for n in range(2, 18, 2)], abs=2e-3)
    assert amounts(data, "validation", 0) == pytest.approx([0.12 * n for n in range(25, 40, 2)], abs=2e-3)
    assert amounts(data, "test", 6)[-1] == pytest.approx(0.12 * 60, abs=2e-3)
    clip = data["test"][0]
    assert clip["times"].tolist() == [START + 300 * (39 + 2 * step) for step in range(8)]
    assert clip["valid"].all()
    assert (data.spec.unit, data.spec.interval) == ("mm/h", 600)
    assert spec_from_dict(data.spec.to_dict()) == data.spec
    counted = fc.data("knmi", root=root, blocks=(24, 15, 21), every=10)
    assert {split: len(counted[split]) for split in SPLITS} == {"train": 5, "validation": 1, "test": 4}
    assert fc.data("knmi", root=root, scaling="log").spec.scaling == Log()


def test_no_clip_spans_a_gap(tmp_path: Path) -> None:
    root = knmi_folder(tmp_path / "knmi", numbered(20), START)
    for missing in (4, 13):
        (root / f"RAD_NL25_RAP_5min_{np.datetime64(START + 300 * missing, 's').item():%Y%m%d%H%M}.h5").unlink()
    data = fc.data("knmi", root=root, interval=5, context=2, horizon=2, blocks=(1, 0, 0))
    starts = [int(data["train"][i]["times"][0] - START) // 300 for i in range(len(data["train"]))]
    assert starts == [0, *range(5, 10), *range(14, 17)]
    assert not len(data["test"])


def test_nodata_is_masked_or_dry(tmp_path: Path) -> None:
    frames = numbered(8)
    frames[:, :, 2:] = 65535
    root = knmi_folder(tmp_path / "knmi", frames, START)
    options: dict[str, Any] = {"interval": 5, "context": 2, "horizon": 1, "blocks": (1, 0, 0), "root": root}
    clip = fc.data("knmi", **options)["train"][0]
    assert clip["valid"][..., :2].all()
    assert not clip["valid"][..., 2:].any()
    assert (clip["frames"][..., 2:] == 0).all()
    dry = fc.data("knmi", nodata="dry", **options)["train"][0]
    assert dry["valid"].all()
    assert torch.equal(dry["frames"], clip["frames"])


def test_folders_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetNotFoundError, match=r"(?s)KNMI radar files: not found in .*dataplatform\.knmi\.nl.*RAD_NL25"
    ):
        fc.data("knmi", root=tmp_path)
    double = knmi_folder(tmp_path / "double", numbered(8), START)
    knmi_file(double / "copy", numbered(1)[0], START)
    with pytest.raises(DataError, match=r"1 time stamps are doubled, first in RAD_NL25\S+ and RAD_NL25"):
        fc.data("knmi", root=double, interval=5, context=2, horizon=2)
    mixed = knmi_folder(tmp_path / "mixed", numbered(8), START)
    knmi_file(mixed, numbered(1, side=6)[0], START + 5 * 300)
    data = fc.data("knmi", root=mixed, interval=5, context=2, horizon=2, blocks=(1, 0, 0))
    with pytest.raises(DataError, match=r"is \(1, 6, 6\) in mm/h and RAD_NL25\S+ is \(1, 4, 4\).*one size"):
        data["train"][2]
    broken = knmi_folder(tmp_path / "broken", numbered(8), START)
    data = fc.data("knmi", root=broken, interval=5, context=2, horizon=2, blocks=(1, 0, 0))
    path = sorted(broken.iterdir())[5]
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=path.name):
        data["train"][3]
    moved = knmi_folder(tmp_path / "moved", numbered(8), START)
    data = fc.data("knmi", root=moved, interval=5, context=2, horizon=2, blocks=(1, 0, 0))
    knmi_file(tmp_path / "other", numbered(1)[0], START).replace(sorted(moved.iterdir())[5])
    with pytest.raises(DataError, match="changed in place"):
        data["train"][3]


def test_all_damaged_files_of_a_folder_are_named(tmp_path: Path) -> None:
    files = sorted(knmi_folder(tmp_path / "knmi", numbered(8), START).iterdir())
    files[2].write_bytes(files[2].read_bytes()[:500])
    files[5].write_bytes(b"")
    with pytest.raises(DataError, match=rf"{files[2].name}.*nor can {files[5].name}.*2 of 8 files"):
        fc.data(tmp_path / "knmi", context=1, horizon=1)


def test_one_radar_frame_is_no_sequence(tmp_path: Path) -> None:
    file = next(knmi_folder(tmp_path, numbered(1), START).iterdir())
    with pytest.raises(DataError, match="one radar frame: give its folder"):
        fc.data(file, context=1, horizon=1)


def test_workers_open_an_archive_for_themselves(tmp_path: Path) -> None:
    maps = {f"20160601{number // 12:02}{number % 12 * 5:02}": np.full((8, 8), number / 100) for number in range(24)}
    path = rydl_file(tmp_path / "RYDL.hdf5", maps)
    data = fc.data("german-radar", root=path, size=None, interval=5, every=5, train_years=(2016, 2016),
                   validation_years=(2015, 2015), test_years=(2017, 2017))  # fmt: skip
    clips = data["train"]
    first = clips[0]["frames"]  # opened here, before the workers are forked
    alone = [first, *(clips[i]["frames"] for i in range(1, len(clips)))]
    again = fc.data("german-radar", **data.options)["train"]
    again[0]
    for source in (clips, again):
        loader = torch.utils.data.DataLoader(source, batch_size=None, num_workers=2)
        assert all(torch.equal(batch["frames"], frames) for batch, frames in zip(loader, alone, strict=True))


def test_workers_read_for_themselves(tmp_path: Path) -> None:
    root = knmi_folder(tmp_path / "knmi", numbered(20), START)
    clips = fc.data("knmi", root=root, interval=5, blocks=(1, 0, 0))["train"]
    alone = [clips[i]["frames"] for i in range(len(clips))]
    for method in ("fork", "spawn"):
        loader = DataLoader(clips, batch_size=None, num_workers=1, multiprocessing_context=method)
        assert all(torch.equal(one["frames"], other) for one, other in zip(loader, alone, strict=True))


def test_a_converted_archive_gives_the_same_clips(tmp_path: Path) -> None:
    frames = numbered(20)
    frames[:, 3] = 65535
    root = knmi_folder(tmp_path / "knmi", frames, START)
    convert(root, tmp_path / "knmi.zarr", workers=1, progress=False)
    options: dict[str, Any] = {"interval": 5, "blocks": (1, 0, 0), "size": 2}
    ours, theirs = (fc.data("knmi", root=place, **options)["train"] for place in (root, tmp_path / "knmi.zarr"))
    assert len(ours) == len(theirs) == 13
    for name, tensor in ours[3].items():
        torch.testing.assert_close(theirs[3][name], tensor, rtol=0, atol=1e-6)
    german = fc.data("german-radar", root=tmp_path / "knmi.zarr", size=None, interval=5, every=5)
    assert len(german["train"]) == 13
    empty = tmp_path / "other.zarr"
    convert(np_file(tmp_path / "frames.npy"), empty, workers=1, progress=False)
    with pytest.raises(DataError, match="no rain rates in mm/h with times"):
        fc.data("knmi", root=empty)


def np_file(path: Path) -> Path:
    np.save(path, np.zeros((6, 4, 4), np.float32))
    return path


def test_the_cache_of_frames_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = knmi_folder(tmp_path / "knmi", numbered(20), START)
    clips: Any = fc.data("knmi", root=root, interval=5, blocks=(1, 0, 0))["train"]
    clips.source.limit = 10 * 4 * 16
    for number in (0, 5, 12, 0):
        before = clips[number]["frames"].clone()
        assert len(clips.source.frames) <= 10
        assert torch.equal(clips[number]["frames"], before)
    reads: list[int] = []
    read = clips.source.source.read
    monkeypatch.setattr(clips.source.source, "read", lambda numbers: (reads.append(len(numbers)), read(numbers))[1])
    clips[0]
    assert not reads


# ---- german radar


def german_times(*days: str) -> list[str]:
    """Return the 5-minute times of the first four hours of days."""
    hours = [f"{hour:02}{minute:02}" for hour in range(4) for minute in range(0, 60, 5)]
    return [day + hour for day in days for hour in hours]


@pytest.fixture
def rydl(tmp_path: Path) -> Path:
    keys = german_times("20060102", "20121231", "20130101", "20150101", "20180101")
    maps = {key: np.full((20, 20), 0.01 * (1 + number % 48)) for number, key in enumerate(keys)}
    del maps["201501010030"]
    return rydl_file(tmp_path / "RYDL.hdf5", maps)


def test_years_and_half_hours(rydl: Path) -> None:
    data = fc.data("german-radar", root=rydl, size=4)
    assert data.spec.height == data.spec.width == 4
    # Four hours hold one clip of eight half hours, from 00:00 on; without 00:30 it is that from 00:05 on.
    assert {split: len(data[split]) for split in SPLITS} == {"train": 2, "validation": 1, "test": 1}
    years = {split: {str(np.datetime64(int(s), "s"))[:4] for i in range(len(data[split]))
                     for s in data[split][i]["times"]} for split in SPLITS}  # fmt: skip
    assert years == {"train": {"2006", "2013"}, "validation": {"2012"}, "test": {"2015"}}
    assert str(np.datetime64(int(data["test"][0]["times"][0]), "s")) == "2015-01-01T00:05:00"
    assert amounts(data, "train", 0) == pytest.approx([0.12 * (1 + 6 * step) for step in range(8)], rel=1e-3)
    shorter = fc.data("german-radar", root=rydl.parent, size=4, context=2, horizon=2, every=5)
    starts = [str(np.datetime64(int(shorter["test"][i]["times"][0]), "s"))[11:16] for i in range(len(shorter["test"]))]
    assert starts[:8] == ["00:05", "00:10", "00:15", "00:20", "00:25", "00:35", "00:40", "00:45"]
    assert "00:00" not in starts


def test_folders_of_radolan_and_odim(tmp_path: Path) -> None:
    folder = tmp_path / "radolan" / "2006" / "01"
    folder.mkdir(parents=True)
    for number in range(8):
        hour, minute = divmod(50 + 30 * number, 60)
        raw = np.full((10, 10), 100 * (number + 1))
        raw[0] = 0x2000 | 2500
        content = radolan_bytes(raw, stamp=f"02{hour:02}{minute:02}", month="0106")
        name = f"raa01-ry_10000-060102{hour:02}{minute:02}-dwd---bin"
        (folder / (name + ".bz2" if number % 2 else name)).write_bytes(bz2.compress(content) if number % 2 else content)
    data = fc.data("german-radar", root=tmp_path / "radolan", size=5, validation_years=(2007, 2007))
    assert amounts(data, "train", 0) == pytest.approx([12 * (n + 1) for n in range(8)], rel=1e-3)
    valid = data["train"][0]["valid"]
    assert not valid[:, 0, -1].any()  # the file's first row is the southernmost
    assert valid[:, 0, :-1].all()
    (tmp_path / "odim").mkdir()
    for number in range(8):
        stamp = f"20160601 {number:02}00"
        odim_file(tmp_path / f"odim/{number}.hdf5", np.full((4, 4), 5, np.uint16), start="20160531 2300" if not number
                  else f"20160601 {number - 1:02}00", end=stamp)  # fmt: skip
    hourly = fc.data("german-radar", root=tmp_path / "odim", size=None, interval=60, every=60)
    assert len(hourly["test"]) == 1
    assert amounts(hourly, "test", 0) == pytest.approx([0.5] * 8, rel=1e-3)


def test_german_errors(rydl: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"(?s)German radar files: not found in .*zenodo.*YW2017.002"):
        fc.data("german-radar", root=tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"test_years \(2014, 2017\) and train_years \(2006, 2014\) overlap"):
        fc.data("german-radar", root=rydl, size=4, test_years=(2014, 2017))
    with pytest.raises(DataError, match=r"a first and a last one and got \[2017, 2015\]"):
        fc.data("german-radar", root=rydl, size=4, test_years=(2017, 2015))
    with pytest.raises(DataError, match="not a whole fraction of 20x20"):
        fc.data("german-radar", root=rydl)


# ---- indexes


def test_an_index_of_200_000_times_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "RYDL.hdf5"
    times = np.datetime64("2006-01-01T00:00", "m") + 5 * np.arange(200_000)
    keys = np.char.replace(np.char.replace(np.char.replace(times.astype(str), "-", ""), "T", ""), ":", "")
    with h5py.File(path, "w", libver="latest") as file:
        file["200601010000"] = np.ones((8, 8), np.float32)
        # Further names of one map: an archive of that many keys in a second of writing.
        for key in keys[1:]:
            file.id.links.create_hard(key.encode(), file.id, b"200601010000")
    first = RydlSource(path)
    assert first.count == 200_000
    monkeypatch.setattr(RydlSource, "_list", None)  # benchmarks/archive.py takes the time
    second = RydlSource(path)
    assert np.array_equal(first.times, second.times)
    assert second.read(np.array([199_999])).max() == 12


def test_an_index_follows_its_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    path = rydl_file(tmp_path / "RYDL.hdf5", {"201606010000": [[0]]})
    assert RydlSource(path).count == 1
    rydl_file(path, {"201606010000": [[0]], "201606010005": [[0]]})
    assert RydlSource(path).count == 2
    for kept in cache_folder().iterdir():
        kept.write_bytes(b"damaged")
    assert RydlSource(path).count == 2
    monkeypatch.setenv("FRAMECAST_CACHE", "/proc/nowhere")
    with caplog.at_level(logging.WARNING):
        assert RydlSource(path).count == 2
    assert "not kept" in caplog.text


# ---- knmi-sample


def test_the_sample_is_small_real_rain_with_its_licence() -> None:
    assert SAMPLE.stat().st_size <= 1_500_000
    assert "CC BY 4.0" in (SAMPLE.parent / "README.md").read_text()
    data = fc.data("knmi-sample")
    assert [len(data[split]) for split in SPLITS] == [9, 1, 5]
    assert (data.spec.unit, data.spec.interval, data.spec.horizon) == ("mm/h", 300, 12)
    assert data.spec.georeference is not None
    whole = PackedComposites(SAMPLE)
    assert whole.count == 60
    assert set(np.diff(whole.times)) == {300}
    assert np.datetime64(int(whole.times[0]), "s") == np.datetime64("2010-08-26T00:00:00")
    rates = whole.read(np.array([0, 59]))
    assert np.nanmax(rates, (1, 2, 3)).tolist() == pytest.approx([8.64, 10.68])
    assert np.isnan(rates).mean() == pytest.approx(0.74374, abs=1e-5)  # no radar sees the borders of the map


def test_the_sample_is_knmis_files_bit_for_bit(shared: Path) -> None:
    whole, files = PackedComposites(SAMPLE), shared / "data/knmi"
    for number, path in enumerate(sorted(files.glob("*.h5"))):
        frame = read_knmi(path)
        assert np.array_equal(whole.read(np.array([number]))[0], frame.values, equal_nan=True)
        assert whole.times[number] == frame.header.time
        assert (whole.product, whole.georeference) == (frame.header.product, frame.header.georeference)
    options: dict[str, Any] = {"size": 80, "crop": [185, 585, 160, 560], "method": "mean", "interval": 5, "horizon": 12}
    ours, theirs = fc.data("knmi-sample"), fc.data("knmi", root=files, blocks=[24, 16, 20], **options)
    for split in SPLITS:
        for one, other in zip(ours[split], theirs[split], strict=True):
            assert all(torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key])) for key in one)
