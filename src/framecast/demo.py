"""The demo: train a small MS-LSTM on moving digits, score it, forecast unseen frames and write a report."""

from __future__ import annotations

import io
from itertools import count
from pathlib import Path

import numpy as np

from framecast.api.data import data
from framecast.api.evaluate import evaluate
from framecast.api.predict import predict
from framecast.api.report import report
from framecast.api.train import train
from framecast.files import write_atomically
from framecast.reporting.results import score_table

DATA_OPTIONS = {"size": 32, "context": 5, "horizon": 5}
TEST_CLIPS = 500
TRAINED = "ms-lstm-moving-mnist"


def demo(
    *,
    out: str | Path | None = None,
    steps: int = 500,
    batch: int = 4,
    hidden: int = 16,
    lr: float = 1.5e-3,
    minutes: float = 5,
    threads: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> str:
    """Train a small MS-LSTM at 32x32, 5 -> 5, from scratch; evaluate, forecast, and write a report.

    In a few hundred steps the paper's recipe hardly leaves the blank frame, which absolute errors favour on sparse
    scenes. So the demo learns by squared error, from its own forecasts, with a higher and falling learning rate. What
    the same model does after hours of training is shown beside it, with the weights that come with the package.

    Args:
        out: the run folder; None takes the first free one of runs/demo, runs/demo-2, ...
        steps: optimiser steps.
        batch: clips per step.
        hidden: channels of a layer.
        lr: peak learning rate.
        minutes: stop training early after so many minutes, on a slow machine.
        threads: threads of the processor; None leaves torch's choice.
        seed: of weights, order and masks.
        progress: show progress bars.

    Returns:
        A small table of scores and the path of the report.
    """
    folder = _free_folder() if out is None else Path(out)
    train(
        "ms-lstm",
        "moving-mnist",
        out=folder,
        model_options={"hidden": hidden},
        data_options=DATA_OPTIONS,
        steps=steps,
        batch=batch,
        lr=lr,
        minutes=minutes,
        schedule="warmup-cosine",
        loss="mse",
        sampling="none",
        validate_clips=128,
        validate_every=max(1, steps // 4),
        threads=threads,
        seed=seed,
        progress=progress,
    )
    results = evaluate(folder, limit=TEST_CLIPS, threads=threads, progress=progress)
    unseen = data("moving-mnist", **DATA_OPTIONS)["test"][TEST_CLIPS]["frames"][: DATA_OPTIONS["context"]]
    saved = io.BytesIO()
    np.save(saved, unseen.numpy())
    write_atomically(folder / "unseen.npy", saved.getvalue())
    predict(folder, folder / "unseen.npy", horizon=2 * DATA_OPTIONS["horizon"], out=folder / "forecast")
    trained = evaluate(
        TRAINED, data_options=DATA_OPTIONS, limit=TEST_CLIPS, out=folder / TRAINED, threads=threads, progress=progress
    )
    page = report([folder, folder / TRAINED], out=folder / "report.html")
    return (
        f"\nfrom scratch, in these minutes\n{score_table(results)}\n\n"
        f"with the weights of hours that come with the package\n{score_table(trained)}\n\n"
        f"{results['clips']} unseen test clips; good is low MSE and MAE, high PSNR and SSIM, sharpness near 1\n"
        f"forecast:  {folder / 'forecast' / 'forecast.gif'}\nreport:    {page}"
    )


def _free_folder() -> Path:
    """Return the first folder of its kind that is not there yet."""
    names = (Path("runs") / ("demo" if number == 1 else f"demo-{number}") for number in count(1))
    return next(path for path in names if not path.exists())
