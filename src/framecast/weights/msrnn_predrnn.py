"""Rules of ``msrnn.py`` for TrajGRU, PredRNN and its heirs PredRNN-V2, PredRNN++, MIM and MotionRNN."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from framecast.weights.msrnn import Released

MEMORY_IN_MEMORY = (
    "_conv_x2h_n",
    "_conv_n2h_n",
    "_conv_diff2o",
    "_conv_n2o",
    "_conv_x2h_s",
    "_conv_c2h_s",
    "_conv_s2o",
)
MOTION = {
    "encode": "_conv_enc",
    "candidate": "_conv_z",
    "mask": "_conv_hm",
    "decode": "_conv_dec",
    "enlarge": "_deconv_dec",
    "fuse": "_conv_g",
}


def trajgru_rule(released: Released, layer: int, depth: int) -> dict[str, Tensor]:
    """Return our tensors of one layer; W_q takes the warped maps channel by channel, not link by link."""
    del layer, depth
    project, bias = released.take("project.weight"), released.take("project.bias")
    channels = bias.shape[0] // 3
    added, own = bias[: 2 * channels], bias[2 * channels :]
    inputs = released.bias("_conv_x2h")
    return {
        **released.conv("features", "_conv_x2f", "_conv_h2f"),
        **released.conv("flow", "_conv_flow"),
        "gates.weight": released.kernel("_conv_x2h"),
        "gates.bias": torch.cat([inputs[: 2 * channels] + added, inputs[2 * channels :]]),
        "project.weight": project.reshape(3 * channels, -1, channels).mT.reshape(project.shape),
        "candidate_bias": own[:, None, None],
    }


def links(released: Released) -> dict[str, int]:
    """Return TrajGRU's option that its tensors determine."""
    return {"links": released.take("_conv_flow.bias").shape[0] // 2}


def predrnn_rule(released: Released, layer: int, depth: int) -> dict[str, Tensor]:
    """Return our tensors of one layer."""
    del layer, depth
    return {
        **released.conv("gates", "_conv_x2h", "_conv_h2h"),
        "gates.bias": _with_output_bias(
            released.bias("_conv_x2h", "_conv_h2h"), released.bias("_conv_c2o", "_conv_m2o")
        ),
        "output.weight": released.kernel("_conv_c2o", "_conv_m2o"),
        **released.conv("zigzag", "_conv_x2h_m", "_conv_m2h_m"),
        **released.conv("project", "_conv_c_m"),
    }


def predrnn_v2(released: Released, layer: int, depth: int) -> dict[str, Tensor]:
    """Return our tensors of one layer, the adapter of all with the first."""
    shared = released.model().conv("adapter", "rnns.adapter") if layer == 0 else {}
    return predrnn_rule(released, layer, depth) | shared


def predrnnpp_rule(released: Released, layer: int, depth: int) -> dict[str, Tensor]:
    """Return our tensors of one layer; only the second has a highway that is used."""
    del depth
    names = {"gates": "_conv_x_h_c", "zigzag": "_conv_x_c_m", "zigzag_project": "_conv_m"}
    names |= {"output": "_conv_o", "project": "_conv_c_m"}
    cell: dict[str, Tensor] = {}
    for ours, theirs in names.items():
        cell |= released.conv(f"cell.{ours}" if layer == 1 else ours, theirs)
    if layer == 1:
        return cell | released.conv("highway", "_conv_x", "_conv_z")
    released.drop(*_tensors("_conv_x", "_conv_z"))
    return cell


def mim_rule(released: Released, layer: int, depth: int) -> dict[str, Tensor]:
    """Return our tensors of one layer: a PredRNN layer first, and no forget gate above it."""
    tensors = predrnn_rule(released, layer, depth)
    if layer == 0:
        released.drop(*_tensors(*MEMORY_IN_MEMORY))
        return tensors
    for name in ("gates.weight", "gates.bias"):
        i, _, g, o = tensors[name].chunk(4)
        tensors[name] = torch.cat([i, g, o])
    released.unused += [f"{released.prefix}{name}[forget gate]" for name in _tensors("_conv_x2h", "_conv_h2h")]
    return {
        **tensors,
        **released.conv("change", "_conv_x2h_n", "_conv_n2h_n"),
        **released.conv("change_output", "_conv_diff2o", "_conv_n2o"),
        **released.conv("steady", "_conv_x2h_s", "_conv_c2h_s"),
        "steady.bias": _with_output_bias(released.bias("_conv_x2h_s", "_conv_c2h_s"), released.bias("_conv_s2o")),
        "steady_output.weight": released.kernel("_conv_s2o"),
    }


def motionrnn_rule(released: Released, layer: int, depth: int) -> dict[str, Tensor]:
    """Return our tensors of one layer: MIM's, with motion behind all but the last."""
    inner = mim_rule(released, layer, depth)
    if layer == depth - 1:
        released.drop(*_tensors(*MOTION.values(), "_conv_u", "_conv_r"))
        return inner
    tensors = {f"layer.{name}": tensor for name, tensor in inner.items()}
    for ours, theirs in MOTION.items():
        tensors |= released.conv(f"motion.{ours}", theirs)
    for kind in ("weight", "bias"):
        gates = [released.take(f"{gate}.{kind}") for gate in ("_conv_u", "_conv_r")]
        tensors[f"motion.gates.{kind}"] = torch.cat(gates)
    return tensors


def _with_output_bias(gates: Tensor, output: Tensor) -> Tensor:
    """Add the biases of the memories' convolutions to those of the output gate, the last ones."""
    rest = gates.shape[0] - output.shape[0]
    return torch.cat([gates[:rest], gates[rest:] + output])


def _tensors(*convs: str) -> list[str]:
    return [f"{conv}.{kind}" for conv in convs for kind in ("weight", "bias")]
