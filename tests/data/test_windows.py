"""Windows: no clip spans a gap or the border of a split; what is under the mask does not matter."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from framecast.data.clips import SPLITS
from framecast.data.scaling import SCALINGS, MinMax
from framecast.data.sources import ArraySource, check_times
from framecast.data.windows import (
    WHOLE_FROM,
    WindowedClips,
    assign_splits,
    check_shares,
    windows_by_number,
    windows_by_time,
    windows_in,
)
from framecast.errors import DataError
from framecast.training.losses import LOSSES


@st.composite
def gappy(draw: st.DrawFn, most: int = 60) -> NDArray[np.int64]:
    """Draw rising times: steps of the interval, of several, of odd seconds, in any order."""
    steps = draw(st.lists(st.sampled_from([300, 300, 300, 300, 600, 900, 301, 37, 86_400]), min_size=1, max_size=most))
    return 1_000_000_000 + np.cumsum([0, *steps])


Shares = st.sampled_from([(0.7, 0.1, 0.2), (0.5, 0.25, 0.25), (0.9, 0.0, 0.1), (1.0, 0.0, 0.0), (0.34, 0.33, 0.33)])


@settings(max_examples=1000, deadline=None)
@given(gappy(), st.integers(1, 8), st.integers(1, 3), st.integers(1, 4), Shares)
def test_no_clip_spans_a_gap_or_a_border(
    times: NDArray[np.int64], length: int, thin: int, stride: int, shares: tuple[float, float, float]
) -> None:
    blocks = assign_splits([range(len(times))], shares)
    dealt = [number for split in SPLITS for block in blocks[split] for number in block]
    assert dealt == list(range(len(times))), "every frame is in exactly one split, in the order of time"
    used: list[set[int]] = []
    for split in SPLITS:
        windows = windows_in(blocks[split], times, length, 300 * thin, stride)
        assert windows.shape[1:] == (length,)
        assert (np.diff(times[windows], axis=1) == 300 * thin).all(), "a clip's frames stand at one interval"
        inside = [any(set(window) <= set(block) for block in blocks[split]) for window in windows.tolist()]
        assert all(inside), "a clip spans the border of a split"
        used.append(set(windows.ravel().tolist()))
    assert sum(map(len, used)) == len(set().union(*used)), "two splits share a frame"


@settings(max_examples=300, deadline=None)
@given(gappy(), st.integers(1, 6), st.integers(1, 3))
def test_no_possible_clip_is_left_out(times: NDArray[np.int64], length: int, thin: int) -> None:
    known = {int(time): number for number, time in enumerate(times)}
    expected = [
        [known[int(start) + 300 * thin * k] for k in range(length)]
        for start in times
        if all(int(start) + 300 * thin * k in known for k in range(length))
    ]
    assert windows_by_time(times, length, 300 * thin).tolist() == expected


@given(st.integers(0, 60), st.integers(1, 12), st.integers(1, 7), st.integers(1, 4))
def test_windows_without_times(count: int, length: int, stride: int, step: int) -> None:
    windows = windows_by_number(count, length, stride, step)
    span = (length - 1) * step + 1
    assert len(windows) == max(0, math.ceil((count - span + 1) / stride))
    assert (windows < count).all()
    assert (np.diff(windows, axis=1) == step).all()


@given(st.lists(st.integers(1, 30), min_size=1, max_size=30), Shares, st.integers(1, 6))
def test_sequences_are_dealt_whole_or_cut_in_time(
    lengths: list[int], shares: tuple[float, float, float], length: int
) -> None:
    ends = np.cumsum(lengths).tolist()
    sequences = [range(end - size, end) for end, size in zip(ends, lengths, strict=True)]
    blocks = assign_splits(sequences, shares)
    dealt = sorted(number for parts in blocks.values() for block in parts for number in block)
    assert dealt == list(range(ends[-1]))
    if len(sequences) >= WHOLE_FROM:
        assert all(block in sequences for parts in blocks.values() for block in parts)
    for split in SPLITS:
        for window in windows_in(blocks[split], None, length, 0, 1).tolist():
            assert any(set(window) <= set(sequence) for sequence in sequences), "a clip spans two sequences"


@pytest.mark.parametrize("shares", [(0.7, 0.3), (0.7, 0.2, 0.2), (0, 0.5, 0.5), (1.2, -0.2, 0)])
def test_impossible_shares(shares: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="three for train, validation and test"):
        check_shares(shares)


@pytest.mark.parametrize(("length", "interval", "stride"), [(0, 300, 1), (2, 0, 1), (2, 300, 0)])
def test_impossible_windows(length: int, interval: int, stride: int) -> None:
    with pytest.raises(DataError, match="at least 1"):
        windows_by_time(np.arange(5) * 300, length, interval, stride)
    with pytest.raises(DataError, match="at least 1"):
        windows_by_number(5, length, stride, interval)


def test_doubled_and_unsorted_times() -> None:
    with pytest.raises(DataError, match=r"the file: 2 time stamps are doubled, first 1970-01-01T00:05:00.* frame 2"):
        check_times(np.array([0, 300, 300, 600, 600]), "the file")
    with pytest.raises(DataError, match="1 time stamps are out of order, first 1970-01-01T00:00:00 after"):
        check_times(np.array([300, 0]), "the file")


# ---- what is under the mask


def masked(seed: int, under: float) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return frames (12, 1, 6, 7) with anything under the mask, and the mask of what is data."""
    rng = np.random.default_rng(seed)
    frames, valid = rng.random((12, 1, 6, 7), np.float32), rng.random((12, 1, 6, 7)) > 0.3
    return np.where(valid, frames, np.float32(under)), valid


