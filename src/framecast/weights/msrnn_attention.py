"""The rules of ``msrnn.py`` for the cells with attention or mutual gating: PrecipLSTM, CMS-LSTM, MoDeRNN."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from framecast.weights.msrnn import Released


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
    for ours, source in (("gate_x", "H"), ("gate_h", "X")):
        convs = [f"conv{size}{size}_{source}" for size in (3, 5, 7)]
        tensors |= {f"{ours}.weight{c[4]}": released.take(f"{c}.weight") for c in convs}
        tensors[f"{ours}.bias"] = released.bias(*convs) / len(convs)
    return tensors
