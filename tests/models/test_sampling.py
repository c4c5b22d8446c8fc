"""The sampling masks: right on average, and functions of (progress, seed, epoch, sample) alone."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from framecast.models.sampling import POLICIES, truth_mask, uniform

CONTEXT, HORIZON = 4, 5


def mask(policy: str, progress: float, samples: torch.Tensor, **changes: int) -> torch.Tensor:
    facts = {"seed": 7, "epoch": 1, "context": CONTEXT, "horizon": HORIZON, **changes}
    return truth_mask(policy, progress, samples=samples, **facts)


@pytest.mark.parametrize(
    ("policy", "progress", "in_context", "after"),
    [
        ("none", 0.3, 1, 0),
        ("scheduled", 0.0, 1, 1),
        ("scheduled", 0.25, 1, 0.75),
        ("scheduled", 1.0, 1, 0),
        ("reverse-scheduled", 0.2, 0.5, 0.5),
        ("reverse-scheduled", 0.5, 1 - 0.5 * math.exp(-2.5), 0.25),
        ("reverse-scheduled", 0.9, 1, 0),
    ],
)
def test_rates(policy: str, progress: float, in_context: float, after: float) -> None:
    drawn = mask(policy, progress, torch.arange(40_000)).double().mean(0)
    assert drawn[0] == 1
    expected = torch.tensor([in_context] * (CONTEXT - 1) + [after] * (HORIZON - 1), dtype=torch.float64)
    torch.testing.assert_close(drawn[1:], expected, rtol=0, atol=0.01)


@given(st.sampled_from(sorted(POLICIES)), st.floats(0, 1), st.permutations(range(8)))
def test_rows_do_not_depend_on_their_batch(policy: str, progress: float, order: list[int]) -> None:
    samples = torch.tensor(order)
    together = mask(policy, progress, samples)
    assert torch.equal(together, torch.cat([mask(policy, progress, s[None]) for s in samples]))
    assert torch.equal(together[torch.argsort(samples)], mask(policy, progress, torch.arange(8)))


def test_seed_and_epoch_change_the_draw() -> None:
    samples = torch.arange(64)
    base = mask("scheduled", 0.5, samples)
    assert not torch.equal(base, mask("scheduled", 0.5, samples, seed=8))
    assert not torch.equal(base, mask("scheduled", 0.5, samples, epoch=2))


def test_uniform_numbers_are_uniform_and_uncorrelated() -> None:
    keys = torch.stack(torch.meshgrid(torch.arange(300), torch.arange(300), indexing="ij"))
    draws = uniform(keys)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = torch.histc(draws.float(), 100, 0, 1)
    # chi-squared with 99 degrees of freedom: mean 99, standard deviation 14
    assert ((counts - 900) ** 2 / 900).sum() < 99 + 6 * 14
    for shifted in (draws[1:] * draws[:-1], draws[:, 1:] * draws[:, :-1]):
        assert abs(shifted.mean() - 0.25) < 0.01


def test_splitmix_reference_value() -> None:
    # First output of SplitMix64 seeded with 0 is 0xE220A8397B1DCDAF (published with the generator).
    assert uniform(torch.tensor([[0]])).item() == (0xE220A8397B1DCDAF >> 11) * 2.0**-53


def test_unknown_policy() -> None:
    with pytest.raises(ValueError, match="Did you mean 'scheduled'"):
        mask("schedule", 0.5, torch.arange(2))
