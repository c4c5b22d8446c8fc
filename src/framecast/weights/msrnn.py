"""The naming scheme of the code released with MS-LSTM: one rule per cell.

A rule says which released tensors make up ours: kernels that act on different inputs are joined along the
input channels, biases that are only ever added become one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from framecast.errors import OptionError, UnknownNameError, WeightsError
from framecast.registry import ModelEntry
from framecast.weights.importing import Translation

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
    added, candidate = bias[: 2 * channels], bias[2 * channels :]
    inputs = released.bias("_conv_x2h")
    return {
        **released.conv("features", "_conv_x2f", "_conv_h2f"),
        **released.conv("flow", "_conv_flow"),
        "gates.weight": released.kernel("_conv_x2h"),
        "gates.bias": torch.cat([inputs[: 2 * channels] + added, inputs[2 * channels :]]),
        "project.weight": project.reshape(3 * channels, -1, channels).mT.reshape(project.shape),
        "candidate_bias": candidate[:, None, None],
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
    for name, source in names.items():
        cell |= released.conv(f"cell.{name}" if layer == 1 else name, source)
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
    for target, source in MOTION.items():
        tensors |= released.conv(f"motion.{target}", source)
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


def preciplstm_rule(released: Released, layer: int, depth: int) -> dict[str, Tensor]:
    """Return the tensors of one PrecipLSTM layer."""
    del layer, depth
    kernel, bias = released.kernel("_conv_x2h", "_conv_h2h"), released.bias("_conv_x2h", "_conv_h2h")
    gates = kernel.shape[0] // 4 * 3
    memories = ("_conv_c2o", "_conv_ms2o", "_conv_mt2o", "_conv_m2o")
    return {
        "tokens.weight": torch.cat([released.take(f"LA.conv{i}.weight") for i in (1, 2, 3)]),
        **released.conv("attended", "_conv_x_x_att"),
        "gates_c.weight": kernel[:gates],
        "gates_c.bias": bias[:gates],
        **released.conv("gates_m", "_conv_x2h_m", "_conv_m2h_m"),
        **released.conv("gates_s", "_conv_x2h_ms", "_conv_ms2h_ms"),
        **released.conv("gates_t", "_conv_x2h_mt", "_conv_mt2h_mt"),
        "output.weight": torch.cat([kernel[gates:], released.kernel(*memories)], 1),
        "output.bias": bias[gates:] + released.bias(*memories),
        **released.conv("project", "c_m_ms_mt"),
    }


def cmslstm_rule(released: Released, layer: int, depth: int) -> dict[str, Tensor]:
    """Return the tensors of one CMS-LSTM layer; a softmax over the keys cannot see their biases."""
    del layer, depth
    stages = [f"SEBlock.stages.{i}" for i in range(3)]
    released.drop(*(f"{stage}.f_key.bias" for stage in stages))

    def stacked(name: str) -> Tensor:
        return torch.cat([released.take(f"{stage}.{name}") for stage in stages])

    return {
        **released.conv("gate_x", "convQ"),
        **released.conv("gate_h", "convR"),
        **released.conv("gates", "_conv_x2h", "_conv_h2h"),
        "query.weight": stacked("f_query.weight"),
        "query.bias": stacked("f_query.bias"),
        "key.weight": stacked("f_key.weight"),
        "value.weight": stacked("f_value.weight"),
        "value.bias": stacked("f_value.bias"),
        **released.conv("merge", "SEBlock.conv_bn"),
        **released.conv("mix", "SEBlock.w_z"),
        **released.conv("update", "SEBlock.w_h2h", "SEBlock.w_z2h"),
    }


def modernn_rule(released: Released, layer: int, depth: int) -> dict[str, Tensor]:
    """Return the tensors of one MoDeRNN layer; what gates x is a function of h, and the reverse."""
    del layer, depth
    tensors = released.conv("gates", "_conv_x2h", "_conv_h2h")
    for name, source in (("gate_x", "H"), ("gate_h", "X")):
        convs = [f"conv{size}{size}_{source}" for size in (3, 5, 7)]
        tensors |= {f"{name}.weight{c[4]}": released.take(f"{c}.weight") for c in convs}
        tensors[f"{name}.bias"] = released.bias(*convs) / len(convs)
    return tensors


class Released:
    """The released tensors of one layer, or of the whole model, that remembers which were used."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, used: set[str], unused: list[str]) -> None:
        self.tensors, self.prefix, self.used, self.unused = tensors, prefix, used, unused

    def take(self, name: str) -> Tensor:
        """Return the tensor of that released name.

        Raises:
            WeightsError: it is missing.
        """
        key = self.prefix + name
        if key not in self.tensors:
            raise WeightsError(f"the released weights lack {key!r}: check the model's name")
        self.used.add(key)
        return self.tensors[key]

    def kernel(self, *convs: str) -> Tensor:
        """Return the kernels of convolutions on different inputs, joined along the input channels."""
        return torch.cat([self.take(f"{conv}.weight") for conv in convs], 1)

    def bias(self, *convs: str) -> Tensor:
        """Return the sum of the biases of convolutions whose results are only ever added."""
        return torch.stack([self.take(f"{conv}.bias") for conv in convs]).sum(0)

    def conv(self, name: str, *convs: str) -> dict[str, Tensor]:
        """Return our convolution of that name: joined kernels, added biases."""
        return {f"{name}.weight": self.kernel(*convs), f"{name}.bias": self.bias(*convs)}

    def model(self) -> Released:
        """Return the tensors of the whole model, where a layer shares one with others."""
        return Released(self.tensors, "", self.used, self.unused)

    def drop(self, *names: str) -> None:
        """Leave out tensors that have no effect, where the checkpoint has them."""
        for name in names:
            if self.prefix + name in self.tensors:
                self.used.add(self.prefix + name)
                self.unused.append(self.prefix + name)


