"""Import checkpoints of the released models: the same function under our parameter names.

A source is a naming scheme: "ms-rnn" is the code released with MS-LSTM (all recurrent models). Each source
has one module that turns its tensors into a model's options and named tensors.
"""

from __future__ import annotations

import importlib
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from framecast.errors import UnknownNameError, WeightsError
from framecast.models.forecaster import Forecaster, create_model
from framecast.registry import ModelEntry, model_entry
from framecast.untrusted import OURS, check_stored, reading
from framecast.weights.saving import fit_tensors

SOURCES = {
    "ms-rnn": "framecast.weights.msrnn",
    "earthformer": "framecast.weights.earthformer",
    "simvp": "framecast.weights.openstl",
    "openstl": "framecast.weights.openstl",
}


class UnusedWeightsWarning(UserWarning):
    """Tensors of a released checkpoint that its function never uses, left out on import."""


class Translation(NamedTuple):
    """A released checkpoint in our terms.

    Attributes:
        options: the model's options as far as the tensors determine them.
        tensors: by our names.
        unused: the released names that were known to be without effect, and left out.
    """

    options: dict[str, Any]
    tensors: dict[str, Tensor]
    unused: list[str]


def import_weights(
    name: str,
    weights: Mapping[str, Tensor] | str | Path,
    *,
    source: str = "ms-rnn",
    config: Mapping[str, Any] | None = None,
    **options: Any,
) -> Forecaster:
    """Create a forecaster with the weights of a released model.

    Args:
        name: a model's name or alias.
        weights: a state dict, or a safetensors or torch file that holds one (read without running code).
        source: the naming scheme of the tensors.
        config: keyword arguments of the released constructor, for sources whose tensors do not say all.
        options: the model's options; those that the tensors determine may be left out.

    Raises:
        UnknownNameError: no such model, source or option.
        WeightsError: the file cannot be read, a tensor is missing, unknown or of another shape.

    Warns:
        UnusedWeightsWarning: some tensors have no effect in the released model and were left out.
    """
    if source not in SOURCES:
        raise UnknownNameError("source of weights", source, SOURCES)
    where = str(weights) if isinstance(weights, str | Path) else "the state dict"
    entry = model_entry(name)
    translate = importlib.import_module(SOURCES[source]).translate
    tensors = weights if isinstance(weights, Mapping) else read_tensors(Path(weights))
    try:
        with reading(where, "cannot be translated", f"is it of {source}?", WeightsError, (*OURS, UnknownNameError)):
            translation: Translation = translate(entry, _cleaned(tensors), config)
    except WeightsError as error:
        raise error if where in str(error) else WeightsError(f"{where}: {error}") from error
    _report(entry, translation.unused, where)
    model = create_model(name, **{**translation.options, **options})
    fit_tensors(model, translation.tensors, where)
    return model


def _report(entry: ModelEntry, unused: list[str], where: str) -> None:
    if unused:
        warnings.warn(
            f"{where}: {len(unused)} tensors or slices have no effect in {entry.title} and were left out: "
            + ", ".join(unused),
            UnusedWeightsWarning,
            stacklevel=3,
        )


def _cleaned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop the prefix of data-parallel training and what an operation counter left behind."""
    return {
        re.sub(r"^(module\.)+", "", key): tensor
        for key, tensor in tensors.items()
        if not key.endswith(("total_ops", "total_params"))
    }


def read_tensors(path: Path) -> Mapping[str, Tensor]:
    """Read the named tensors of a safetensors or torch file, without running code from it.

    Raises:
        WeightsError: there is no such file, it is damaged, or it holds anything but named tensors.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}: check the path")
    with reading(path, "cannot be read as weights", "it is damaged or holds more than tensors", WeightsError):
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path):
            check_stored(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    content = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(f"{path} holds no state dict: save model.state_dict() with torch.save")
    return content
