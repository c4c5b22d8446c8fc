"""Models: made by name, untrained or trained; their names, or the options of one, in words."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from docstring_parser import parse

from framecast.api.data import load
from framecast.errors import OptionError, UnknownNameError
from framecast.models.forecaster import Forecaster
from framecast.models.forecaster import create_model as untrained_model
from framecast.registry import ALIASES, ModelEntry, list_models, model_entry, paper_name, resolve, shipped_runs


def create_model(name: str, *, pretrained: str | None = None, **options: Any) -> Forecaster:
    """Create a forecaster by name: untrained, with weights drawn from torch's random state, or trained.

    Args:
        name: any of ``list_models(aliases=True)``.
        pretrained: what the weights that come with the package have learned from, such as "moving-mnist"; None leaves
            the model untrained.
        options: the model's options, such as ``in_channels``, ``hidden``, ``layers``, ``kernel``; see
            ``framecast models NAME``. Trained weights have their own, which others may only repeat.

    Raises:
        UnknownNameError: no such model, no such option of it, or no such weights.
        ValueError: an option's value that the model or the weights refuse.
    """
    if pretrained is None:
        return untrained_model(name, **options)
    model_name = paper_name(model_entry(name).name)
    trained = [run.removeprefix(f"{model_name}-") for run in shipped_runs() if run.startswith(f"{model_name}-")]
    if pretrained not in trained:
        raise UnknownNameError(f"trained {model_name}", pretrained, trained)
    model = load(f"{model_name}-{pretrained}")
    own = {option.name: option.default for option in model_entry(name).options().values()}
    own |= model.spec.options if model.spec else {}
    for option, value in options.items():
        if option not in own:
            raise UnknownNameError(f"option of model {model_name}", option, own)
        if value != own[option]:
            raise OptionError(
                f"the weights {model_name}-{pretrained} have {option}={own[option]!r} and got {value!r}: leave it out"
            )
    return model.train()


MEANINGS = {
    "in_channels": "channels of the frames; train takes them from the data",
    "out_channels": "channels of the forecast; None for those of the frames",
    "hidden": "channels of every layer; cost grows with their square",
    "layers": "recurrent layers, one upon another",
    "skip": "'add' the encoder's output to the decoder of the pyramid, or 'none'",
    "pad": "pad frames to a size that the model takes, and crop the forecast",
    "kernel": "side of the kernels of convolutions, in pixels",
    "window": "side of the window that a pixel pays attention to, in pixels",
    "links": "places along the motion that a pixel takes its past from",
    "decoupling": "keep both memories from learning the same, by a penalty",
    "residual": "'extrapolation' to add to rain that moves on as it did, or 'none'",
    "covariates": "channels that come with the frames and are not forecast; train takes it from the data",
    "noise": "numbers drawn for each member of an ensemble, such as 4; 0 for a single forecast",
    "context": "past frames, a fixed number; train takes it from the data",
    "horizon": "frames forecast at once; train takes them from the data",
    "hid_S": "channels of encoder and decoder",
    "N_S": "layers of the encoder, and of the decoder",
    "form": "'official', as SimVP was released, or 'openstl'",
}
"""What the options mean that several models share."""


def models(name: str | None = None) -> str:
    """Say in words which models and trained weights there are, or what options one has.

    Args:
        name: a model's name or alias; None lists all models with their papers.

    Raises:
        UnknownNameError: there is no such model.
    """
    if name is None:
        trained = "\n".join(f"  {run}" for run in shipped_runs())
        listing = "\n".join(_line(entry_name) for entry_name in list_models())
        return f"{listing}\n\ntrained, for predict, evaluate and fc.load:\n{trained}"
    entry = model_entry(name)
    options = entry.options().values()
    heads = [f"  {option.name} = {option.default!r}" for option in options]
    width = min(30, max(map(len, heads), default=0))
    meanings = option_meanings(entry)
    lines = [
        f"{head:<{width}}  {meanings.get(option.name, '')}".rstrip()
        for head, option in zip(heads, options, strict=True)
    ]
    return "\n".join([f"{paper_name(entry.name)}: {entry.title}, {entry.paper}, doi:{entry.doi}", *lines])


def option_meanings(entry: ModelEntry) -> dict[str, str]:
    """Return what a model's options mean, by its builder's docstrings or what options of that name always mean."""
    builders: list[str | Callable[..., Any]] = [entry.build, *([entry.cell.column] if entry.cell else [])]
    documented = {
        parameter.arg_name: (parameter.description or "").partition(";")[0].replace("\n", " ").rstrip(".")
        for builder in builders
        for parameter in parse(inspect.getdoc(resolve(builder)) or "").params
    }
    return {**documented, **{option: text for option, text in MEANINGS.items() if option not in documented}}


def _line(name: str) -> str:
    entry, aliases = model_entry(name), [alias for alias, target in ALIASES.items() if target == name]
    return f"{name:<18} {', '.join(aliases):<9} {entry.title:<16} {entry.paper}, doi:{entry.doi}"
