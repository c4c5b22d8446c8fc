"""The naming scheme of the released Earthformer, the class ``CuboidTransformerModel``.

Each of our tensors is rows of released ones, one below the other: projections of one input are one matrix, and
rows without effect (queries that nobody uses, biases of offsets that never occur) are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from framecast.errors import OptionError, UnknownNameError, WeightsError
from framecast.models.earthformer.attention import CuboidCrossAttention, CuboidSelfAttention, RelativeBias
from framecast.models.earthformer.blocks import FeedForward
from framecast.models.earthformer.model import build_earthformer
from framecast.registry import ModelEntry
from framecast.weights.importing import Translation
from framecast.weights.saving import named_tensors

Rows = list[tuple[str, Iterable[int] | None]]

DEFAULTS: dict[str, Any] = {
    "input_shape": None,
    "target_shape": None,
    "base_units": 128,
    "block_units": None,
    "scale_alpha": 1.0,
    "num_heads": 4,
    "attn_drop": 0.0,
    "proj_drop": 0.0,
    "ffn_drop": 0.0,
    "downsample": 2,
    "downsample_type": "patch_merge",
    "upsample_type": "upsample",
    "upsample_kernel_size": 3,
    "enc_depth": (4, 4, 4),
    "enc_attn_patterns": None,
    "enc_use_inter_ffn": True,
    "dec_depth": (2, 2),
    "dec_cross_start": 0,
    "dec_self_attn_patterns": None,
    "dec_cross_attn_patterns": None,
    "dec_cross_last_n_frames": None,
    "dec_use_inter_ffn": True,
    "dec_hierarchical_pos_embed": False,
    "dec_use_first_self_attn": False,
    "num_global_vectors": 4,
    "use_dec_self_global": True,
    "dec_self_update_global": True,
    "use_dec_cross_global": True,
    "use_global_vector_ffn": True,
    "use_global_self_attn": False,
    "separate_global_qkv": False,
    "global_dim_ratio": 1,
    "z_init_method": "nearest_interp",
    "initial_downsample_type": "conv",
    "initial_downsample_activation": "leaky",
    "initial_downsample_scale": 1,
    "initial_downsample_conv_layers": 2,
    "final_upsample_conv_layers": 2,
    "initial_downsample_stack_conv_num_layers": 1,
    "initial_downsample_stack_conv_dim_list": None,
    "initial_downsample_stack_conv_downscale_list": (1,),
    "initial_downsample_stack_conv_num_conv_list": (2,),
    "ffn_activation": "leaky",
    "gated_ffn": False,
    "norm_layer": "layer_norm",
    "padding_type": "ignore",
    "pos_embed_type": "t+hw",
    "use_relative_pos": True,
    "self_attn_use_final_proj": True,
}
# Only their defaults are supported.
FIXED = (
    *("block_units", "scale_alpha", "downsample", "downsample_type", "upsample_type", "upsample_kernel_size"),
    *("dec_cross_start", "dec_cross_last_n_frames", "global_dim_ratio", "initial_downsample_activation"),
    *("norm_layer", "use_relative_pos", "self_attn_use_final_proj"),
)
# They change nothing in a trained model whose patterns have names.
IGNORED = re.compile(r"checkpoint_level|\w+_init_mode|(enc|dec)\w*_(cuboid_\w+|shift_\w+|n_temporal)")
OPTIONS = {
    "base_units": "base_units",
    "num_heads": "heads",
    "attn_drop": "attention_dropout",
    "proj_drop": "projection_dropout",
    "ffn_drop": "ffn_dropout",
    "enc_depth": "encoder_depths",
    "dec_depth": "decoder_depths",
    "enc_attn_patterns": "encoder_patterns",
    "dec_self_attn_patterns": "decoder_patterns",
    "dec_cross_attn_patterns": "cross_patterns",
    "enc_use_inter_ffn": "inter_ffn",
    "dec_hierarchical_pos_embed": "decoder_positions",
    "dec_use_first_self_attn": "first_self_attention",
    "ffn_activation": "activation",
    "gated_ffn": "gated",
    "padding_type": "padding",
    "pos_embed_type": "positions",
}
VECTOR_OPTIONS = {
    "num_global_vectors": "vectors",
    "use_dec_cross_global": "cross_vectors",
    "separate_global_qkv": "separate_vectors",
    "use_global_self_attn": "vector_self_attention",
    "use_global_vector_ffn": "vector_ffn",
}
QUERIES = {"zeros": "positions", "last": "last", "mean": "mean", "nearest_interp": "nearest"}
ENTRIES = ("conv", "stack_conv")

NAMES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"^vectors$", "init_global_vectors"),
    (r"^head\.", "dec_final_proj."),
    (r"^query\.", "z_proj."),
    (r"^queries\.", "dec_pos_embed."),
    (r"^positions\.", "enc_pos_embed."),
    (r"^entry\.(\d+)\.convs", r"initial_encoder.conv_block_list.\1"),
    (r"^entry\.(\d+)\.merge", r"initial_encoder.patch_merge_list.\1"),
    (r"^exit\.(\d+)\.convs", r"final_decoder.conv_block_list.\1"),
    (r"^exit\.(\d+)\.up", r"final_decoder.upsample_list.\1"),
    (r"^encoder\.(\d+)\.blocks", r"encoder.blocks.\1"),
    (r"^encoder\.(\d+)\.merge", lambda match: f"encoder.down_layers.{int(match[1]) - 1}"),
    (r"^encoder\.(\d+)\.vector_merge", lambda match: f"encoder.down_layer_global_proj.{int(match[1]) - 1}"),
    (r"^decoder\.(\d+)\.selves", r"decoder.self_blocks.\1"),
    (r"^decoder\.(\d+)\.crosses", r"decoder.cross_blocks.\1"),
    (r"^decoder\.(\d+)\.up", r"decoder.upsample_layers.\1"),
    (r"^decoder\.(\d+)\.positions", r"decoder.hierarchical_pos_embed_l.\1"),
    (r"\.attentions\.", ".attn_l."),
    (r"\.vector_ffns\.", ".global_ffn_l."),
    (r"\.ffns\.", ".ffn_l."),
    (r"(ffn_l\.\d+)\.norm\.", r"\1.layer_norm."),
    (r"\.expand\.", ".ffn_1."),
    (r"\.contract\.", ".ffn_2."),
    (r"\.reduce\.", ".reduction."),
    (r"\.to_tokens\.", ".proj."),
    (r"\.to_vectors\.", ".global_proj."),
    (r"\.vector_norm\.", ".global_vec_norm."),
    (r"\.bias\.table$", ".relative_position_bias_table"),
    (r"\.times$", ".T_embed.weight"),
]
# What a released model may hold without using it; ours holds it where it is used.
DEAD = re.compile(
    r"(initial_encoder|final_decoder)\.conv_block.*\.bias|dec_pos_embed\..*|.*\.global_ffn_l\..*"
    r"|.*\.(global_proj|g2l_\w+|g2g_\w+)\.\w+|.*\.attn_l\.\d+\.(norm\.\w+|q_proj\.weight|relative_position_bias_table)"
)


def translate(entry: ModelEntry, tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None) -> Translation:
    """Turn a released state dict and the keyword arguments of its model into options and tensors of ours.

    Raises:
        UnknownNameError: the model is not Earthformer, or the released constructor has no such argument.
        ValueError: ``config`` is missing, or an argument has a value that is not supported.
        WeightsError: a tensor is missing or too small, or neither used nor known to be without effect.
    """
    if entry.name != "earthformer":
        raise UnknownNameError("model of source 'earthformer'", entry.name, ["earthformer"])
    if config is None:
        raise OptionError("source 'earthformer' needs config, the keyword arguments of CuboidTransformerModel")
    options = _options(config)
    model = build_earthformer(**options)
    modules = dict(model.named_modules())
    translated: dict[str, Tensor] = {}
    used_rows: dict[str, set[int]] = {}
    for name, parameter in named_tensors(model).items():
        parts = []
        for key, rows in _sources(name, modules, options):
            if key not in tensors:
                raise WeightsError(f"the released weights lack {key!r}: check config")
            tensor = tensors[key]
            chosen = list(range(len(tensor)) if rows is None else rows)
            if max(chosen) >= len(tensor):
                raise WeightsError(f"{key!r} has {len(tensor)} rows and config asks for {max(chosen) + 1}")
            used_rows.setdefault(key, set()).update(chosen)
            parts.append(tensor[chosen])
        joined = torch.cat(parts)
        # Position tables differ in their dimensions only; other shapes are checked when they are fitted.
        translated[name] = joined.reshape(parameter.shape) if joined.numel() == parameter.numel() else joined
    return Translation(options, translated, _unused(tensors, used_rows))


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return our options from the arguments of the released constructor."""
    for key in config:
        if key not in DEFAULTS and not IGNORED.fullmatch(key):
            raise UnknownNameError("argument of CuboidTransformerModel", key, DEFAULTS)
    settings = {**DEFAULTS, **config}
    for key in FIXED:
        _check(key, settings[key], [DEFAULTS[key]])
    _check("z_init_method", settings["z_init_method"], list(QUERIES))
    _check("initial_downsample_type", settings["initial_downsample_type"], list(ENTRIES))
    _check("dec_use_inter_ffn", settings["dec_use_inter_ffn"], [settings["enc_use_inter_ffn"]])
    for key in ("enc_attn_patterns", "dec_self_attn_patterns", "dec_cross_attn_patterns"):
        if settings[key] is None:
            raise OptionError(f"{key} is None and only patterns with a name are supported, such as 'axial'")
    context, *size, in_channels = settings["input_shape"]
    horizon, *_, out_channels = settings["target_shape"]
    options = {"context": context, "horizon": horizon, "size": size}
    options |= {"in_channels": in_channels, "out_channels": out_channels}
    options |= {option: settings[key] for key, option in OPTIONS.items()}
    options["queries"] = QUERIES[settings["z_init_method"]]
    if settings["num_global_vectors"]:
        options |= {option: settings[key] for key, option in VECTOR_OPTIONS.items()}
        update = "update" if settings["dec_self_update_global"] else "read"
        options["decoder_vectors"] = update if settings["use_dec_self_global"] else "none"
    if settings["initial_downsample_type"] == "conv":
        scale = settings["initial_downsample_scale"]
        if not isinstance(scale, int):
            raise OptionError(f"initial_downsample_scale is {scale!r} and only one number is supported")
        options |= {"entry_scale": scale, "entry_convs": settings["initial_downsample_conv_layers"]}
        return options | {"exit_convs": settings["final_upsample_conv_layers"]}
    stack = "initial_downsample_stack_conv_"
    units = settings[stack + "dim_list"] or [settings["base_units"]] * settings[stack + "num_layers"]
    scales, convs = settings[stack + "downscale_list"], settings[stack + "num_conv_list"]
    return options | {"entry_stages": list(zip(units, scales, convs, strict=True))}


