"""The main job on radar: train, evaluate beside extrapolation, forecast from files, report."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from PIL import Image, ImageSequence
from samples.radar import knmi_file, knmi_folder, odim_file, seconds

import framecast as fc
from framecast.data.formats.knmi import read_knmi
from framecast.data.scaling import DbzPixel
from framecast.errors import DataError
from framecast.reporting.clips import time_labels
from framecast.reporting.pictures import CLASSES, DRY, NO_DATA_COLOUR, legend_picture, rain_legend, rain_picture
from framecast.reporting.results import read_examples, read_results, score_table

pytest.importorskip("pysteps", reason="pysteps needs a C compiler to install")

START, SIDE = seconds("2010-08-26T00:00"), 40
OPTIONS: dict[str, Any] = {"crop": (0, SIDE, 0, SIDE), "size": SIDE // 2, "method": "mean", "context": 2, "horizon": 2,
                           "blocks": (10, 8, 12)}  # fmt: skip


def showers(count: int) -> np.ndarray[Any, Any]:
    """Return pixels of showers that drift right, without data in the last columns and rows."""
    side = SIDE + 4
    field = np.random.default_rng(0).random((side, side + 2 * count))
    for axis in (0, 1, 0, 1, 0, 1):
        field = (np.roll(field, 1, axis) + field + np.roll(field, -1, axis)) / 3
    pixels = np.clip((field - 0.5) * 600, 0, None).round()
    frames = np.stack([pixels[:, 2 * (count - t) : 2 * (count - t) + side] for t in range(count)])
    frames[:, :, SIDE - 4 :] = 65535
    frames[:, SIDE:] = 65535
    return frames


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    patch = pytest.MonkeyPatch()
    patch.setenv("FRAMECAST_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return knmi_folder(tmp_path_factory.mktemp("data") / "knmi", showers(30), START)


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "radar"
    fc.train("ms-lstm", "knmi", out=out, model_options={"hidden": 4, "layers": 2}, steps=4, batch=2, progress=False,
             data_options={"root": str(root), **OPTIONS})  # fmt: skip
    return out


@pytest.fixture(scope="module")
def results(run: Path) -> dict[str, Any]:
    return fc.evaluate(run, progress=False, bootstrap=100)


# ---- evaluate


def test_rain_and_image_scores_of_all_forecasts(run: Path, results: dict[str, Any]) -> None:
    assert list(results["forecasts"]) == ["ms-lstm", "persistence", "mean frame", "blank frame", "extrapolation"]
    assert read_results(run) == results
    for found in results["forecasts"].values():
        assert (
            {"csi_0.5", "hss_2", "bias_5", "fss_2_11", "mse", "ssim"}
            <= found["mean"].keys()
            <= results["scores"].keys()
        )
        assert len(found["per_lead"]["csi_2"]) == 2
    assert results["forecasts"]["extrapolation"]["fallbacks"] == 0
    better, worse = (results["forecasts"][name]["mean"]["csi_2"] for name in ("extrapolation", "persistence"))
    assert better > worse + 0.1
    # All clips lie within one stretch of time as long as a clip or two.
    assert results["blocks"] < 3
    assert results["bootstrap"] == 0
    assert not results["forecasts"]["persistence"]["interval"]["mean"]
    assert any("There are no intervals" in note for note in results["notes"])
    # The mask: 20 x 20 pixels without the last two columns, and without what would come from outside the map.
    cells = [sum(results["forecasts"]["persistence"]["counts"][f"{cell}_2"])
             for cell in ("hits", "false_alarms", "misses", "correct_negatives")]  # fmt: skip
    assert 0 < results["unknown_share"] < 0.3
    assert sum(cells) == round(results["clips"] * 2 * 20 * 18 * (1 - results["unknown_share"]))


def test_undefined_scores_are_shown_as_such(results: dict[str, Any], run: Path) -> None:
    assert results["forecasts"]["blank frame"]["mean"]["far_2"] is None
    assert re.search(r"CSI ≥ 0.5 mm/h .*HSS ≥ 5 mm/h", score_table(results))
    emptied = json.loads(json.dumps(results))
    emptied["forecasts"]["persistence"]["mean"]["csi_5"] = None
    assert re.search(r"persistence .* –", score_table(emptied))
    lines = (run / "results.csv").read_text().splitlines()
    header, blank = lines[0].split(","), next(line for line in lines if line.startswith("blank frame")).split(",")
    assert blank[header.index("far_2")] == ""


def test_chosen_scores_and_baselines(run: Path, tmp_path: Path) -> None:
    found = fc.evaluate(run, out=tmp_path, scores=["rain"], score_options={"thresholds": [1], "scales": []},
                        baselines=["persistence"], bootstrap=0, progress=False)  # fmt: skip
    assert list(found["scores"]) == ["csi_1", "hss_1", "pod_1", "far_1", "bias_1"]
    assert list(found["forecasts"]) == ["ms-lstm", "persistence"]
    assert found["forecasts"]["persistence"]["interval"] == {"mean": {}, "per_lead": {}}
    assert fc.report(tmp_path, out=tmp_path / "page.html", figures=False).stat().st_size > 10_000


def test_the_published_convention_for_rain(run: Path, tmp_path: Path) -> None:
    found = fc.evaluate(run, out=tmp_path, protocol="as-published", bootstrap=0, progress=False)
    published = found["as_published"]["ms-lstm"]
    each = published["per_lead"]["csi_0.5"]
    assert len(each) == 3
    assert published["mean"]["csi_0.5"] == pytest.approx(sum(each) / 3)
    assert all(value is not None for value in published["mean"].values())


def test_examples_are_physical(run: Path, results: dict[str, Any]) -> None:
    del results
    with np.load(run / "examples.npz", allow_pickle=False) as file:
        stored = {name: file[name] for name in file.files}
    assert {"past", "truth", "valid", "times", "ms-lstm", "extrapolation"} <= stored.keys()
    assert stored["times"][0].tolist() == [START + 300 * (18 + 2 * step) for step in range(4)]
    shown = read_examples(run)
    assert np.isnan(shown["truth"][..., -2:]).all()
    assert 1 < np.nanmax(shown["truth"]) < 338


# ---- predict


def test_two_hours_from_a_folder_of_files(run: Path, root: Path, tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        forecast = fc.predict(run, root, horizon=12, out=tmp_path)
    assert forecast.shape == (1, 12, 1, 20, 20)
    assert re.search(r"knmi: 10.0% of the past holds no data", caplog.text)
    assert np.isnan(forecast[..., -2:]).all()
    assert np.isfinite(forecast[..., :-2]).all()
    assert (forecast[..., :-2] >= 0).all()
    np.testing.assert_array_equal(np.load(tmp_path / "forecast.npy", allow_pickle=False), forecast)
    # The same by hand: the last two frames at 10 minutes, cut and averaged as in training.
    files = sorted(root.iterdir())
    past = np.stack([read_knmi(files[number]).values[:, :SIDE, :SIDE] for number in (-3, -1)])
    blocks = past.reshape(2, 1, 20, 2, 20, 2).mean((3, 5))
    np.testing.assert_allclose(fc.predict(run, blocks, horizon=12), forecast, rtol=1e-4, atol=1e-4)
    with xarray.open_dataset(tmp_path / "forecast.nc", engine="h5netcdf") as saved:
        assert saved.rainfall_rate.attrs["units"] == "mm h-1"
        np.testing.assert_array_equal(saved.rainfall_rate, forecast[0, :, 0])
        expected = START + 300 * 29 + 600 * np.arange(1, 13)
        np.testing.assert_array_equal(saved.time.values.astype("datetime64[s]").astype(int), expected)
    with Image.open(tmp_path / "forecast.gif") as picture:
        assert sum(frame.info["duration"] for frame in ImageSequence.Iterator(picture)) == 14 * 500


def test_folders_that_cannot_be_forecast_from(run: Path, root: Path, tmp_path: Path) -> None:
    gap = tmp_path / "gap"
    shutil.copytree(root, gap)
    sorted(gap.iterdir())[-3].unlink()
    with pytest.raises(DataError, match=r"needs 2 frames at steps of 10 minutes.*02:15:00 is missing"):
        fc.predict(run, gap)
    small = knmi_folder(tmp_path / "small", np.zeros((4, 44, 44)), START)
    assert fc.predict(run, small).shape == (1, 2, 1, 20, 20)
    tiny = knmi_folder(tmp_path / "tiny", np.zeros((4, 30, 30)), START)
    with pytest.raises(DataError, match="lies outside of 30x30"):
        fc.predict(run, tiny)
    nothing = knmi_folder(tmp_path / "nothing", np.full((4, 44, 44), 65535), START)
    with pytest.raises(DataError, match="800 values that are NaN"):
        fc.predict(run, nothing)


def test_other_formats_and_strong_rain(run: Path, tmp_path: Path) -> None:
    for number in range(2):
        odim_file(tmp_path / f"{number}.hdf5", np.full((20, 20), 4500, np.uint16), quantity="RATE",
                  end=f"20160601 00{10 * number:02}")  # fmt: skip
    with pytest.raises(DataError, match="is RATE and the model was trained on KNMI 300 s"):
        fc.predict(run, tmp_path)
    # 900 mm/h is beyond the scale of 338 and taken as that.
    assert np.isfinite(fc.predict(run, np.full((2, 20, 20), 900.0))).all()
    with pytest.raises(DataError, match=r"lies in \[-1, -1\]"):
        fc.predict(run, np.full((2, 20, 20), -1.0))


# ---- report


def test_the_page_of_a_radar_run(run: Path, results: dict[str, Any], tmp_path: Path) -> None:
    page = fc.report(run, out=tmp_path / "page.html", figures=False).read_text()
    for text in ("CSI ≥ 2 mm/h", "Rain rate in mm/h", "no data", "2010-08-26", "01:30", "extrapolation", "–"):
        assert text in page, text
    drawn = sum(info["main"] or info["curve"] for info in results["scores"].values())
    assert page.count("<svg") == drawn + 2, "a curve of each main score and of FSS, and two of the training"
    assert 'aria-label="FSS ≥ 2, 11 px"' in page
    assert f"{results['forecasts']['ms-lstm']['mean']['csi_0.5']:.4g}" in page
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)


def test_fallbacks_are_told(results: dict[str, Any], tmp_path: Path) -> None:
    results = json.loads(json.dumps(results))
    results["forecasts"]["extrapolation"]["fallbacks"] = 3
    for info in results["scores"].values():
        info["main"] = False  # no curves
    (tmp_path / "results.json").write_text(json.dumps(results))
    page = fc.report(tmp_path, out=tmp_path / "page.html", figures=False).read_text()
    assert f"extrapolation: 3 of {results['clips']} clips had no motion to follow" in page


def test_the_colour_scale_by_hand() -> None:
    rates = np.array([[[np.nan, 0, 0.09, 0.1, 4.9, 5, 1000]]])
    colours = ["#{:02x}{:02x}{:02x}".format(*pixel) for pixel in rain_picture(rates)[0].tolist()]
    by_edge = dict(CLASSES)
    assert colours == [NO_DATA_COLOUR, DRY, DRY, by_edge[0.1], by_edge[2], by_edge[5], by_edge[100]]
    legend = rain_legend()
    assert legend[:3] == [(NO_DATA_COLOUR, "no data"), (DRY, "< 0.1"), (by_edge[0.1], "0.1–0.5")]
    assert legend[-1] == (by_edge[100], "≥ 100")
    assert legend_picture(300).shape[1:] == (300, 3)
    assert time_labels(np.array([START + 600])) == ["2010-08-26 00:10 UTC"]


def test_a_dry_radar_run_has_a_report(tmp_path: Path) -> None:
    root = knmi_folder(tmp_path / "knmi", np.zeros((30, 16, 16)), START)
    for number in range(3):
        knmi_file(root, np.full((16, 16), 40), START + 300 * number)
    out = tmp_path / "run"
    fc.train("convlstm", "knmi", out=out, model_options={"hidden": 2, "layers": 2}, steps=1, batch=2, progress=False,
             data_options={"root": str(root), "context": 2, "horizon": 2, "blocks": (10, 8, 12)})  # fmt: skip
    results = fc.evaluate(out, progress=False, bootstrap=20)
    assert results["forecasts"]["extrapolation"]["fallbacks"] == results["clips"]
    assert results["forecasts"]["persistence"]["mean"]["csi_2"] is None
    assert "NaN" not in (out / "results.json").read_text()
    assert "–" in fc.report(out, out=tmp_path / "page.html", figures=False).read_text()
    assert DbzPixel().limits[1] > 300
