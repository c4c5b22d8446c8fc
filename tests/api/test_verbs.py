"""What a user does: evaluate, predict, report, and the mistakes on the way."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from samples.own import video

import framecast as fc
from framecast import cli
from framecast.cells.convlstm import column
from framecast.errors import (
    DataError,
    DatasetNotFoundError,
    OptionError,
    RunFolderError,
    UnknownNameError,
    WeightsError,
)
from framecast.files import write_atomically
from framecast.models.recurrent import build_plain
from framecast.registry import model_entry
from framecast.reporting.results import read_results

DATA: dict[str, Any] = {"size": 16, "context": 3, "horizon": 2, "clips": 60}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "trained"
    fc.train("ms-lstm", "moving-mnist", out=out, model_options={"hidden": 4, "layers": 2}, data_options=DATA,
             steps=10, progress=False)  # fmt: skip
    return out


@pytest.fixture(scope="module")
def results(run: Path) -> dict[str, Any]:
    return fc.evaluate(run, progress=False)


def past(clips: int = 1) -> np.ndarray[Any, Any]:
    data = fc.data("moving-mnist", **DATA)["test"]
    return np.stack([data[i]["frames"][:3].numpy() for i in range(clips)])


# ---- evaluate


def test_scores_are_those_of_all_clips_at_once(run: Path, results: dict[str, Any]) -> None:
    clips = fc.data("moving-mnist", **DATA)["test"]
    frames = torch.stack([clips[i]["frames"] for i in range(len(clips))])
    assert results["clips"] == len(clips) == 18
    with torch.no_grad():
        forecasts = {
            "ms-lstm": fc.load(run)(frames[:, :3], 2).clamp(0, 1),
            "persistence": frames[:, 2:3].expand(-1, 2, -1, -1, -1),
            "blank frame": torch.zeros_like(frames[:, 3:]),
        }
    for name, forecast in forecasts.items():
        squared = (forecast - frames[:, 3:]).square().sum((2, 3, 4)).mean(0)
        np.testing.assert_allclose(results["forecasts"][name]["per_lead"]["mse"], squared, rtol=1e-5)
        assert results["forecasts"][name]["mean"]["mse"] == pytest.approx(squared.mean().item(), rel=1e-5)


def test_results_are_written(run: Path, results: dict[str, Any]) -> None:
    assert read_results(run) == results
    with (run / "results.csv").open() as file:
        table = list(csv.DictReader(file))
    assert {row["forecast"] for row in table} == set(results["forecasts"])
    assert [row["lead"] for row in table if row["forecast"] == "ms-lstm"] == ["1", "2", "mean"]
    with np.load(run / "examples.npz", allow_pickle=False) as examples:
        assert examples["past"].shape == (8, 3, 1, 16, 16)


def test_batches_and_limits_change_nothing_else(run: Path, results: dict[str, Any], tmp_path: Path) -> None:
    again = fc.evaluate(run, batch=5, out=tmp_path, progress=False)
    for name, found in again["forecasts"].items():
        np.testing.assert_allclose(found["per_lead"]["ssim"], results["forecasts"][name]["per_lead"]["ssim"], rtol=1e-5)
    assert fc.evaluate(run, limit=3, out=tmp_path, progress=False)["clips"] == 3


def test_the_published_protocol(run: Path, results: dict[str, Any], tmp_path: Path) -> None:
    found = fc.evaluate(run, protocol="as-published", out=tmp_path, progress=False)
    published = found["as_published"]["ms-lstm"]["per_lead"]
    assert len(published["mse"]) == 4
    np.testing.assert_allclose(published["mse"][-2:], results["forecasts"]["ms-lstm"]["per_lead"]["mse"], rtol=1e-5)
    assert published["psnr"][-1] <= results["forecasts"]["ms-lstm"]["per_lead"]["psnr"][-1]
    assert "as_published" not in results


def test_what_evaluate_refuses(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"holds no weights.safetensors"):
        fc.evaluate(tmp_path)
    with pytest.raises(RunFolderError, match="there is no run folder"):
        fc.evaluate(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no protocol 'published'"):
        fc.evaluate(run, protocol="published")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no split"):
        fc.evaluate(run, split="tset")  # type: ignore[arg-type]
    alone = tmp_path / "weights.safetensors"
    alone.write_bytes((run / "weights.safetensors").read_bytes())
    with pytest.raises(RunFolderError, match="give data="):
        fc.evaluate(alone)
    assert fc.evaluate(alone, data="moving-mnist", data_options=DATA, progress=False)["clips"] == 18


# ---- predict


@pytest.mark.parametrize("form", ["(T,H,W)", "(T,C,H,W)", "(T,H,W,C)", "(N,T,H,W)", "(N,T,C,H,W)", "(N,T,H,W,C)"])
def test_arrays_of_every_form(run: Path, form: str) -> None:
    many = np.concatenate([past(2), past(2)], 1)  # six frames: neither grey nor colour
    one = many[0]
    frames = {
        "(T,H,W)": one[:, 0], "(T,C,H,W)": one, "(T,H,W,C)": np.moveaxis(one, 1, -1), "(N,T,H,W)": many[:, :, 0],
        "(N,T,C,H,W)": many, "(N,T,H,W,C)": np.moveaxis(many, 2, -1),
    }[form]  # fmt: skip
    with torch.no_grad():  # the past is the last three frames, as in the training
        expected = fc.load(run)(torch.from_numpy(many[:, 3:]), 5).clamp(0, 1).numpy()
    forecast = fc.predict(run, frames, horizon=5)
    assert forecast.dtype == np.float32
    np.testing.assert_allclose(forecast, expected if "N" in form else expected[:1], atol=1e-6)


def test_the_past_is_as_long_as_asked_for(run: Path) -> None:
    long = np.concatenate([past()] * 4, 1)[0]
    with torch.no_grad():
        expected = fc.load(run)(torch.from_numpy(long[None, -7:]), 2).clamp(0, 1).numpy()
    np.testing.assert_allclose(fc.predict(run, long, context=7), expected, atol=1e-6)
    np.testing.assert_array_equal(fc.predict(run, long), fc.predict(run, long[-3:]))


def test_files_are_read_as_for_the_training(tmp_path: Path) -> None:
    video, other = np.random.default_rng(0).random((2, 40, 20, 24)).astype("f4")
    np.savez(tmp_path / "a.npz", good=video, bad=other)
    reading = {"variable": "good", "crop": [0, 16, 8, 24]}
    run = tmp_path / "run"
    fc.train("convlstm", tmp_path / "a.npz", out=run, steps=1, batch=2, progress=False,
             model_options={"hidden": 2, "layers": 1},
             data_options={**reading, "context": 3, "horizon": 2})  # fmt: skip
    expected = fc.predict(run, video[-3:, :16, 8:])
    assert expected.shape == (1, 2, 1, 16, 16)
    np.testing.assert_array_equal(fc.predict(run, tmp_path / "a.npz"), expected)
    np.testing.assert_array_equal(fc.predict(run, video), expected)
    elsewhere = fc.predict(run, tmp_path / "a.npz", data_options={"variable": "bad"})
    np.testing.assert_array_equal(elsewhere, fc.predict(run, other[-3:, :16, 8:]))
    with pytest.raises(UnknownNameError, match="horizon"):
        fc.predict(run, tmp_path / "a.npz", data_options={"horizon": 4})


def test_a_video_goes_on_at_its_own_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = video(tmp_path / "a.mp4", np.arange(40) / 25)
    run, out = str(tmp_path / "run"), tmp_path / "out"
    fc.train("convlstm", source, out=run, steps=1, batch=2, progress=False, model_options={"hidden": 2, "layers": 1},
             data_options={"context": 3, "horizon": 2, "channels": 1})  # fmt: skip
    assert cli.main(["predict", run, str(source), "--out", str(out)]) == 0
    assert "the past is the last 3 of 40 frames" in capsys.readouterr().out
    with Image.open(out / "forecast.gif") as gif:
        assert gif.info["duration"] == 40
    with av.open(str(out / "forecast.mp4")) as film:
        assert film.streams.video[0].average_rate == 25
        assert sum(1 for _ in film.decode(video=0)) == 5
    values = np.load(out / "forecast.npy", allow_pickle=False)
    assert 0 <= values.min() <= values.max() <= 1
    assert cli.main(["predict", run, str(source), "--out", str(out)]) == 1
    assert "is there already" in capsys.readouterr().err
    assert cli.main(["predict", run, str(source), "--out", str(out), "--overwrite"]) == 0


@pytest.mark.parametrize("shape", [(60, 3, 16, 16), (60, 16, 16, 3)])
def test_colour_is_not_taken_for_time(run: Path, shape: tuple[int, ...], tmp_path: Path) -> None:
    np.save(tmp_path / "frames.npy", np.zeros(shape, np.float32))
    for frames in (np.zeros(shape), tmp_path / "frames.npy"):
        with pytest.raises(DataError, match=r"give five axes|has 3 channels and not 1"):
            fc.predict(run, frames)


def test_files_of_every_kind_give_the_same_forecast(run: Path, tmp_path: Path) -> None:
    pixels = (past()[0, :, 0] * 255).round().astype(np.uint8)
    expected = fc.predict(run, pixels.astype(np.float32) / 255)
    np.save(tmp_path / "a.npy", pixels)
    np.savez(tmp_path / "b.npz", frames=pixels)
    pictures = [Image.fromarray(frame) for frame in pixels]
    pictures[0].save(tmp_path / "c.gif", save_all=True, append_images=pictures[1:])
    (tmp_path / "d").mkdir()
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"d/{i:03}.png")
    for name in ("a.npy", "b.npz", "c.gif", "d"):
        np.testing.assert_allclose(fc.predict(run, tmp_path / name), expected, atol=1e-6)


def test_forecasts_are_written(run: Path, tmp_path: Path) -> None:
    forecast = fc.predict(run, past()[0], horizon=4, out=tmp_path / "new")
    assert np.array_equal(np.load(tmp_path / "new/forecast.npy", allow_pickle=False), forecast)
    with Image.open(tmp_path / "new/forecast.gif") as picture:
        # Equal frames are stored once and shown longer, so time is what counts.
        shown = [frame.info["duration"] for frame in ImageSequence.Iterator(picture)]
    assert sum(shown) == (3 + 4) * 250


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.full((3, 16, 16), 200.0), "0-255 pixels: divide by 255"),
        (np.full((3, 16, 16), -0.5), r"lies in \[-0.5, -0.5\]"),
        (np.full((3, 16, 16), np.nan), "768 values that are NaN"),
        (np.zeros(16), "two to five axes"),
        (np.zeros((3, 2, 3, 16, 16)), "has 3 channels and not 1"),
        (np.zeros((0, 16, 16)), "no frames"),
        (np.array([["a"]]), "frames are numbers"),
        (np.array([{}]), "frames are numbers"),
    ],
)
def test_bad_frames(run: Path, frames: np.ndarray[Any, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fc.predict(run, frames)


def test_bad_horizon(run: Path) -> None:
    with pytest.raises(ValueError, match="horizon is 0"):
        fc.predict(run, past()[0], horizon=0)


def test_bad_files(run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "cut.npy", past())
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:300])
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=past(), b=past())
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros((200, 500, 500)))
    (tmp_path / "text.txt").write_text("frames")
    (tmp_path / "no.gif").write_text("frames")
    (tmp_path / "zip.npz").write_text("frames")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    for size in (16, 17):
        Image.new("L", (size, size)).save(tmp_path / f"mixed/{size}.png")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/1.png").write_bytes(b"\x89PNG nothing")
    for name, message in {
        "cut.npy": "truncated",
        "object.npy": "cannot be read",
        "two.npz": r"several arrays of frames \(a, b\)",
        "bomb.npz": "200 times its size",
        "text.txt": "ends in .txt",
        "no.gif": "cannot be read as a GIF",
        "zip.npz": "cannot be read",
        "mixed": r"16x16 \(.*16\.png\), 17x17 \(.*17\.png\): frames have one size",
        "broken": "cannot be read as a picture",
    }.items():
        with pytest.raises(DataError, match=message):
            fc.predict(run, tmp_path / name)
    for name, message in {"empty": "holds nothing", "nowhere": "nothing at"}.items():
        with pytest.raises(DatasetNotFoundError, match=message):
            fc.predict(run, tmp_path / name)


# ---- weights


def test_every_bit_of_a_weights_file_matters(run: Path, tmp_path: Path) -> None:
    content = (run / "weights.safetensors").read_bytes()
    generator = np.random.default_rng(0)
    expected = fc.load(run).state_dict()
    for position in [*generator.integers(0, len(content), 60), 0, 8, len(content) - 1]:
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(generator.integers(8))
        (tmp_path / "w.safetensors").write_bytes(damaged)
        try:
            loaded = fc.load(tmp_path / "w.safetensors").state_dict()
        except WeightsError:
            continue
        else:
            assert all(torch.equal(expected[name], loaded[name]) for name in expected), position
    for length in (0, 7, 100, len(content) - 1):
        (tmp_path / "w.safetensors").write_bytes(content[:length])
        with pytest.raises(WeightsError):
            fc.load(tmp_path / "w.safetensors")


def test_weights_of_others(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="use import_weights"):
        fc.load(tmp_path / "other.safetensors")
    nameless = build_plain(column, hidden=2)
    with pytest.raises(ValueError, match="has no name"):
        fc.save_weights(nameless, tmp_path / "x.safetensors")


def test_weights_that_find_no_memory_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors would panic, with what no handler of errors catches."""
    monkeypatch.setattr("framecast.weights.saving.COPIES", 2**50)
    with pytest.raises(MemoryError):
        fc.save_weights(fc.create_model("convlstm", hidden=2, layers=1), tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("framecast.files.os.fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*file: No space left.*old file is intact"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_place_that_cannot_be_written() -> None:
    with pytest.raises(OSError, match="cannot write"):
        fc.save_weights(fc.create_model("convlstm", hidden=2), Path("/proc/framecast/w.safetensors"))


# ---- import


def test_import_errors(tmp_path: Path) -> None:
    model = fc.create_model("convlstm", hidden=4)
    torch.save(model.state_dict(), tmp_path / "ours.pt")
    with pytest.raises(WeightsError, match=r"rnns\.lstm"):
        fc.import_weights("convlstm", tmp_path / "ours.pt")
    (tmp_path / "bad.pt").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="cannot be read"):
        fc.import_weights("convlstm", tmp_path / "bad.pt")
    with pytest.raises(WeightsError, match="no weights file"):
        fc.import_weights("convlstm", tmp_path / "nowhere.pt")
    with pytest.raises(ValueError, match="Did you mean 'ms-rnn'"):
        fc.import_weights("convlstm", {}, source="msrnn")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="no state dict"):
        fc.import_weights("convlstm", tmp_path / "list.pt")