def _check(key: str, value: object, supported: list[Any]) -> None:
    if value not in supported:
        raise OptionError(f"{key} is {value!r} and only {' or '.join(map(repr, supported))} is supported")


def _sources(name: str, modules: dict[str, nn.Module], options: Mapping[str, Any]) -> Rows:
    """Return the released tensors, and of each the rows (None: all), that one below the other are ours."""
    key = name
    for pattern, released in NAMES:
        key = re.sub(pattern, released, key)
    if "entry_stages" not in options:
        key = re.sub(r"^(initial_encoder|final_decoder)(\.\w+)_list\.0", r"\1\2", key)
    tables = ("HW",) if options["positions"] == "t+hw" else ("H", "W")
    key = re.sub(r"\.places\.(\d)$", lambda match: f".{tables[int(match[1])]}_embed.weight", key)
    parent, _, last = name.rpartition(".")
    if last == "table":
        bias = modules[parent]
        assert isinstance(bias, RelativeBias)
        return [(key, bias.entries.tolist())]
    owner, _, part = parent.rpartition(".")
    layer, prefix = modules.get(owner), key.rpartition(".")[0].rpartition(".")[0]
    if isinstance(layer, FeedForward) and layer.gated and part == "expand":
        return [(key.replace("ffn_1", "ffn_1_gate"), None), (key, None)]
    if part.startswith("from_") and isinstance(layer, CuboidSelfAttention | CuboidCrossAttention):
        rows = _self_rows(layer) if isinstance(layer, CuboidSelfAttention) else _cross_rows(layer)
        return [(f"{prefix}.{net}.weight", chosen) for net, chosen in rows[part]]
    return [(key, None)]


