"""Moving MNIST: the rules of motion, the splits, and files of one's own."""

from __future__ import annotations

import gzip
import math
import struct
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import framecast as fc
from framecast.data.sets.moving_mnist import (
    Motion,
    _authors_path,
    _srivastava_path,
    open_moving_mnist,
    own_digits,
    packaged_digits,
    read_idx,
    resize_digits,
)
from framecast.errors import DataError, DatasetNotFoundError

SMALL = {"size": 16, "context": 2, "horizon": 2, "clips": 60}


def idx_file(path: Path, count: int = 20, side: int = 28, packed: bool = False) -> Path:
    """Write an idx file of random digits, in the exact format."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side), np.uint8)
    content = struct.pack(">IIII", 0x803, count, side, side) + pixels.tobytes()
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def test_packaged_pools_are_disjoint_and_balanced() -> None:
    pools = [packaged_digits(split) for split in ("train", "validation", "test")]
    assert [len(pool) for pool in pools] == [3500, 500, 1000]
    images = {image.tobytes() for pool in pools for image in pool}
    assert len(images) == 5000, "a digit is in two pools"


def test_the_set_of_the_paper() -> None:
    data = fc.data("moving-mnist")
    assert {split: len(clips) for split, clips in data.splits.items()} == {
        "train": 9500,
        "validation": 1000,
        "test": 4500,
    }
    frames = data["train"][0]["frames"]
    assert frames.shape == (20, 1, 64, 64)
    assert frames.min() == 0
    assert 0.9 < frames.max() <= 1


@pytest.mark.parametrize("rule", ["authors", "srivastava"])
def test_a_clip_is_a_function_of_seed_and_index(rule: str) -> None:
    first, again = open_moving_mnist(rule=rule, **SMALL), open_moving_mnist(rule=rule, **SMALL)
    backwards = [again["train"][i]["frames"] for i in (3, 2, 1, 0)]
    for i, frames in zip((3, 2, 1, 0), backwards, strict=True):
        assert torch.equal(first["train"][i]["frames"], frames)
        assert not torch.equal(frames, open_moving_mnist(rule=rule, seed=1, **SMALL)["train"][i]["frames"])
        assert not torch.equal(frames, first["test"][i]["frames"])
    assert first.fingerprint() == again.fingerprint() != open_moving_mnist(rule=rule, seed=1, **SMALL).fingerprint()


@given(st.integers(0, 2**32 - 1), st.integers(10, 64), st.integers(2, 40))
def test_authors_digits_leave_by_two_pixels_at_most(seed: int, free: int, length: int) -> None:
    motion = Motion(free, length, 2, 6, 2)
    path = _authors_path(np.random.default_rng(seed), motion)
    assert len(path) == length
    assert all(-2 <= p <= free + 2 for point in path for p in point)
    steps = [math.dist(a, b) for a, b in pairwise(path)]
    assert all(math.isclose(step, round(step), abs_tol=1e-9) and 2 <= round(step) <= 6 for step in steps)
    assert len({round(step) for step in steps}) <= 1, "the speed is constant"


@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_srivastava_digits_stay_inside_at_a_tenth_of_the_range(seed: int, length: int) -> None:
    path = _srivastava_path(np.random.default_rng(seed), Motion(36, length, 3.6, 3.6, 0))
    assert all(0 <= p <= 36 for point in path for p in point)
    assert all(math.dist(a, b) <= 3.6 + 1e-9 for a, b in pairwise(path))


def test_overlap_adds_or_shows_the_brighter() -> None:
    for rule, joined in (("authors", 255), ("srivastava", 200)):
        clips = open_moving_mnist(rule=rule, digits_per_frame=2, **SMALL)["train"]
        clips.digits = np.full((1, 7, 7), 200, np.uint8)
        assert max(clips.draw(i).max() for i in range(10)) == joined


@settings(max_examples=30, deadline=None)
@given(st.integers(12, 48), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
def test_any_size_and_length(size: int, digits: int, context: int, horizon: int) -> None:
    data = open_moving_mnist(size=size, digits_per_frame=digits, context=context, horizon=horizon, clips=15)
    frames = data["train"][0]["frames"]
    assert frames.shape == (context + horizon, 1, size, size)
    assert frames.max() > 0


def test_idx_files_packed_and_raw(tmp_path: Path) -> None:
    raw, packed = read_idx(idx_file(tmp_path / "raw")), read_idx(idx_file(tmp_path / "packed.gz", packed=True))
    assert raw.shape == (20, 28, 28)
    assert np.array_equal(raw, packed)
    parts = [own_digits(tmp_path / "raw", split) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [14, 2, 4]
    data = open_moving_mnist(digits=tmp_path / "raw", **SMALL)
    assert data["test"][0]["frames"].max() > 0


def test_the_real_mnist_test_file(shared: Path) -> None:
    digits = read_idx(shared / "data/mnist/t10k-images-idx3-ubyte.gz")
    assert digits.shape == (10_000, 28, 28)
    assert 25 < digits[:5000].mean() < 40


def test_resizing_keeps_the_brightness() -> None:
    digits = packaged_digits("test")[:50]
    small = resize_digits(digits, 14)
    assert small.shape == (50, 14, 14)
    assert abs(small.mean() - digits.mean()) < 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c[:10], "ends within its 16-byte header"),
        (lambda c: c[:-5], "declares 20 images of 28x28, 15680 bytes, and holds 15675"),
        (lambda c: c + b"\0", "holds more"),
        (lambda c: struct.pack(">I", 0x801) + c[4:], "0x00000801.*label file"),
        (lambda c: c[:4] + struct.pack(">I", 2**31) + c[8:], "declares 2147483648"),
        (lambda c: c[:4] + struct.pack(">I", 0) + c[8:16], "no images"),
        (lambda c: gzip.compress(c)[:-20], "damaged"),
        (lambda c: b"\x1f\x8b" + c, "damaged"),
    ],
)
def test_damaged_idx_files(tmp_path: Path, damage: object, message: str) -> None:
    path = idx_file(tmp_path / "digits")
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        read_idx(path)


def test_missing_files(tmp_path: Path) -> None:
    for option in ("digits", "file", "test_file"):
        with pytest.raises(DatasetNotFoundError, match=r"there is no .*nowhere"):
            open_moving_mnist(**{**SMALL, option: tmp_path / "nowhere"})


def stored(tmp_path: Path, shape: tuple[int, ...] = (20, 30, 16, 16)) -> Path:
    path = tmp_path / "clips.npy"
    np.save(path, np.arange(math.prod(shape)).reshape(shape).astype(np.uint8))
    return path


def test_stored_clips(tmp_path: Path) -> None:
    path = stored(tmp_path)
    data = open_moving_mnist(file=path, context=4, horizon=6)
    assert {split: len(clips) for split, clips in data.splits.items()} == {"train": 19, "validation": 2, "test": 9}
    assert data.spec.height == 16
    expected = np.load(path, allow_pickle=False)[:10, 21].astype(np.float32) / 255
    assert np.array_equal(data["test"][0]["frames"][:, 0].numpy(), expected)
    mixed = open_moving_mnist(test_file=path, **SMALL)
    assert (len(mixed["train"]), len(mixed["test"])) == (38, 30)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((30, 20, 16, 16), r"clips first.*swapaxes"), ((20, 16, 16), "hold uint8"), ((4, 30, 16, 16), "has 4 frames")],
)
def test_wrong_stored_clips(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_moving_mnist(file=stored(tmp_path, shape), context=5, horizon=5)


def test_stored_clips_of_another_type_or_cut(tmp_path: Path) -> None:
    np.save(tmp_path / "float.npy", np.zeros((2, 3, 4, 4)))
    with pytest.raises(DataError, match="float64"):
        open_moving_mnist(file=tmp_path / "float.npy")
    path = stored(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="truncated"):
        open_moving_mnist(file=path)
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        open_moving_mnist(file=tmp_path / "object.npy")
    with pytest.raises(DataError, match="set size to match"):
        open_moving_mnist(test_file=stored(tmp_path), size=32, context=2, horizon=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "author"}, "Did you mean 'authors'"),
        ({"context": 0}, "context is 0"),
        ({"clips": 10}, "at least 15"),
        ({"digit_size": 16}, "digit_size is 16"),
        ({"speed": (3, 1)}, "speed is 3 to 1"),
        ({"rule": "srivastava", "speed": (1, 2)}, "one speed"),
        ({"size": 0}, "size is 0"),
        ({"digits_per_frame": 0}, "digits_per_frame is 0"),
    ],
)
def test_impossible_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_moving_mnist(**{**SMALL, **options})  # type: ignore[arg-type]


def test_unknown_data_options() -> None:
    with pytest.raises(ValueError, match=r"'sise'\. Did you mean 'size'"):
        fc.data("moving-mnist", sise=3)
    with pytest.raises(DataError, match="no split 'tset'"):
        fc.data("moving-mnist", **SMALL)["tset"]  # type: ignore[index]


def test_an_idx_file_that_unpacks_to_far_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    with gzip.open(path, "wb") as file:
        file.write(struct.pack(">IIII", 2051, 400_000, 28, 28))
        file.write(bytes(1000))
    began = time.monotonic()
    with pytest.raises(DataError, match=r"train-images.*declares 400000 x 28 x 28"):
        fc.data("moving-mnist", digits=path)
    assert time.monotonic() - began < 10
