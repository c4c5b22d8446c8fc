"""Which steps of a training roll-out see the truth: pure functions of (progress, seed, epoch, sample).

A policy gives two probabilities for a progress p in [0, 1): that a step inside the context sees the true
frame, and that a step after it does.

    none                 1, 0                                               forecasting as in use
    scheduled            1, 1 - p                                           Bengio et al. 2015
    reverse-scheduled    ½ → 1 and ½ → 0 during the second third of p       PredRNN-V2

The uniform number of a (seed, epoch, sample, step) comes from a hash, not from a random stream, so it does
not depend on workers, ranks, batch composition or device, and no device waits for the host.

References: Bengio et al., "Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks",
NeurIPS 2015, doi:10.48550/arXiv.1506.03099. Wang et al., "PredRNN: A Recurrent Neural Network for
Spatiotemporal Predictive Learning", TPAMI 2022, doi:10.1109/TPAMI.2022.3165153.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from framecast.errors import UnknownNameError

Policy = Callable[[float], tuple[float, float]]


def _none(progress: float) -> tuple[float, float]:
    del progress
    return 1.0, 0.0


def _scheduled(progress: float) -> tuple[float, float]:
    return 1.0, max(0.0, 1.0 - progress)


def _reverse_scheduled(progress: float) -> tuple[float, float]:
    if progress < 1 / 3:
        return 0.5, 0.5
    if progress < 2 / 3:
        past = progress - 1 / 3
        return 1 - 0.5 * math.exp(-15 * past), 0.5 - 1.5 * past
    return 1.0, 0.0


POLICIES: dict[str, Policy] = {
    "none": _none,
    "scheduled": _scheduled,
    "reverse-scheduled": _reverse_scheduled,
}


def policy_named(name: str) -> Policy:
    """Return the policy of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in POLICIES:
        raise UnknownNameError("sampling policy", name, POLICIES)
    return POLICIES[name]


def truth_mask(
    policy: str, progress: float, *, seed: int, epoch: int, samples: Tensor, context: int, horizon: int
) -> Tensor:
    """Draw (B, context + horizon - 1) booleans, True where a step sees the true frame.

    Args:
        policy: "none", "scheduled" or "reverse-scheduled".
        progress: share of the training done, in [0, 1].
        seed: the run's seed.
        epoch: the epoch, so that a sample meets another draw each time.
        samples: (B,) int64 index of each sample in its data set; its device is the result's.
        context: number of past frames.
        horizon: number of frames to forecast.

    Raises:
        UnknownNameError: there is no such policy.
    """
    in_context, after = policy_named(policy)(progress)
    steps = torch.arange(context + horizon - 1, device=samples.device)
    chance = torch.where(steps < context, in_context, after)
    shape = (samples.shape[0], steps.shape[0])
    keys = [torch.full(shape, key, device=samples.device) for key in (seed, epoch)]
    draws = uniform(torch.stack([*keys, samples[:, None].expand(shape), steps.expand(shape)]))
    return (draws < chance) | (steps == 0)


def uniform(keys: Tensor) -> Tensor:
    """Hash int64 keys (K, ...) along the first dimension to float64 numbers in [0, 1).

    The mixing function is that of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014,
    doi:10.1145/2660193.2660195), chained over the keys.
    """
    state = torch.zeros_like(keys[0])
    for key in keys:
        state = _mix(state + key + _GOLDEN)
    return ((state >> 11) & ((1 << 53) - 1)).double() * 2.0**-53


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FACTORS = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)))


def _mix(z: Tensor) -> Tensor:
    # int64 wraps like uint64; only the right shift has to be made a logical one.
    for shift, factor in _FACTORS:
        z = (z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return z ^ ((z >> 31) & ((1 << 33) - 1))
