"""Training states on disk: checksummed, written atomically, the newest whole one found again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from framecast.boundary import check_stored, reading
from framecast.errors import WeightsError
from framecast.storage import read_checked, write_checked
from framecast.training.run_folder import RunFolder

KIND = "checkpoint"


class CheckedCheckpoints(CheckpointIO):
    """Training states with a checksum, written atomically and read without running code from them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a training state."""
        del storage_options
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_checked(Path(path), KIND, content.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a training state.

        Raises:
            WeightsError: it is missing or damaged.
        """
        del weights_only
        content = io.BytesIO(read_checked(Path(path), KIND))
        with reading(path, remedy="use the previous one", kind=WeightsError):
            check_stored(content)
            return torch.load(content, map_location=map_location or "cpu", weights_only=True)  # type: ignore[no-any-return]

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a training state."""
        Path(path).unlink(missing_ok=True)


def newest_checkpoint(folder: RunFolder) -> tuple[Path, list[str]]:
    """Return the newest training state that is whole, or else the initial weights, and what was wrong with newer ones.

    Raises:
        WeightsError: there is neither.
    """
    problems: list[str] = []
    for path in folder.saved_checkpoints():
        try:
            read_checked(path, KIND)
        except WeightsError as error:
            problems.append(str(error))
        else:
            return path, problems
    if folder.initial.is_file():
        return folder.initial, problems
    detail = ": " + "; ".join(problems) if problems else ""
    raise WeightsError(f"{folder.checkpoints} holds no training state to resume from{detail}")