def _convlstm(released: Released, layer: int, depth: int) -> dict[str, Tensor]:
    del layer, depth
    return released.conv("gates", "_conv_x2h", "_conv_h2h")


def _mklstm(released: Released, layer: int, depth: int) -> dict[str, Tensor]:
    del layer, depth
    kernel3, bias3 = (
        released.kernel("_conv_x2h_3", "_conv_h2h_3"),
        released.bias("_conv_x2h_3", "_conv_h2h_3"),
    )
    kernel5, bias5 = (
        released.kernel("_conv_x2h_5", "_conv_h2h_5"),
        released.bias("_conv_x2h_5", "_conv_h2h_5"),
    )
    gates = kernel3.shape[0] // 4 * 3
    bias5 = bias5.clone()
    bias5[gates:] += bias3[gates:] + released.bias("_conv_c2o_3", "_conv_c2o_5")
    return {
        "gates3.weight": kernel3[:gates],
        "gates3.bias": bias3[:gates],
        "gates5.weight": kernel5,
        "gates5.bias": bias5,
        "output3.weight": kernel3[gates:],
        "memory3.weight": released.take("_conv_c2o_3.weight"),
        "memory5.weight": released.take("_conv_c2o_5.weight"),
        **released.conv("project", "_conv_out"),
    }


RULES: dict[str, Callable[[Released, int, int], dict[str, Tensor]]] = {
    "convlstm": _convlstm,
    "trajgru": trajgru_rule,
    "predrnn": predrnn_rule,
    "predrnn-v2": predrnn_v2,
    "predrnn++": predrnnpp_rule,
    "mim": mim_rule,
    "motionrnn": motionrnn_rule,
    "mk-lstm": _mklstm,
    "preciplstm": preciplstm_rule,
    "cms-lstm": cmslstm_rule,
    "modernn": modernn_rule,
}
KERNEL_OF = {
    "convlstm": "_conv_x2h",
    "trajgru": "_conv_x2h",
    "predrnn": "_conv_x2h",
    "predrnn-v2": "_conv_x2h",
    "predrnn++": "_conv_x_h_c",
    "mim": "_conv_x2h",
    "motionrnn": "_conv_x2h",
    "preciplstm": "_conv_x2h",
    "cms-lstm": "_conv_x2h",
    "modernn": "_conv_x2h",
}
OPTIONS_OF: dict[str, Callable[[Released], dict[str, int]]] = {"trajgru": links}


def translate(entry: ModelEntry, tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None) -> Translation:
    """Turn a released state dict into options and tensors of ours.

    Raises:
        UnknownNameError: the model is not one of this source.
        ValueError: ``config`` is given; these tensors determine all there is to know.
        WeightsError: a tensor is missing, or one is neither used nor known to be without effect.
    """
    cell = entry.cell_name
    if cell not in RULES:
        raise UnknownNameError("model of source 'ms-rnn'", entry.name, RULES)
    if config is not None:
        raise OptionError("source 'ms-rnn' takes no config: the tensors determine the options")
    layers = [int(m[2]) for m in (re.match(r"rnns\.(lstms?)\.(\d+)\.", key) for key in tensors) if m]
    if not layers:
        raise WeightsError("the released weights hold no 'rnns.lstm.0.…' tensors: is this a checkpoint of MS-RNN?")
    column = "rnns.lstms" if any(key.startswith("rnns.lstms.") for key in tensors) else "rnns.lstm"
    used: set[str] = set()
    unused: list[str] = []
    outer = Released(tensors, "", used, unused)
    translated = outer.conv("embed", "embed.conv_embed") | outer.conv("head", "fc.conv_fc")
    depth = max(layers) + 1
    for layer in range(depth):
        released = Released(tensors, f"{column}.{layer}.", used, unused)
        translated |= {f"stack.cells.{layer}.{name}": t for name, t in RULES[cell](released, layer, depth).items()}
    unread = sorted(set(tensors) - used)
    if unread:
        raise WeightsError(
            f"the released weights hold {len(unread)} tensors {entry.title} does not know, first {unread[0]!r}"
        )
    options = {
        "hidden": translated["embed.weight"].shape[0],
        "in_channels": translated["embed.weight"].shape[1],
        "out_channels": translated["head.weight"].shape[0],
        "layers": depth,
    }
    if cell in KERNEL_OF:
        options["kernel"] = tensors[f"{column}.0.{KERNEL_OF[cell]}.weight"].shape[-1]
    if cell in OPTIONS_OF:
        options |= OPTIONS_OF[cell](Released(tensors, f"{column}.0.", used, unused))
    return Translation(options, translated, unused)
