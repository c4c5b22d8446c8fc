"""A run folder: everything a training leaves behind, never overwritten.

config.yaml            the resolved configuration
provenance.json        library versions, machine, fingerprint of the data
weights.safetensors    the best weights by validation (the last ones where nothing was validated)
checkpoints/           the last two training states, to resume from
log/                   train.csv, validation.csv and, apart because they never repeat, timing.csv
tensorboard/           where TensorBoard is installed
results.json, .csv     what ``framecast evaluate`` found
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from framecast.errors import RunFolderError
from framecast.storage import remove_leftovers, write_atomically

LIBRARIES = ("framecast", "torch", "lightning", "numpy", "safetensors")
KEPT_CHECKPOINTS = 2


class RunFolder:
    """The paths of a run, and the rules for starting or continuing it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.provenance = self.path / "provenance.json"
        self.weights = self.path / "weights.safetensors"
        self.checkpoints = self.path / "checkpoints"
        self.logs = self.path / "log"

    def start(self, config: dict[str, Any], fingerprint: str) -> None:
        """Make the folder and write what the run is.

        Raises:
            RunFolderError: the folder exists and is not empty; the message names the two ways on.
            OSError: the disk is full or read-only.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise RunFolderError(
                f"{self.path} exists and is never overwritten: continue it with --resume, or choose another --out"
            )
        facts = {"fingerprint": fingerprint, "versions": _versions(), "machine": platform.platform()}
        write_atomically(self.provenance, json.dumps(facts, indent=1).encode())
        write_atomically(self.config, yaml.safe_dump(config, sort_keys=False).encode())

    def read_config(self) -> dict[str, Any]:
        """Return the configuration of an existing run, after clearing what a killed writer left.

        Raises:
            RunFolderError: there is no run in this folder.
        """
        if not self.config.is_file():
            raise RunFolderError(f"{self.path} holds no run (no config.yaml): check the path, or start one with train")
        for folder in (self.path, self.checkpoints):
            remove_leftovers(folder)
        config = yaml.safe_load(self.config.read_text())
        if not isinstance(config, dict) or not {"model", "data", "training"} <= config.keys():
            raise RunFolderError(f"{self.config} is not a framecast configuration: model, data or training is missing")
        return config

    def read_fingerprint(self) -> str:
        """Return the fingerprint of the data the run was started with."""
        return str(json.loads(self.provenance.read_text())["fingerprint"])

    def checkpoint(self, batches: int) -> Path:
        """Return the path of the training state after so many batches."""
        return self.checkpoints / f"batch-{batches:09d}.ckpt"

    def saved_checkpoints(self) -> list[Path]:
        """Return the training states that are there, newest first."""
        return sorted(self.checkpoints.glob("batch-*.ckpt"), reverse=True)

    def forget_old_checkpoints(self) -> None:
        """Delete all training states but the last two."""
        for path in self.saved_checkpoints()[KEPT_CHECKPOINTS:]:
            path.unlink(missing_ok=True)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "unknown"
    return found
