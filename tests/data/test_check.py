"""The check: what hurts a training is found before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from samples.own import pixels, rain_dataset
from samples.taxibj import four_files

from framecast.data.check import DataReport, check

SHORT = {"context": 2, "horizon": 2}


def smooth(count: int = 40, shape: tuple[int, ...] = (16, 18)) -> Any:
    return np.random.default_rng(0).random((count, *shape)).astype(np.float32)


def checked(path: Path, array: Any, **options: Any) -> DataReport:
    np.save(path / "a.npy", array)
    return check(path / "a.npy", **{**SHORT, **options})


def found(report: DataReport, level: str, text: str) -> bool:
    return any(finding.level == level and text in finding.text for finding in report.findings)


def test_good_data_has_no_errors_or_warnings(tmp_path: Path) -> None:
    report = checked(tmp_path, pixels(40, 16, 18))
    assert report.ok
    assert {finding.level for finding in report.findings} == {"note"}
    assert "train 25, validation 1, test 5" in report.text()
    assert "0 errors, 0 warnings" in report.text()


@pytest.mark.parametrize(
    ("array", "options", "level", "text"),
    [
        (smooth() * 255, {}, "warning", "look like 0-255 pixels"),
        (smooth() * 255, {"scaling": {"kind": "min-max"}}, "error", "everything above 1 is cut"),
        (smooth() * 255, {"scaling": "none"}, "error", "scaling 'none' takes [0, 1]"),
        ((smooth() > 0.5).astype(np.uint8), {}, "warning", "reach 1 of 255: are they 0 and 1"),
        (np.where(smooth() > 0.3, smooth(), np.nan), {}, "note", "% of the train values are no data"),
        (np.where(smooth() > 0.7, smooth(), np.nan), {}, "warning", "% of the train values are no data"),
        (np.zeros((40, 16, 18)), {}, "error", "100% of the train frames seen have one value only"),
        (smooth() * (np.arange(40) % 4 == 0)[:, None, None], {}, "warning", "frames seen have one value only"),
        (smooth() * (np.arange(40) % 4 > 0)[:, None, None], {}, "note", "frames seen have one value only"),
        (smooth().repeat(2, 0)[:40], {}, "warning", "repeat the one before"),
        (np.where(np.arange(40)[:, None, None] == 3, np.nan, smooth()), {}, "warning", "have no data at all"),
        (np.where(smooth() > 0.99, np.inf, smooth()), {}, "warning", "values are infinite"),
        (smooth() * 9 - 4, {"scaling": {"kind": "min-max", "low": -1, "high": 1}}, "error", "which the scaling cuts"),
        (np.linspace(0, 30, 40)[:, None, None] + smooth(), {}, "error", "of the test values lie outside [0"),
        (smooth(400, (4, 18)), {}, "warning", "is one of these the axis of channels"),
        (smooth(400, (4, 18)), {}, "warning", "more frames than pixels in each"),
        (smooth(16), {}, "warning", "time as the last axis"),
        (smooth(40, (12, 16, 18)), {"axes": "TCHW"}, "warning", "12 channels: is this axis time"),
        (smooth(10), {}, "warning", "the validation split has no clip"),
        (smooth(3), {}, "error", "no clip of 4 frames fits"),
        (np.array([["a"]]), {}, "error", "frames are numbers"),
    ],
)
def test_what_hurts_is_found(tmp_path: Path, array: Any, options: Any, level: str, text: str) -> None:
    report = checked(tmp_path, array, **options)
    assert found(report, level, text), report.text()
    assert report.ok == (level != "error") or found(report, "error", "")


def test_what_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"nonsense")
    for name, text in {"a.h5": "cannot be read as HDF5", "nowhere": "no file or folder"}.items():
        report = check(tmp_path / name)
        assert not report.ok
        assert found(report, "error", text)
    assert "1 error, 0 warnings" in report.text()


def timed(path: Path, times: Any) -> Path:
    with h5py.File(path, "w") as file:
        file["rain"] = smooth(len(times))
        file["time"] = times
    return path


def test_gaps_and_jitter_are_found(tmp_path: Path) -> None:
    times = np.delete(np.arange(80) * 300, np.arange(5, 75, 6))
    report = check(timed(tmp_path / "gaps.h5", times), context=3, horizon=2)
    assert found(report, "note", "gaps in time, the longest 600 s")
    report = check(timed(tmp_path / "gaps.h5", times), context=2, horizon=2, shares=(1, 0, 0))
    assert found(report, "warning", "of the steps in time are 300 s (12 longer, up to 600 s")
    often = [np.arange(size) * 300 + start * 6000 for start, size in enumerate((4, 4, 9, 4, 4, 9))]
    report = check(timed(tmp_path / "often.h5", np.concatenate(often)), context=4, horizon=1, shares=(1, 0, 0))
    assert found(report, "warning", "of the train frames are in no clip, for gaps in time"), report.text()


def test_short_sequences_are_found(tmp_path: Path) -> None:
    for number, count in enumerate((20, 3, 20)):
        np.save(tmp_path / f"{number}.npy", pixels(count))
    report = check(tmp_path, shares=(1, 0, 0), **SHORT)
    assert found(report, "warning", "1 of 3 sequences are shorter than a clip of 4 frames")


def test_damaged_frames_are_found(tmp_path: Path) -> None:
    frames = pixels()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("frames", data=frames, chunks=(1, 6, 8), fletcher32=True)
    content = bytearray((tmp_path / "a.h5").read_bytes())
    content[content.find(frames[5].tobytes())] ^= 1
    (tmp_path / "a.h5").write_bytes(content)
    report = check(tmp_path / "a.h5", **SHORT)
    assert found(report, "error", "4 of 25 train clips cannot be read")


def test_named_sets_and_rain(tmp_path: Path) -> None:
    assert check("moving-mnist", size=16, clips=60, frames=50).ok
    report = check("taxibj", root=four_files(tmp_path, days=20))
    assert "train" in report.facts
    assert found(report, "note", "fitted to: they reach")
    assert not any("axes" in finding.text for finding in report.findings)
    rain_dataset().to_zarr(tmp_path / "rain.zarr", consolidated=False)
    report = check(tmp_path / "rain.zarr", **SHORT)
    assert report.ok, report.text()
    assert found(report, "note", "scaling dbz-pixel")
    with pytest.raises(ValueError, match="frames is 0"):
        check("moving-mnist", frames=0)
