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

from framecast.errors import UnknownNameError, WeightsError
from framecast.registry import ModelEntry
from framecast.weights.importing import Translation
from framecast.weights.msrnn_attention import cmslstm_rule, modernn_rule, preciplstm_rule
from framecast.weights.msrnn_predrnn import (
    links,
    mim_rule,
    motionrnn_rule,
    predrnn_rule,
    predrnn_v2,
    predrnnpp_rule,
    trajgru_rule,
)


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

    def conv(self, ours: str, *convs: str) -> dict[str, Tensor]:
        """Return our convolution of that name: joined kernels, added biases."""
        return {f"{ours}.weight": self.kernel(*convs), f"{ours}.bias": self.bias(*convs)}

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
    cell = entry.name.removeprefix("ms-")
    if cell not in RULES:
        raise UnknownNameError("model of source 'ms-rnn'", entry.name, RULES)
    if config is not None:
        raise ValueError("source 'ms-rnn' takes no config: the tensors determine the options")
    layers = [int(m[2]) for m in (re.match(r"rnns\.(lstms?)\.(\d+)\.", key) for key in tensors) if m]
    if not layers:
        raise WeightsError("the released weights hold no 'rnns.lstm.0.…' tensors: is this a checkpoint of MS-RNN?")
    column = "rnns.lstms" if any(key.startswith("rnns.lstms.") for key in tensors) else "rnns.lstm"
    used: set[str] = set()
    unused: list[str] = []
    whole = Released(tensors, "", used, unused)
    ours = whole.conv("embed", "embed.conv_embed") | whole.conv("head", "fc.conv_fc")
    depth = max(layers) + 1
    for layer in range(depth):
        released = Released(tensors, f"{column}.{layer}.", used, unused)
        ours |= {f"stack.cells.{layer}.{name}": t for name, t in RULES[cell](released, layer, depth).items()}
    left = sorted(set(tensors) - used)
    if left:
        raise WeightsError(
            f"the released weights hold {len(left)} tensors {entry.title} does not know, first {left[0]!r}"
        )
    options = {
        "hidden": ours["embed.weight"].shape[0],
        "in_channels": ours["embed.weight"].shape[1],
        "out_channels": ours["head.weight"].shape[0],
        "layers": depth,
    }
    if cell in KERNEL_OF:
        options["kernel"] = tensors[f"{column}.0.{KERNEL_OF[cell]}.weight"].shape[-1]
    if cell in OPTIONS_OF:
        options |= OPTIONS_OF[cell](Released(tensors, f"{column}.0.", used, unused))
    return Translation(options, ours, unused)
