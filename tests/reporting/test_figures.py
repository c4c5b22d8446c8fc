"""Figures of a report: radar chart, curves of any score, forecasts of many models on one clip."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import framecast as fc
from framecast import cli
from framecast.errors import DataError
from framecast.reporting.clips import shown_frames
from framecast.reporting.figures import (
    COLOURS,
    LEGEND_CHARACTERS,
    Drawing,
    draw_curves,
    draw_grid,
    draw_radar,
    legend_columns,
    minute_step,
    radar_axes,
    shades,
)
from framecast.reporting.page import clear_best, period_text
from framecast.reporting.pictures import BORDER, LINE, animation, enlarge, to_picture
from framecast.reporting.results import read_results

DATA: dict[str, Any] = {"size": 16, "context": 3, "horizon": 2, "clips": 60}
SHAPE = (5, 1, 16, 16)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, found = tmp_path_factory.mktemp("runs"), []
    for name in ("convlstm", "sms-lstm"):
        found.append(folder / name)
        fc.train(name, "moving-mnist", out=found[-1], model_options={"hidden": 4, "layers": 2}, data_options=DATA,
                 steps=2, progress=False)  # fmt: skip
        fc.evaluate(found[-1], limit=6, bootstrap=10, examples=1, progress=False)
    return found


def results(run: Path) -> dict[str, Any]:
    return read_results(run)


def test_evaluate_writes_what_a_model_costs(runs: list[Path]) -> None:
    found = results(runs[1])
    counted = fc.cost("sms-lstm", SHAPE, 3, hidden=4, layers=2)
    assert {name: found[name] for name in ("parameters", "macs", "saved_bytes", "peak_bytes")} | {"batch": 1} == (
        counted.to_dict()
    )
    row = fc.analyse_complexity(["sms-lstm"], shape=SHAPE, context=3, model_options={"hidden": 4, "layers": 2})[0]
    assert (row["saved_bytes"], row["peak_bytes"]) == (counted.saved_bytes, counted.peak_bytes)


def test_the_figures_stand_beside_the_page_and_in_it(runs: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "again"
    shutil.copytree(runs[1], copy)
    found = results(copy) | {"run": "again"}
    (copy / "results.json").write_text(json.dumps(found))
    page = fc.report([*runs, copy], out=tmp_path / "page.html").read_text()
    files = {path.name for path in (tmp_path / "page-figures").iterdir()}
    stems = ["cost-and-score", "mse", "ssim", "training-loss", "forecasts-of-clip-0"]
    assert {f"{stem}.{kind}" for stem in stems for kind in ("svg", "png")} <= files
    assert 'aria-label="Cost and score"' in page
    assert "|sms-lstm (again) − truth|" in page
    # Of two, each with an axis of its own on which it is the worse, a radar chart says less than the table.
    assert 'aria-label="Cost and score"' not in fc.report(runs, out=tmp_path / "two.html", figures=False).read_text()
    for stem in stems:
        assert (tmp_path / "page-figures" / f"{stem}.svg").read_text().startswith("<svg")
        Image.open(tmp_path / "page-figures" / f"{stem}.png").verify()
    comparison = (tmp_path / "page-figures" / "forecasts-of-clip-0.svg").read_text()
    for label in ("truth", "convlstm", "|convlstm − truth|", "sms-lstm (again)", "|sms-lstm (again) − truth|", "+2"):
        assert f">{label}</text>" in comparison


def test_curves_of_any_score(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = [name for name, info in results(runs[0])["scores"].items() if not info["main"]] or ["ssim"]
    out = tmp_path / "page.html"
    assert cli.main(["report", *map(str, runs), "--out", str(out), "--scores", f"[{scores[0]}]"]) == 0
    label = results(runs[0])["scores"][scores[0]]["label"]
    page = out.read_text()
    assert f'aria-label="{label}"' in page
    assert 'aria-label="MSE"' not in page
    assert cli.main(["report", str(runs[0]), "--out", str(out), "--scores", "[msee]", "--overwrite"]) == 1
    assert "Did you mean 'mse'" in capsys.readouterr().err


def test_results_of_before_costs_were_written(runs: list[Path], tmp_path: Path) -> None:
    old = {key: value for key, value in results(runs[0]).items() if key not in ("macs", "peak_bytes")}
    (tmp_path / "results.json").write_text(json.dumps(old))
    page = fc.report(tmp_path, out=tmp_path / "page.html", scores=["mse"], figures=False).read_text()
    assert "Cost and score" not in page, "one run has nothing to compare with"
    assert list(radar_axes([old, results(runs[1])])) == ["parameters (M)", "forecast time (ms)", "MSE"]


def made_up(values: dict[str, Any], best: str, score: float | None) -> dict[str, Any]:
    info = {"label": "Score", "best": best, "main": True, "table": "t"}
    return {"model": "m", "scores": {"s": info}, "forecasts": {"m": {"mean": {"s": score}}}, **values}


def test_axes_by_hand() -> None:
    costs = {"parameters": 2_000_000, "macs": 3_000_000_000, "peak_bytes": 5_000_000, "seconds_per_clip": 0.25}
    axes = radar_axes([made_up(costs, "low", 4.0)])
    assert list(axes.values()) == [[2.0], [3.0], [0.005], [250.0], [4.0]]
    assert radar_axes([made_up({}, "high", 0.5)]) == {"1 / Score": [2.0]}
    for best, score in (("one", 1.0), ("high", 0.0), ("high", -0.2), ("low", None)):
        assert radar_axes([made_up({}, best, score)]) == {}


def test_a_radar_chart_needs_three_axes() -> None:
    with pytest.raises(ValueError, match=r"three axes and got \['a', 'b'\]"):
        draw_radar(["m"], {"a": [1.0], "b": [1.0]})


def test_places_in_a_grid() -> None:
    red, blue = (np.full((8, 8, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    drawing = draw_grid({"panel": {"row": [None, red], "small": [blue[::2, ::2], None]}}, ["a", "b"], "Title")
    pixels = np.asarray(Image.open(io.BytesIO(drawing.png)).convert("RGB")).astype(int)
    reds, blues = (np.argwhere(pixels[..., this] - pixels[..., other] > 200) for this, other in ((0, 2), (2, 0)))
    assert reds[:, 0].max() < blues[:, 0].min()
    assert reds[:, 1].min() > blues[:, 1].max()
    assert len(reds) == pytest.approx(len(blues), rel=0.1)
    assert '<svg role="img" aria-label="Title"' in drawing.svg


def test_shades_are_of_each_picture() -> None:
    maps = np.stack([np.linspace(0, 1, 100), np.linspace(5, 9, 100)]).reshape(2, 10, 10)
    assert [(int(p.min()), int(p.max())) for p in shades(maps)] == [(0, 255)] * 2
    maps[0, 0, 0] = -1000
    assert len(np.unique(shades(maps)[0])) == 2
    assert len(np.unique(shades(maps, 0.1)[0])) > 50
    assert (shades(np.ones((1, 2, 2)))[0] == 0).all()


def scored(**intervals: list[float | None] | None) -> dict[str, Any]:
    """Columns of a table of one score; its value does not matter, its interval does."""
    return {name: ({"mean": {"s": 1.0}, "interval": {"mean": {"s": both}}}, True) for name, both in intervals.items()}


def test_best_is_what_no_other_interval_meets() -> None:
    assert clear_best(scored(a=[1, 2], b=[2.1, 3], c=[2.5, 9]), "s", "low") == "a"
    assert clear_best(scored(a=[1, 2], b=[1.9, 3], c=[2.5, 9]), "s", "low") is None
    assert clear_best(scored(a=[1, 2], b=[2.1, 3], c=[3.5, 9]), "s", "high") == "c"
    assert clear_best(scored(a=[1, 2], b=[2.1, 4], c=[3.5, 9]), "s", "high") is None
    # 1 is best: an interval that holds it may be off by nothing, and 0.5 is as far off as 2.
    assert clear_best(scored(a=[0.9, 1.2], b=[0, 0.5], c=[1.3, 1.4]), "s", "one") == "a"
    assert clear_best(scored(a=[0.7, 1.2], b=[1.1, 1.3]), "s", "one") is None
    assert clear_best(scored(a=[0.5, 0.6], b=[2.1, 3]), "s", "one") == "a"
    assert clear_best(scored(a=[0.4, 0.6], b=[2.1, 3]), "s", "one") is None
    # Nothing to be better than, no interval, and a forecast whose bounds are unknown.
    assert clear_best(scored(a=[1, 2]), "s", "low") is None
    assert clear_best(scored(a=[1, 2], b=None), "s", "low") is None
    assert clear_best(scored(a=[1, 2], b=[None, 9]), "s", "low") is None
    undefined = scored(a=[1, 2], b=[3, 4]) | {"c": ({"mean": {"s": None}, "interval": {"mean": {"s": None}}}, False)}
    assert clear_best(undefined, "s", "low") == "a"


def test_disjoint_intervals_mean_a_paired_one_without_zero() -> None:
    rng = np.random.default_rng(0)
    for correlation in (-1.0, 0.0, 0.9):
        one = rng.normal(0, 1, 500)
        other = correlation * one + (1 - correlation**2) ** 0.5 * rng.normal(0, 1, 500)
        half = 1.96 * np.array([one.std(), other.std(), (one - other).std()]) / 500**0.5
        assert half[2] <= half[0] + half[1] + 1e-9


def test_nothing_is_bold_without_intervals(runs: list[Path], tmp_path: Path) -> None:
    first, second = results(runs[0]), results(runs[1])
    for found, bounds in ((first, [1.0, 2.0]), (second, [50.0, 60.0])):
        for forecast in found["forecasts"].values():
            forecast["interval"] = {"mean": {"mse": [70.0, 80.0]}, "per_lead": {}}
        found["forecasts"][found["model"]]["interval"]["mean"]["mse"] = bounds
        found["bootstrap"] = 1000

    def page(**changes: Any) -> str:
        for name, found in (("a", first), ("b", second | changes)):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "results.json").write_text(json.dumps(found))
        folders = [tmp_path / "a", tmp_path / "b"]
        return fc.report(folders, out=tmp_path / "page.html", overwrite=True, figures=False).read_text()

    assert page().count('class="best"') == 1
    # Tested on other clips it stands in a table of its own, beside its own baselines.
    other = page(fingerprint="other clips")
    assert other.count('class="best"') == 2
    assert other.count("<caption>") == 2 * page().count("<caption>")
    assert [other.count(f"<h2>{number}. moving-mnist</h2>") for number in (1, 2)] == [1, 1]
    for found in (first, second):
        found["bootstrap"] = 0
        for forecast in found["forecasts"].values():
            del forecast["interval"]
    plain = page()
    assert 'class="best"' not in plain
    assert "without intervals no rank is claimed" in plain


def test_a_run_has_one_colour_in_tables_and_figures(runs: list[Path], tmp_path: Path) -> None:
    # Without its log, the first run is missing in the curves of the training.
    bare = tmp_path / "bare"
    shutil.copytree(runs[0], bare)
    shutil.rmtree(bare / "log")
    page = fc.report([bare, runs[1]], out=tmp_path / "page.html").read_text()
    for name, colour in zip(("convlstm", "sms-lstm"), COLOURS, strict=False):
        cells = re.findall(rf'<td style="color:(#\w+)">{name}</td>', page)
        assert cells
        assert set(cells) == {colour}
    training = (tmp_path / "page-figures" / "training-loss.svg").read_text()
    assert f"stroke: {COLOURS[1]}" in training
    assert f"stroke: {COLOURS[0]}" not in training


def test_baselines_stand_once_for_each_test_set(runs: list[Path], tmp_path: Path) -> None:
    page = fc.report(runs, out=tmp_path / "page.html", figures=False).read_text()
    assert page.count(">persistence</td>") == page.count("<caption>")


@pytest.mark.parametrize(
    ("span", "least", "step"),
    [(60, 5, 10), (60, 10, 10), (40, 5, 10), (20, 5, 5), (120, 5, 20), (12, 1, 2), (90, 30, 30), (1440, 60, 240),
     (77, 7, 14)],
)  # fmt: skip
def test_ticks_are_round_minutes_at_which_there_are_frames(span: float, least: float, step: float) -> None:
    assert minute_step(span, least) == step
    assert step % least == 0


def test_legends_fit_their_figure() -> None:
    assert legend_columns(["ms-lstm", "persistence", "blank frame"]) == 3
    assert legend_columns(["ms-lstm (a run of some name)", "persistence"]) == 2
    assert legend_columns(["m" * LEGEND_CHARACTERS]) == 1
    names = [f"ms-lstm ({'a run with a very long name ' * 5}{number})" for number in range(3)]
    drawing = draw_curves({name: ([1, 2], [0.0, 1.0]) for name in names}, title="Long", across="x", up="y")
    width = float(re.search(r'width="([\d.]+)pt"', drawing.svg).group(1))  # type: ignore[union-attr]
    found = re.findall(r'<text style="font-size: 8px[^>]*translate\(([\d.]+) [\d.]+\)">([^<]*)', drawing.svg)
    assert sum("very long" in words for _, words in found) >= 3
    # DejaVu Sans at 8 points takes some 4.2 points a letter of prose.
    assert all(float(left) + 4.4 * len(words) <= width for left, words in found)


def test_what_a_strip_shows() -> None:
    assert shown_frames(10, 10, 20) == list(range(20))
    assert shown_frames(4, 12, 7) == [3, 5, 7, 9, 11, 13, 15]
    assert shown_frames(4, 3, 7) == list(range(7))
    assert shown_frames(10, 13, 7) == [9, 12, 15, 18, 21]


def test_when_frames_are() -> None:
    assert period_text(1282791600, 1282798500) == "2010-08-26, 03:00 to 04:55 UTC"
    assert period_text(1282791600, 1282878000) == "2010-08-26 03:00 to 2010-08-27 03:00 UTC"


def test_titles_are_escaped() -> None:
    from framecast.reporting.figures import new_figure

    svg = Drawing(new_figure(1, 1), '"><script>alert(1)</script>').svg
    assert "<script" not in svg


def test_pictures_of_another_evaluation_are_not_shown(runs: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs[0], folder)
    # As if it had been killed between the two.
    shutil.copy(runs[1] / "examples.npz", folder / "examples.npz")
    with pytest.raises(DataError, match=r"examples\.npz.*of another evaluation.*evaluate again"):
        fc.report(folder, out=tmp_path / "page.html")


def test_as_many_clips_and_figures_as_asked_for(runs: list[Path], tmp_path: Path) -> None:
    page = fc.report(runs, out=tmp_path / "small.html", clips=0, figures=False).read_text()
    assert "animation of clip" not in page
    assert not (tmp_path / "small-figures").exists()
    assert cli.main(["report", *map(str, runs), "--out", str(tmp_path / "a.html"), "--clips", "1"]) == 0
    assert (tmp_path / "a.html").read_text().count("animation of clip") == 1
    with pytest.raises(ValueError, match="clips is -1"):
        fc.report(runs, out=tmp_path / "negative.html", clips=-1)


def test_equal_reports_are_equal_files(runs: list[Path], tmp_path: Path) -> None:
    first, second = (fc.report(runs, out=tmp_path / name / "page.html") for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_a_moving_png_is_small_and_true_to_its_colours() -> None:
    frames = np.random.default_rng(0).random((5, 1, 16, 16)).round(1).astype(np.float32)
    panels = {"truth": (frames, 2), "model": (frames[::-1], 2)}
    moving, gif = animation(panels, kind="PNG"), animation(panels)
    assert len(moving) < len(gif) / 3
    picture = Image.open(io.BytesIO(moving))
    assert (picture.format, picture.n_frames, picture.info["duration"], picture.info["loop"]) == ("PNG", 5, 250, 0)
    picture.seek(3)
    seen = np.asarray(picture.convert("RGB")).astype(int)
    top = LINE + BORDER
    for frame, left in ((frames[3], BORDER), (frames[1], seen.shape[1] // 2 + BORDER)):
        painted = seen[top : top + 160, left : left + 160]
        assert (
            np.abs(painted - enlarge(to_picture(frame), 160)).max() <= 8
        )  # of 255: 256 colours for all frames, as many as the eye needs
