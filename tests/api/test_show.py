"""What a notebook shows: clips, forecasts, scores, runs and data sets, and the notebook of the docs itself."""

from __future__ import annotations

import ast
import base64
import copy
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from samples.paths import ROOT
from samples.radar import knmi_folder, seconds

import framecast as fc
from framecast.errors import OptionError, RunNotFoundError

DATA: dict[str, Any] = {"size": 16, "context": 3, "horizon": 2, "clips": 60}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("runs") / "run"
    return fc.train("convlstm", "moving-mnist", out=out, model_options={"hidden": 2, "layers": 1}, data_options=DATA,
                    steps=2, progress=False)  # fmt: skip


def frames_in(shown: Any) -> int:
    """Count the frames of the first moving picture."""
    (picture,) = re.findall(r"data:image/png;base64,([\w+/=]+)", shown._repr_html_())
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        return int(getattr(image, "n_frames", 1))


@pytest.mark.parametrize("shape", [(6, 12, 16), (6, 1, 12, 16), (6, 3, 12, 16), (2, 6, 1, 12, 16)])
@pytest.mark.parametrize("kind", ["u1", "f4", "tensor", "masked"])
def test_frames_of_every_form_are_shown(shape: tuple[int, ...], kind: str) -> None:
    values = np.random.default_rng(0).random(shape) * 255
    frames: Any = {"u1": values.astype("u1"), "f4": values.astype("f4"), "tensor": torch.from_numpy(values),
                   "masked": np.ma.masked_less(values, 20)}[kind]  # fmt: skip
    shown = fc.show(frames, past=2)
    assert frames_in(shown) == 6
    assert len(repr(shown)) < 100


def test_what_verbs_return_shows_itself(run: Any) -> None:
    data = fc.data("moving-mnist", **DATA)
    assert frames_in(data) == 5
    assert repr(data).startswith("moving-mnist: 3 -> 2 frames of 1 x 16x16")
    assert frames_in(fc.show(data["test"][0], past=3)) == 5
    with pytest.raises(RunNotFoundError, match="neither scores nor"):
        fc.show(run.path / "log")
    assert "<svg" in run._repr_html_()
    scores = fc.evaluate(run, progress=False)
    assert scores._repr_html_().count("<tr>") == len(scores["forecasts"]) + 1
    assert "persistence" in repr(scores)
    assert json.loads(json.dumps(scores)) == scores
    assert "<table>" in run._repr_html_()
    forecast = fc.predict("ms-lstm-moving-mnist", data["test"][0], horizon=4, context=3)
    assert frames_in(forecast) > 4, "its past stands before it"
    assert repr(forecast).startswith("forecast of 4 frames of 1 x 16x16, 1 clips, ")
    assert repr(forecast[0, 0]) == repr(np.asarray(forecast)[0, 0])
    assert forecast[0]._repr_html_() is None
    np.testing.assert_array_equal(copy.deepcopy(forecast), forecast)
    both = fc.show({"truth": data["test"][0]["frames"], "forecast": data["test"][1]["frames"][:4]}, like=data)
    assert frames_in(both) == 5


def test_rain_is_shown_in_its_colours(tmp_path: Path) -> None:
    pixels = np.full((40, 8, 8), 200)
    folder = knmi_folder(tmp_path / "knmi", pixels, seconds("2010-08-26T00:00"))
    data = fc.data(folder, context=2, horizon=2)
    (picture,) = re.findall(r"base64,([\w+/=]+)", data._repr_html_())
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert (colours.max(1) - colours.min(1)).max() > 100


@pytest.mark.parametrize("what", [3, "nowhere", np.zeros(4), np.array(["a"] * 8).reshape(2, 2, 2), None])
def test_what_cannot_be_shown_is_refused_in_words(what: Any) -> None:
    with pytest.raises((OptionError, RunNotFoundError), match=r"cannot be shown|neither scores"):
        fc.show(what)


def test_there_is_no_such_clip() -> None:
    with pytest.raises(OptionError, match="2 clips, so there is no 5"):
        fc.show(np.zeros((2, 3, 1, 8, 8)), clip=5)


def test_the_notebook_of_the_docs_runs(tmp_path: Path) -> None:
    """Its cells run one after another, and what ends each shows itself."""
    cells = json.loads((ROOT / "docs/notebook.ipynb").read_text())["cells"]
    lines = []
    for cell in cells:
        if cell["cell_type"] == "code":
            *body, last = ast.parse("".join(cell["source"])).body
            assert isinstance(last, ast.Expr), "a cell ends in what it shows"
            lines += [*map(ast.unparse, body), f"assert len(({ast.unparse(last)})._repr_html_()) > 100"]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
