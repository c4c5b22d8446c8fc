"""A run of which all is read when it is continued, and nothing is left to continue from: to damage what is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import framecast as fc
from framecast.errors import WeightsError
from framecast.training.run_folder import RunFolder


def run_without_state(folder: Path) -> Path:
    """Write a run of which all is there but the state to continue from, which is what is read last."""
    options = {"hidden": 2, "layers": 1}
    clips = {"size": 16, "context": 3, "horizon": 2, "clips": 15}
    run = fc.train("convlstm", "moving-mnist", out=folder / "run", model_options=options, data_options=clips, steps=1,
                   progress=False)  # fmt: skip
    for path in (run.path / "checkpoints").iterdir():
        path.unlink()
    (run.path / "initial.safetensors").unlink(missing_ok=True)
    # Of the options only some, or most of a reading's time would go into names that stand for their defaults.
    config = RunFolder(run.path).read_config()
    config["training"] = {name: config["training"][name] for name in ("steps", "batch", "lr", "seed", "recompute")}
    (run.path / "config.yaml").write_text(yaml.safe_dump(config))
    return run.path


_OPENED: dict[str, Any] = {}


def _opened(name: str, **options: Any) -> Any:
    """Open data once for all readings that ask for the same."""
    key = repr((name, options))
    if key not in _OPENED:
        _OPENED[key] = fc.data(name, **options)
    return _OPENED[key]


def continue_run(path: Path) -> str:
    """Continue the run that a file is of, which must end where its state is sought."""
    said = ""
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("framecast.api.train.open_data", _opened)
            fc.train(out=path.parent, resume=True, progress=False)
    except WeightsError as error:
        said = str(error)
    if "holds no training state" not in said:
        raise AssertionError(said or "a run without a state was continued")
    return "all that was read is as it was"