def _self_rows(layer: CuboidSelfAttention) -> dict[str, Rows]:
    units = layer.norm.normalized_shape[0]
    tokens: Rows = [("qkv", range(2 * units, 3 * units) if layer.single_token else None)]
    if not hasattr(layer, "from_vectors"):
        return {"from_tokens": tokens}
    if not layer.settings.separate_vectors:
        vectors: Rows = [("global_qkv", range(units, 3 * units))]
        vectors += [("global_qkv", range(units))] if layer.updates else []
        return {"from_tokens": tokens, "from_vectors": vectors}
    tokens, vectors = [*tokens, ("l2g_q_net", None)], [("l2g_global_kv_net", None)]
    if layer.updates:
        tokens += [("g2l_k_net", None), ("g2l_v_net", None)]
        vectors += [("g2l_global_q_net", None)]
        vectors += [("g2g_global_qkv_net", None)] if layer.settings.vector_self_attention else []
    return {"from_tokens": tokens, "from_vectors": vectors}


def _cross_rows(layer: CuboidCrossAttention) -> dict[str, Rows]:
    units = layer.to_tokens.out_features
    separate: Rows = [("l2g_q_net", None)] if hasattr(layer, "from_vectors") else []
    return {
        "from_tokens": [("q_proj", None), *separate],
        "from_memory": [("kv_proj", range(units, 2 * units) if layer.single_token else None)],
        "from_vectors": [("l2g_global_kv_net", None)],
    }


def _unused(tensors: Mapping[str, Tensor], used_rows: Mapping[str, set[int]]) -> list[str]:
    """Return the released tensors, and rows of those in use, that ours do without."""
    unused = []
    for key, tensor in tensors.items():
        unused_rows = sorted(set(range(len(tensor))) - used_rows.get(key, set()))
        if key.endswith(".relative_position_index") or not unused_rows:
            continue
        if key not in used_rows and not DEAD.fullmatch(key):
            raise WeightsError(f"the released weights hold {key!r}, which Earthformer of this config does not know")
        unused.append(f"{key}[{_ranges(unused_rows)}]" if key in used_rows else key)
    return unused


def _ranges(rows: list[int]) -> str:
    """Return rows as slices: "0:3, 7:8"."""
    starts = [row for row in rows if row - 1 not in rows]
    ends = [row + 1 for row in rows if row + 1 not in rows]
    return ", ".join(f"{start}:{end}" for start, end in zip(starts, ends, strict=True))
