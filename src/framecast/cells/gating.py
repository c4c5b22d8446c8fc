"""Mutual gating: input and hidden state weigh each other in turn before the recurrent step sees them.

    round 1, 3, 5:  x ← 2 σ(G_h(h)) ⊙ x
    round 2, 4:     h ← 2 σ(G_x(x)) ⊙ h

The factor 2 makes an undecided gate the identity. CMS-LSTM calls it context embedding, MoDeRNN detail
context block; the functions G differ.

Reference: Melis, Kočiský and Blunsom, "Mogrifier LSTM", ICLR 2020, doi:10.48550/arXiv.1909.01792.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Gate = Callable[[Tensor], Tensor]


def mutual_gating(x: Tensor, h: Tensor, from_h: Gate, from_x: Gate, rounds: int = 5) -> tuple[Tensor, Tensor]:
    """Return x and h, both (B, C, H, W), after ``rounds`` rounds of weighing each other, x first.

    Args:
        x: input of the layer.
        h: hidden state.
        from_h: G_h, the gate of x before its non-linearity.
        from_x: G_x, the gate of h before its non-linearity.
        rounds: how often; odd rounds change x, even ones h.
    """
    for turn in range(rounds):
        if turn % 2 == 0:
            x = 2 * torch.sigmoid(from_h(h)) * x
        else:
            h = 2 * torch.sigmoid(from_x(x)) * h
    return x, h
