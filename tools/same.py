"""Print one SHA-256 for each thing that a restructuring must leave as it is; two runs are compared with diff.

Run before and after a change, on one machine: python tools/same.py [--killed FOLDER] > before.txt

It trains, scores and forecasts with every model of the registry for a few steps, and looks at initial weights, costs,
help texts, descriptions of data sets and the tables of the committed studies. ``--killed`` names a run folder: where
there is none, a training is started there and killed; where there is one, a copy of it is resumed, so that a run that
was killed before a change goes on after it. It uses public names only, and takes two minutes on one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
# Help texts are folded to the width of the terminal.
os.environ["COLUMNS"] = "120"

import torch

import framecast as fc
from framecast.cli import main as command_line

ROOT = Path(__file__).resolve().parents[1]
DATA = {"size": 16, "context": 2, "horizon": 2, "clips": 60}
TRAINING = {"steps": 3, "batch": 2, "save_every": 2, "log_every": 1, "validate_clips": 4, "progress": False}
SMALL = {
    "earthformer": {"size": [16, 16], "context": 2, "horizon": 2, "base_units": 16, "encoder_depths": [1, 1],
                    "decoder_depths": [1, 1]},
    "simvp": {"context": 2, "horizon": 2, "hid_S": 8, "hid_T": 32, "N_S": 2, "N_T": 2},
    "simvp-v2": {"context": 2, "horizon": 2, "hid_S": 8, "hid_T": 16, "N_S": 2, "N_T": 3, "mlp_ratio": 2.0},
}  # fmt: skip
RECURRENT = {"hidden": 8, "layers": 4}
HELP = ("", "train", "evaluate", "predict", "report", "data", "data list", "data info", "data check", "data convert",
        "models", "cost", "analyse", "analyse complexity", "analyse receptive", "analyse layers", "study",
        "demo")  # fmt: skip
# What the clock says differs from run to run.
TIMED = ("seconds_per_clip",)


def show(name: str, content: bytes | str) -> None:
    """Print the hash of a thing under its name."""
    data = content.encode() if isinstance(content, str) else content
    print(f"{hashlib.sha256(data).hexdigest()[:32]}  {name}", flush=True)


def said(*words: str) -> str:
    """Return what a command prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        command_line(list(words))
    return out.getvalue()


def show_model(name: str) -> None:
    """Initial weights, a training of three steps, its scores and a forecast."""
    torch.manual_seed(0)
    content = hashlib.sha256()
    for key, tensor in fc.create_model(name).state_dict().items():
        content.update(f"{key} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    show(f"{name}: keys and initial weights", content.hexdigest())
    run = Path("runs") / name.replace("+", "p")
    options = SMALL.get(name, RECURRENT)
    fc.train(name, "moving-mnist", out=run, model_options=options, data_options=DATA, threads=1, **TRAINING)
    for file in ("config.yaml", "weights.safetensors", "log/train.csv", "log/validation.csv"):
        show(f"{name}: {file}", (run / file).read_bytes())
    results = fc.evaluate(run, limit=4, bootstrap=20, threads=1, progress=False)
    show(f"{name}: results", json.dumps({key: value for key, value in results.items() if key not in TIMED}))
    past = torch.rand(2, 2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    show(f"{name}: forecast", fc.predict(run, past, horizon=3, threads=1).tobytes())
    show(f"{name}: cost", said("cost", name, "--shape", "4", "1", "16", "16", "--batch", "2"))


def show_studies() -> None:
    """The tables of the committed studies, made again from their records."""
    for study in sorted((ROOT / "studies").glob("*/study.yaml")):
        shutil.copytree(
            study.parent, study.parent.name, ignore=shutil.ignore_patterns("*.md", "*.svg", "*.html", "runs")
        )
    for study in sorted(Path().glob("*/study.yaml")):
        fc.study(study, tables=True)
        for file in sorted([*study.parent.glob("*.md"), *study.parent.glob("*.csv"), *study.parent.rglob("*.svg")]):
            show(f"study {file}", file.read_bytes())


def show_killed(folder: Path) -> None:
    """Start a run and kill it where there is none; resume a copy of it."""
    if not folder.exists():
        code = (
            f"import framecast as fc; fc.train('ms-lstm', 'moving-mnist', out={str(folder)!r}, "
            f"model_options={RECURRENT},"
            f" data_options={DATA}, steps=400, batch=2, save_every=20, validate_every=50, progress=False, threads=1)"
        )
        process = subprocess.Popen([sys.executable, "-c", code])
        while len(list(folder.glob("checkpoints/batch-*.ckpt"))) < 2 and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    shutil.copytree(folder, "resumed")
    fc.train(out="resumed", resume=True, threads=1, progress=False)
    for file in ("weights.safetensors", "log/train.csv", "log/validation.csv"):
        show(f"killed and resumed: {file}", (Path("resumed") / file).read_bytes())


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """Work in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FRAMECAST_CACHE"] = f"{folder}/cache"
        before = Path.cwd()
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def main() -> None:
    """Print all hashes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--killed", type=lambda text: Path(text).resolve())
    killed = parser.parse_args().killed
    torch.set_num_threads(1)
    with elsewhere():
        for verb in HELP:
            show(f"framecast {verb} --help", said(*verb.split(), "--help"))
        show("cost --paper", said("cost", "--paper"))
        show("models", said("models"))
        for name in fc.list_data():
            show(f"data info {name}", said("data", "info", name))
        show("analyse complexity", said("analyse", "complexity"))
        show("analyse receptive", said("analyse", "receptive", "--size", "32", "--clips", "1"))
        for name in fc.list_models():
            show_model(name)
        show_studies()
        if killed is not None:
            show_killed(killed)


if __name__ == "__main__":
    main()