# ---- report


def test_the_page_holds_all_it_shows(run: Path, results: dict[str, Any], tmp_path: Path) -> None:
    page = fc.report([run, run], out=tmp_path / "page.html", figures=False).read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page), "the page loads something"
    assert "@import" not in page
    assert f"{results['forecasts']['ms-lstm']['mean']['mse']:.4g}" in page
    main = sum(info["main"] for info in results["scores"].values())
    assert page.count("<svg") == main + 2, "a curve of each main score and two of the training"
    assert "animation of clip 0" in page
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))


def test_the_page_escapes_what_it_is_given(run: Path, results: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({**results, "run": "<script>alert(1)</script>"}))
    assert "<script>" not in fc.report(tmp_path, out=tmp_path / "page.html", figures=False).read_text()


def test_what_report_refuses(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="run framecast evaluate"):
        fc.report(tmp_path)
    with pytest.raises(RunFolderError, match="at least one"):
        fc.report([])
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(DataError, match="evaluate again"):
        fc.report(tmp_path)


def test_a_loaded_model_knows_its_clips(run: Path) -> None:
    model = fc.load(run)
    assert (model.clips.context, model.clips.horizon, model.clips.unit) == (3, 2, "1")
    frames = torch.from_numpy(past())
    streamed = model.forecast(model.observe(model.clips.scaling.scale(frames)), 2)
    torch.testing.assert_close(
        model.clips.scaling.unscale(streamed).clamp(0, 1), torch.from_numpy(fc.predict(run, past(), horizon=2))
    )
    assert fc.create_model("convlstm").clips is None


