"""The demo: what the models that come with the package make of unseen digits and rain, and a small training.

Everything is shown as soon as it is there: the first pictures within half a minute, real rain next, and last a model
that learns from scratch while one looks on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch

from framecast.api.evaluate import evaluate
from framecast.api.report import report
from framecast.errors import MissingExtraError
from framecast.files import write_atomically
from framecast.reporting.clips import clip_pictures
from framecast.reporting.results import Scores, score_table

DIGITS, DIGIT_CLIPS = "ms-lstm-moving-mnist", 32
RAIN, RAIN_MEMBERS = "ms-lstm-knmi", 8
SMALL_DATA = {"size": 32, "context": 5, "horizon": 5, "digits_per_frame": 1}
SMALL_MODEL: dict[str, Any] = {"hidden": 16}
SMALL_TRAINING: dict[str, Any] = {
    "batch": 4, "lr": 2e-3, "schedule": "warmup-cosine", "loss": "l1+l2", "sampling": "none", "log_every": 5,
    "validate_clips": 32,
}  # fmt: skip
SMALL_STEPS, SMALL_MINUTES, SMALL_CLIPS = 400, 1.25, 100


def demo(
    *,
    out: str | Path | None = None,
    quick: bool = False,
    threads: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Forecast digits and rain by the models that come with the package, train a small one, and write a page.

    Args:
        out: the folder; None takes the first free one of runs/demo, runs/demo-2, ...
        quick: leave out the training.
        threads: threads of the processor; None leaves torch's choice.
        seed: of the small training.
        progress: show progress bars.

    Returns:
        The path of the page.
    """
    folder, began = _free_folder() if out is None else Path(out), time.monotonic()
    parts = 2 if quick else 3
    _say(f"1 of {parts}: two digits that bounce, forecast ten frames ahead by a model that comes with the package")
    options: dict[str, Any] = {"threads": threads, "progress": progress}
    results = evaluate(DIGITS, limit=DIGIT_CLIPS, examples=2, out=folder / "digits", **options)
    _show(folder, "digits", results, began)
    tested = [folder / "digits"]

    _say(f"2 of {parts}: rain over the Netherlands, 26 August 2010, an hour ahead (KNMI, CC BY 4.0)")
    try:
        results = evaluate(RAIN, members=RAIN_MEMBERS, examples=2, out=folder / "rain", **options)
    except MissingExtraError as error:
        _say(f"Left out, as the model adds to rain that moves on as it did, and {error}")
    else:
        _show(folder, "rain", results, began)
        tested.append(folder / "rain")

    if not quick:
        _say(f"3 of {parts}: the same kind of model learns from scratch for a minute, one digit on 32x32 pixels")
        tested.append(folder / "training")
        results = _train_small(folder / "training", seed, options)
        _show(folder, "training", results, began)
    page = report(tested, out=folder / "report.html", clips=2)
    _say(f"All of it on one page, {time.monotonic() - began:.0f} s after the start: {page}")
    return page


def _train_small(folder: Path, seed: int, options: Mapping[str, Any]) -> Scores:
    """Train a small model, saying what it forecasts before and after."""
    from framecast.api.models import create_model
    from framecast.api.train import train

    torch.manual_seed(seed)
    untrained = create_model("ms-lstm", **SMALL_MODEL)
    common = {"limit": SMALL_CLIPS, "bootstrap": 0, "baselines": (), **options}
    before = evaluate(untrained, data="moving-mnist", data_options=SMALL_DATA, **common)
    steps = SMALL_STEPS
    train(
        "ms-lstm", "moving-mnist", out=folder, model_options=SMALL_MODEL, data_options=SMALL_DATA, steps=steps,
        minutes=SMALL_MINUTES, validate_every=max(1, steps // 4), seed=seed, **SMALL_TRAINING, **options,
    )  # fmt: skip
    results = evaluate(folder, limit=SMALL_CLIPS, examples=2, **options)
    name = results["model"]
    errors = [found["forecasts"][name]["mean"]["mse"] for found in (before, results)]
    _say(f"squared error of a frame before training {errors[0]:.1f}, after {errors[1]:.1f}")
    return results


def _show(folder: Path, name: str, results: Mapping[str, Any], began: float) -> None:
    """Print scores, and write the pictures of the first clip beside the page."""
    files = clip_pictures(folder / name)
    for suffix, content in files.items():
        write_atomically(folder / f"{name}.{suffix}", content)
    pictures = ", ".join(str(folder / f"{name}.{suffix}") for suffix in files)
    _say(f"{score_table(results)}\n{results['clips']} clips that no model has seen; pictures: {pictures}")
    print(f"[{time.monotonic() - began:.0f} s]", flush=True)


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)


def _free_folder() -> Path:
    """Return the first folder of its kind that is not there yet."""
    names = (Path("runs") / ("demo" if number == 1 else f"demo-{number}") for number in count(1))
    return next(path for path in names if not path.exists())