@given(st.integers(0, 1000), st.floats(allow_nan=True, allow_infinity=True, width=32), st.sampled_from(sorted(LOSSES)))
def test_values_under_the_mask_change_no_loss(seed: int, under: float, name: str) -> None:
    first, valid = masked(seed, 0.0)
    other, _ = masked(seed, under)
    loss, mask = LOSSES[name], torch.from_numpy(valid)[None]
    forecast = torch.rand(1, *first.shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    before = loss(forecast, torch.from_numpy(first)[None], mask)
    wild = torch.where(mask, forecast, torch.tensor(under)).detach().requires_grad_()
    after = loss(wild, torch.from_numpy(other)[None], mask)
    assert torch.equal(before, after)
    assert before.isfinite()
    gradients = [torch.autograd.grad(value, leaf)[0] for value, leaf in ((before, forecast), (after, wild))]
    assert torch.equal(*gradients)
    assert (gradients[0][~mask] == 0).all()


@pytest.mark.parametrize("kind", sorted(SCALINGS))
def test_values_under_the_mask_change_no_sample(kind: str) -> None:
    frames, valid = masked(0, np.nan)
    clips = WindowedClips(ArraySource(frames), windows_by_number(12, 4), SCALINGS[kind]())
    sample = clips[2]
    assert torch.equal(sample["valid"], torch.from_numpy(valid[2:6]))
    assert (sample["frames"][~sample["valid"]] == 0).all()
    assert sample["frames"].isfinite().all()


@pytest.mark.parametrize("kind", sorted(SCALINGS))
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_dry_and_constant_frames_are_finite(kind: str, name: str) -> None:
    frames = np.zeros((6, 1, 4, 4), np.float32)
    for case in ("all dry", "one dry", "constant", "all nodata", "infinite"):
        frames[:] = {"all dry": 0.0, "one dry": 0.5, "constant": 3.0, "all nodata": np.nan, "infinite": np.inf}[case]
        frames[2] = 0.0 if case == "one dry" else frames[2]
        sample = WindowedClips(ArraySource(frames), windows_by_number(6, 6), SCALINGS[kind]())[0]
        assert sample["frames"].isfinite().all(), case
        forecast = torch.full((1, 6, 1, 4, 4), 0.3).requires_grad_()
        loss = LOSSES[name](forecast, sample["frames"][None], sample["valid"][None])
        assert loss.isfinite(), case
        assert torch.autograd.grad(loss, forecast)[0].isfinite().all(), case
        assert SCALINGS[kind]().unscale(sample["frames"]).isfinite().all(), case


def test_samples(tmp_path: Path) -> None:
    frames = np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1)
    times = np.arange(10) * 60
    clips = WindowedClips(ArraySource(frames, times), windows_by_time(times, 3, 120), MinMax(0, 10))
    sample: Any = clips[1]
    assert sample["frames"].ravel().tolist() == pytest.approx([0.1, 0.3, 0.5])
    assert sample["times"].tolist() == [60, 180, 300]
    for index in (-1, len(clips)):
        with pytest.raises(IndexError):
            clips[index]
    again = pickle.loads(pickle.dumps(clips))  # noqa: S301  # our own
    assert torch.equal(again[1]["frames"], sample["frames"])
