"""The paper's formulas of cost: a convolution, a ConvLSTM unit and an MK-LSTM unit in K, C, H, W and B.

                     parameters     FLOPs                 memory
    convolution      K² C²          K² B C² H W           B C H W
    ConvLSTM unit    8 K² C²        8 K² B C² H W         16 B C H W
    MK-LSTM unit     308 C²         308 B C² H W          32 B C H W

Under the paper's assumptions: one step of one unit, input and output of C channels and of size H x W, no biases, a
"FLOP" is a multiply-accumulate, and memory is the number of values that convolutions, activations and products by
element put out (a sum takes none). 8 convolutions, 5 activations and 3 products make 16. MK-LSTM has 8 of kernel 3 and
8 of kernel 5, one of each on its memories and one 1x1 over both, hence 9 (9 + 25) + 2 = 308; and 19 convolutions, 8
activations and 5 products, hence 32.

Our copy of the paper has lost the formulas printed in its Tables 1 and 2; these follow from its text, which keeps the
counts 8 and 16, and from its Equation 3. How they differ from what our models do stands in docs/analyses.md.

Reference: Ma et al., MS-LSTM, Applied Soft Computing 147, 2023, doi:10.1016/j.asoc.2023.110731, sections 3.2 and 4.3.
"""

from __future__ import annotations

from typing import NamedTuple

from framecast.errors import check_count


class Complexity(NamedTuple):
    """What one step of one unit costs.

    Attributes:
        parameters: weights.
        macs: multiply-accumulates, the paper's FLOPs.
        values: numbers put out in the forward pass, the paper's memory.
    """

    parameters: int
    macs: int
    values: int


def _of(weights: int, maps: int, channels: int, height: int, width: int, batch: int) -> Complexity:
    for name, value in {"channels": channels, "height": height, "width": width, "batch": batch}.items():
        check_count(name, value)
    weights *= channels**2
    return Complexity(weights, weights * batch * height * width, maps * batch * channels * height * width)


def convolution_complexity(kernel: int, channels: int, height: int, width: int, batch: int = 1) -> Complexity:
    """Return K² C², K² B C² H W and B C H W: the cost of one convolution.

    Raises:
        ValueError: a number below one.
    """
    check_count("kernel", kernel)
    return _of(kernel**2, 1, channels, height, width, batch)


def convlstm_complexity(kernel: int, channels: int, height: int, width: int, batch: int = 1) -> Complexity:
    """Return 8 K² C², 8 K² B C² H W and 16 B C H W: the cost of one ConvLSTM unit.

    Raises:
        ValueError: a number below one.
    """
    check_count("kernel", kernel)
    return _of(8 * kernel**2, 16, channels, height, width, batch)


def mklstm_complexity(channels: int, height: int, width: int, batch: int = 1) -> Complexity:
    """Return 308 C², 308 B C² H W and 32 B C H W: the cost of one MK-LSTM unit of kernels 3 and 5.

    Raises:
        ValueError: a number below one.
    """
    return _of(9 * (3**2 + 5**2) + 2, 32, channels, height, width, batch)