# ---- verbs take what verbs return


def test_a_run_goes_through_all_verbs(tmp_path: Path) -> None:
    data = fc.data("moving-mnist", **DATA)
    run = fc.train(fc.create_model("convlstm", hidden=2, layers=1), data, out=tmp_path / "run", steps=2, progress=False)
    results = fc.evaluate(run, data=data, progress=False)
    assert results == read_results(run.path)
    clip = data["test"][0]
    np.testing.assert_array_equal(fc.predict(run, clip), fc.predict(run.path, clip["frames"][:3]))
    assert fc.report(run, out=tmp_path / "page.html").is_file()
    assert fc.analyse_layers([run], out=tmp_path / "layers").keys() == {"convlstm"}
    assert fc.load(run).clips == data.spec
    with pytest.raises(OptionError, match="one clip, such as"):
        fc.predict(run, data)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="int is no run folder"):
        fc.evaluate(3)  # type: ignore[arg-type]


def test_a_model_made_by_hand_is_scored_without_a_file(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = build_plain(column, hidden=2, layers=1).train()
    data = fc.data("moving-mnist", **DATA)
    results = fc.evaluate(model, data=data, limit=4, progress=False)
    assert results["model"] in results["forecasts"]
    assert fc.predict(model, data["test"][0]["frames"][:3], horizon=4).shape == (1, 4, 1, 16, 16)
    assert model.training
    assert not list(tmp_path.iterdir())
    with pytest.raises(OptionError, match="give data="):
        fc.evaluate(model)
    loaded = fc.load(run)
    mine, theirs = (fc.evaluate(one, data=data, limit=4, progress=False, out=tmp_path) for one in (loaded, run))
    assert mine["forecasts"] == theirs["forecasts"]


@pytest.mark.parametrize("name", ["convlstm", "simvp", "earthformer"])
def test_a_model_follows_the_data(tmp_path: Path, name: str) -> None:
    frames = np.random.default_rng(0).random((40, 3, 32, 48)).astype("f4")
    small = {"convlstm": {"hidden": 2, "layers": 1}, "simvp": {"hid_S": 8, "hid_T": 16, "N_T": 2, "groups": 2},
             "earthformer": {"hidden": 8, "heads": 2}}[name]  # fmt: skip
    accepted = {key: value for key, value in small.items() if key in model_entry(name).options()}
    run = fc.train(name, frames, out=tmp_path / "run", steps=1, batch=2, progress=False, model_options=accepted,
                   data_options={"context": 4, "horizon": 2})  # fmt: skip
    assert fc.predict(run, frames).shape == (1, 2, 3, 32, 48)
    fc.train(out=tmp_path / "run", resume=True, progress=False)
    with pytest.raises(OptionError, match=r"in_channels=3 or turn pictures and videos to grey with channels=1"):
        fc.train(name, frames, out=tmp_path / "no", steps=1, model_options={"in_channels": 1, **accepted},
                 data_options={"context": 4, "horizon": 2})  # fmt: skip


def test_one_side_stands_for_both() -> None:
    assert fc.create_model("earthformer", size=32).size == (32, 32)
