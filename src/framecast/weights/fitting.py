"""Putting named tensors into a model, or saying exactly why they do not fit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from framecast.errors import WeightsError


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and lasting buffers by name; one that several modules share appears once."""
    lasting = model.state_dict(keep_vars=True)
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in lasting.items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
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
    own = named_tensors(model)
    missing = [name for name in own if name not in tensors]
    unknown = [name for name in tensors if name not in own]
    if missing or unknown:
        parts = [f"{len(missing)} missing, first {missing[0]!r}"] if missing else []
        parts += [f"{len(unknown)} unknown, first {unknown[0]!r}"] if unknown else []
        raise WeightsError(f"{where} does not fit the model: tensors {'; '.join(parts)}: check its name and options")
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise WeightsError(
                f"{where} does not fit the model: {name!r} is {tuple(tensors[name].shape)} in the file and "
                f"{tuple(tensor.shape)} in the model: create the model with the options it was trained with"
            )
