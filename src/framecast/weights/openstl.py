"""The naming scheme of SimVP's own repository and of OpenSTL, which share most names.

Either source may hold IncepU with transposed convolutions (SimVP's own form), IncepU with pixel shuffle, or
gSTA (OpenSTL's forms). The tensors tell all but what matters in training only, so a config is optional; where
it speaks of what the tensors tell, both must agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from framecast.errors import UnknownNameError, WeightsError
from framecast.registry import ModelEntry
from framecast.weights.importing import Translation

Rules = dict[str, str]

FRAME: Rules = {
    r"enc\.enc\.(\d+)\.conv\.(conv|norm)\.": r"encoder.\1.\2.",
    r"dec\.dec\.(\d+)\.conv\.(conv|norm)\.(?:0\.)?": r"decoder.\1.\2.",
    r"dec\.readout\.": "head.",
}
# The decoding half of IncepU is renamed to continue the encoding half first.
INCEP_U: Rules = {
    r"hid\.enc\.(\d+)\.conv1\.": r"translator.\1.squeeze.",
    r"hid\.enc\.(\d+)\.layers\.(\d+)\.conv\.": r"translator.\1.branches.\2.0.",
    r"hid\.enc\.(\d+)\.layers\.(\d+)\.norm\.": r"translator.\1.branches.\2.1.",
}
GSTA: Rules = {
    r"hid\.enc\.(\d+)\.block\.(norm[12])\.": r"translator.\1.\2.",
    r"hid\.enc\.(\d+)\.block\.layer_scale_([12])": r"translator.\1.scale\2",
    r"hid\.enc\.(\d+)\.block\.attn\.proj_1\.": r"translator.\1.enter.",
    r"hid\.enc\.(\d+)\.block\.attn\.spatial_gating_unit\.conv0\.": r"translator.\1.near.",
    r"hid\.enc\.(\d+)\.block\.attn\.spatial_gating_unit\.conv_spatial\.": r"translator.\1.far.",
    r"hid\.enc\.(\d+)\.block\.attn\.spatial_gating_unit\.conv1\.": r"translator.\1.gate.",
    r"hid\.enc\.(\d+)\.block\.attn\.proj_2\.": r"translator.\1.leave.",
    r"hid\.enc\.(\d+)\.block\.mlp\.fc1\.": r"translator.\1.expand.",
    r"hid\.enc\.(\d+)\.block\.mlp\.dwconv\.dwconv\.": r"translator.\1.spread.",
    r"hid\.enc\.(\d+)\.block\.mlp\.fc2\.": r"translator.\1.shrink.",
    r"hid\.enc\.(\d+)\.reduction\.": r"translator.\1.reduction.",
}
TRANSLATORS = {"simvp": ("IncepU", INCEP_U), "simvp-v2": ("gSTA", GSTA)}
ONLY_IN_CONFIG = ("drop", "drop_path", "mlp_ratio")  # of gSTA; the ratio cannot always be told from rounded widths
ARGUMENTS = (
    *("shape_in", "in_shape", "hid_S", "hid_T", "N_S", "N_T", "model_type", "incep_ker", "groups"),
    *("spatio_kernel_enc", "spatio_kernel_dec", "act_inplace", *ONLY_IN_CONFIG),
)


def translate(entry: ModelEntry, tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None) -> Translation:
    """Turn a released state dict into options and tensors of ours.

    Args:
        entry: "simvp" or "simvp-v2".
        tensors: by the released names, with or without Lightning's prefix "model.".
        config: keyword arguments of the released constructor, or None.

    Raises:
        UnknownNameError: the model is not one of these sources, or the config holds an unknown argument.
        WeightsError: a tensor is missing or unknown, or the config contradicts the tensors.
    """
    if entry.name not in TRANSLATORS:
        raise UnknownNameError("model of sources 'simvp' and 'openstl'", entry.name, TRANSLATORS)
    kind, rules = TRANSLATORS[entry.name]
    tensors = {key.removeprefix("model."): tensor for key, tensor in tensors.items()}
    translated = _renamed(tensors, FRAME | rules, entry.title)
    try:
        options = _frame(translated) | (_incep_u(translated) if kind == "IncepU" else _gsta(translated))
    except KeyError as error:
        raise WeightsError(f"the released weights lack what becomes {error}: check the model's name") from error
    options["context"] = options["horizon"] = options.pop("outer") // options["hid_S"]
    if kind == "IncepU":
        shuffled = any(re.match(r"dec\.dec\.\d+\.conv\.conv\.0\.", key) for key in tensors)
        options["form"] = "openstl" if shuffled else "official"
    return Translation(options | _configured(kind, options, config or {}), translated, [])


def _renamed(tensors: Mapping[str, Tensor], rules: Rules, title: str) -> dict[str, Tensor]:
    first_half = _count(tensors, "hid.enc.")
    renamed: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = re.sub(r"^hid\.dec\.(\d+)", lambda match: f"hid.enc.{first_half + int(match[1])}", key)
        matches = [re.sub(pattern, new, name, count=1) for pattern, new in rules.items() if re.match(pattern, name)]
        if not matches:
            raise WeightsError(f"the released weights hold {key!r}, which {title} does not know: check its name")
        renamed[matches[0]] = tensor
    return renamed


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """Return how many numbers follow the prefix in the names."""
    return len({key[len(prefix) :].split(".")[0] for key in tensors if key.startswith(prefix)})


def _frame(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    hidden, channels, _, kernel = tensors["encoder.0.conv.weight"].shape
    return {
        "in_channels": channels,
        "out_channels": tensors["head.weight"].shape[0],
        "hid_S": hidden,
        "N_S": _count(tensors, "encoder."),
        "spatio_kernel_enc": kernel,
        "spatio_kernel_dec": tensors["decoder.0.conv.weight"].shape[-1],
    }


def _incep_u(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    inner, outer = tensors["translator.0.squeeze.weight"].shape[:2]
    branches = _count(tensors, "translator.0.branches.")
    kernels = [tensors[f"translator.0.branches.{branch}.0.weight"] for branch in range(branches)]
    return {
        "outer": outer,
        "hid_T": 2 * inner,
        "N_T": _count(tensors, "translator.") // 2,
        "groups": inner // kernels[0].shape[1],
        "incep_ker": [kernel.shape[-1] for kernel in kernels],
    }


def _gsta(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    wide, outer = tensors["translator.0.expand.weight"].shape[:2]
    return {
        "outer": outer,
        "hid_T": tensors["translator.1.norm1.weight"].shape[0],
        "N_T": _count(tensors, "translator."),
        "mlp_ratio": wide / outer,
    }


def _configured(kind: str, options: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that only the config knows, after comparing the others."""
    settings = dict(config)
    for name in settings:
        if name not in ARGUMENTS:
            raise UnknownNameError("argument of the released constructor", name, ARGUMENTS)
    for shape in ("shape_in", "in_shape"):
        if shape in settings:
            settings["context"], settings["in_channels"] = settings[shape][:2]
    if (named := str(settings.get("model_type", kind))).lower() != kind.lower():
        raise WeightsError(f"the config says model_type={named!r} and the model has {kind}: check its name")
    if options.get("groups") == 1:
        settings.pop("groups", None)  # the released block replaces groups that do not divide the channels by 1
    for name in settings.keys() & options.keys() - set(ONLY_IN_CONFIG):
        setting, option = settings[name], options[name]
        if (list(setting) if isinstance(option, list) else setting) != option:
            raise WeightsError(
                f"the config says {name}={setting} and the tensors {option}: use the config they came with"
            )
    return {name: settings[name] for name in ONLY_IN_CONFIG if name in settings and kind == "gSTA"}
