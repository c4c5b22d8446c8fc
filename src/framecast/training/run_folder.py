"""The run folder: everything a training writes, never overwritten.

config.yaml            the resolved configuration
provenance.json        library versions, machine, fingerprint of the data
weights.safetensors    the best weights by validation (the last ones where nothing was validated)
checkpoints/           the last two training states, to resume from, large ones in pieces; before there are two, the
                       initial weights
log/                   train.csv, validation.csv and, apart because they never repeat, timing.csv
training.lock          while a process trains: which one
tensorboard/           where TensorBoard is installed
results.json, .csv     what ``framecast evaluate`` found
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from framecast.errors import LockedError, RunExistsError, RunFolderError, RunNotFoundError
from framecast.files import check_place, locked, remove_leftovers, write_atomically
from framecast.models.forecaster import Forecaster
from framecast.untrusted import check_aliases, reading
from framecast.weights.saving import save_weights

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
        self.initial = self.checkpoints / "initial.safetensors"
        self.logs = self.path / "log"
        self.lock = self.path / "training.lock"

    def start(self, config: dict[str, Any], fingerprint: str, model: Forecaster) -> None:
        """Make the folder and write what the run is and starts from; the configuration last, which makes it a run.

        Raises:
            RunExistsError: the folder exists and is not empty; the message names the two ways on.
            OSError: the disk is full or read-only.
        """
        self.check_free()
        self.remove_leftovers()
        facts = {"fingerprint": fingerprint, "versions": _versions(), "machine": platform.platform()}
        write_atomically(self.provenance, json.dumps(facts, indent=1).encode())
        save_weights(model, self.initial)
        write_atomically(self.config, yaml.safe_dump(config, sort_keys=False).encode())

    def check_free(self) -> None:
        """Refuse a folder that holds more than a start that was killed leaves.

        Raises:
            RunExistsError: it does; the message names the two ways on.
            OutputPlaceError: nothing can be written there.
        """
        check_place(self.path)
        if self.path.exists() and (not self.path.is_dir() or self._holds_more_than_a_killed_start()):
            raise RunExistsError(
                f"{self.path} exists and is never overwritten: continue it with resume=True, or choose another out="
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training into this folder; the hold ends with the process, however it ends.

        Raises:
            RunFolderError: another process trains here; the message says which, and what to do.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.lock))
            except LockedError as error:
                raise RunFolderError(
                    f"{self.path} is being trained by {error}, says {self.lock}: wait until it has ended, stop it, or "
                    "choose another out="
                ) from error
            yield

    def _holds_more_than_a_killed_start(self) -> bool:
        begun = {self.provenance, self.checkpoints, self.initial, self.lock}
        return any(
            path not in begun and not any(path.match(f".{file.name}.*.tmp") for file in (*begun, self.config))
            for path in self.path.rglob("*")
        )

    def remove_leftovers(self) -> None:
        """Delete what a killed writer left; only for the process that is about to write here."""
        for folder in (self.path, self.checkpoints):
            remove_leftovers(folder)

    def read_config(self) -> dict[str, Any]:
        """Return the configuration of an existing run.

        Raises:
            RunNotFoundError: there is no run in this folder.
            RunFolderError: its configuration is damaged.
        """
        if not self.config.is_file():
            raise RunNotFoundError(
                f"{self.path} holds no run (no config.yaml): check the path, or start one with train"
            )
        with reading(self.config, remedy="restore it", kind=RunFolderError):
            config = yaml.safe_load(check_aliases(self.config.read_text()))
        kinds = {"model": str, "model_options": dict, "data": str, "data_options": dict, "training": dict}
        mapping: dict[str, Any] = config if isinstance(config, dict) else {}
        wrong = [name for name, kind in kinds.items() if not isinstance(mapping.get(name), kind)]
        if wrong:
            raise RunFolderError(
                f"{self.config} is not a framecast configuration: {', '.join(wrong)} is missing or of another type"
            )
        return mapping

    def read_provenance(self) -> dict[str, Any]:
        """Return what the run was started with: fingerprint of the data, versions by library, machine.

        Raises:
            RunFolderError: it is missing or damaged.
        """
        with reading(self.provenance, remedy="restore it", kind=RunFolderError):
            facts: dict[str, Any] = json.loads(self.provenance.read_text())
            if not isinstance(facts["fingerprint"], str) or not isinstance(facts.get("versions", {}), dict):
                raise TypeError("fingerprint or versions is of another type")
        return facts

    def checkpoint(self, batches: int) -> Path:
        """Return the path of the training state after so many batches."""
        return self.checkpoints / f"batch-{batches:09d}.ckpt"

    def saved_checkpoints(self) -> list[Path]:
        """Return the training states that are there, newest first."""
        return sorted(self.checkpoints.glob("batch-*.ckpt"), reverse=True)

    def forget_old_checkpoints(self) -> None:
        """Delete all training states but the last two, and with two the initial weights."""
        states = self.saved_checkpoints()
        for path in states[KEPT_CHECKPOINTS:]:
            path.unlink(missing_ok=True)
        for piece in self.checkpoints.glob("batch-*.ckpt.*"):
            if not piece.with_suffix("").exists():
                piece.unlink(missing_ok=True)
        if len(states) >= KEPT_CHECKPOINTS:
            self.initial.unlink(missing_ok=True)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            versions[library] = "unknown"
    return versions
