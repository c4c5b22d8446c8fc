"""Which steps of a roll-out are computed again in backward, so that their intermediate results need no memory.

A roll-out of S steps keeps all intermediate results for backward. Cut into segments of k steps it keeps those of one
segment at a time and the states at the S/k borders, and pays at most one more forward pass. With equal costs of a
step and a state, S/k + k is least at k = √S, which is what "lean" takes.

Reference: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, doi:10.48550/arXiv.1604.06174.
"""

from __future__ import annotations

import math
from typing import Literal

from framecast.errors import check_count

Recompute = Literal["none", "lean"] | int


def segment_length(steps: int, recompute: Recompute) -> int:
    """Return the steps of a segment; all of them where nothing is to be computed again.

    Raises:
        ValueError: ``recompute`` is neither "none", nor "lean", nor a number of steps from 1.
    """
    if recompute == "none":
        return steps
    if recompute == "lean":
        return math.isqrt(steps)
    if isinstance(recompute, str):
        raise ValueError(f"recompute is {recompute!r} and must be 'none', 'lean' or the steps of a segment, 1 or more")
    check_count("recompute", recompute)
    return recompute
