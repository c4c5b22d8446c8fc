"""Save and load a forecaster: one safetensors file with all it takes to forecast again.

The header holds, as JSON, the model's name and options, the clips it was trained on (size, lengths, unit,
scaling) and a SHA-256 over all of it, tensors included. Any safetensors reader can open the file. Trained weights that
come with the package are run folders without logs, each with a model card.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from framecast.data.clips import spec_from_dict
from framecast.errors import OptionError, UnknownNameError, WeightsError
from framecast.files import write_atomically
from framecast.models.forecaster import Forecaster, create_model
from framecast.registry import ModelSpec, model_entry
from framecast.untrusted import reading


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and lasting buffers by name; one that several modules share appears once."""
    lasting = model.state_dict(keep_vars=True)
    visited: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in lasting.items():
        if id(tensor) not in visited:
            visited.add(id(tensor))
            tensors[name] = tensor
    return tensors


def fit_tensors(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy tensors into the model of the same names and shapes, changing nothing where they do not fit.

    Args:
        model: the model to fill.
        tensors: by the names of ``named_tensors``.
        where: what the error calls the source, usually a path.

    Raises:
        WeightsError: a tensor is missing, unknown or of another shape; the message names the first.
    """
    check_fit(model, tensors, where)
    with torch.no_grad():
        for name, tensor in named_tensors(model).items():
            tensor.copy_(tensors[name])


def check_fit(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Compare names and shapes, also with a model on the device "meta", which takes no memory.

    Raises:
        WeightsError: a tensor is missing, unknown or of another shape; the message names the first.
    """
    parameters = named_tensors(model)
    missing = [name for name in parameters if name not in tensors]
    unknown = [name for name in tensors if name not in parameters]
    if missing or unknown:
        parts = [f"{len(missing)} missing, first {missing[0]!r}"] if missing else []
        parts += [f"{len(unknown)} unknown, first {unknown[0]!r}"] if unknown else []
        raise WeightsError(f"{where} does not fit the model: tensors {'; '.join(parts)}: check its name and options")
    for name, tensor in parameters.items():
        if tensor.shape != tensors[name].shape:
            raise WeightsError(
                f"{where} does not fit the model: {name!r} is {tuple(tensors[name].shape)} in the file and "
                f"{tuple(tensor.shape)} in the model: create the model with the options it was trained with"
            )


FORMAT = "1"
# Of the weights, while they are packed.
COPIES = 3
MOST_OPTION = 1024


def save_weights(model: Forecaster, path: str | Path, *, clips: Mapping[str, Any] | None = None, **facts: Any) -> None:
    """Save a forecaster's weights, name and options as safetensors.

    Args:
        model: a forecaster that ``create_model`` made.
        path: the file to write; an existing one is replaced in one step.
        clips: ``ClipSpec.to_dict()`` of the clips it was trained on, so that forecasts come in physical units.
        facts: anything else worth knowing, as plain values.

    Raises:
        ValueError: the model was not made by ``create_model``, so its name is unknown.
        OSError: the disk is full or read-only; an older file stays intact.
    """
    if model.spec is None:
        raise OptionError(
            "this model has no name: register it and make it with create_model, so it can be loaded again"
        )
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in named_tensors(model).items()}
    header = {"model": model.spec.name, "options": model.spec.options, "clips": clips, "facts": facts}
    text = json.dumps(header, sort_keys=True)
    # One key only: safetensors writes several in random order, and equal weights shall be equal files.
    envelope = {"format": FORMAT, "header": text, "sha256": _digest(text, tensors)}
    write_atomically(Path(path), _packed(tensors, {"framecast": json.dumps(envelope, sort_keys=True)}))


def _packed(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    """Return tensors as safetensors.

    Raises:
        MemoryError: there is no room for them.
    """
    # The library panics without memory, past all handlers of errors, so the room for its copies is asked for before.
    np.empty(COPIES * sum(tensor.nbytes for tensor in tensors.values()), np.uint8)
    return save(dict(tensors), metadata)


def load_weights(path: str | Path) -> tuple[Forecaster, dict[str, Any]]:
    """Load a forecaster in evaluation mode, and its header: model, options, clips, facts.

    Raises:
        WeightsError: the file is missing, damaged, not one of ours, or does not fit the model it names.
    """
    header, tensors = read_weights(path)
    try:
        model_entry(header["model"])
    except UnknownNameError as error:
        raise WeightsError(f"{path} holds another model: {error}") from error
    with reading(path, "names a model that cannot be made", "fetch it again, or update framecast", WeightsError):
        _check_options(header, tensors, path)
        clips = spec_from_dict(header["clips"]) if header["clips"] else None
        with torch.device("meta"):
            check_fit(create_model(header["model"], **header["options"]), tensors, str(path))
        model = create_model(header["model"], **header["options"])
    fit_tensors(model, tensors, str(path))
    model.spec, model.clips = ModelSpec(header["model"], header["options"]), clips
    return model.eval(), header


def read_weights(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return header and tensors of a weights file, verified.

    Raises:
        WeightsError: the file is missing, damaged or not one of ours.
    """
    if not Path(path).is_file():
        raise WeightsError(f"there is no weights file {path}: check the path")
    with (
        reading(path, "is damaged or not a safetensors file", "fetch it again", WeightsError),
        safe_open(path, "pt") as file,
    ):
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    envelope = _envelope(path, metadata)
    digest = _digest(envelope["header"], tensors)
    if digest != envelope["sha256"]:
        raise WeightsError(
            f"{path} is damaged: its content has sha256 {digest} and should have {envelope['sha256']}: fetch it again"
        )
    with reading(path, "has a damaged header", "fetch it again", WeightsError):
        return dict(json.loads(envelope["header"])), tensors


def _check_options(header: Mapping[str, Any], tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse options with larger numbers than any model of these tensors can have: making it may never end."""
    # An empty tensor may have any length and proves nothing.
    largest = max([MOST_OPTION, *(length for tensor in tensors.values() if tensor.numel() for length in tensor.shape)])
    for name, value in header["options"].items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int) and number > largest:
                raise WeightsError(f"{path} declares {name} = {value} and has no such tensor: do not use the file")


def _envelope(path: str | Path, metadata: Mapping[str, str]) -> dict[str, str]:
    try:
        envelope = json.loads(metadata.get("framecast", "{}"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged: its header is not JSON: fetch it again") from error
    if (
        not isinstance(envelope, dict)
        or envelope.get("format") != FORMAT
        or not all(isinstance(envelope.get(part), str) for part in ("header", "sha256"))
    ):
        raise WeightsError(
            f"{path} is not a framecast weights file of format {FORMAT}: for a published checkpoint use import_weights"
        )
    return envelope


def _digest(header: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
