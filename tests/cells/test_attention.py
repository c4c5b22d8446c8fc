"""Attention over pixels: exact by brute force, whatever the tiles, and light on memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

import framecast as fc
from framecast.cells.attention import local_attention, patch_attention
from framecast.cells.gating import mutual_gating

SIZES = [(8, 8, 30), (13, 40, 30), (17, 9, 5), (5, 31, 4), (1, 1, 30), (12, 12, 1)]


def tokens(*shape: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3)]


def value_and_gradients(attend, qkv: list[torch.Tensor]) -> list[torch.Tensor]:
    out = attend(*qkv)
    probe = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out, *torch.autograd.grad((out * probe).sum(), qkv)]


def by_unfolding(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int) -> torch.Tensor:
    before, after = window // 2, window - 1 - window // 2
    around = (before, after, before, after)
    k, v = (F.unfold(F.pad(x, around), window).view(*x.shape[:2], window**2, -1) for x in (k, v))
    weights = (q.flatten(2)[:, :, None] * k).sum(1).softmax(1)
    return (weights[:, None] * v).sum(2).view_as(q)


def by_loops(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int) -> torch.Tensor:
    """The definition, pixel by pixel, of one sample."""
    out = torch.zeros_like(q)
    _, height, width = q.shape
    for y in range(height):
        for x in range(width):
            logits, values = [], []
            for row in range(y - window // 2, y + window - window // 2):
                for column in range(x - window // 2, x + window - window // 2):
                    inside = 0 <= row < height and 0 <= column < width
                    logits.append(q[:, y, x] @ k[:, row, column] if inside else q.new_zeros(()))
                    values.append(v[:, row, column] if inside else torch.zeros_like(v[:, 0, 0]))
            out[:, y, x] = torch.stack(logits).softmax(0) @ torch.stack(values)
    return out


@pytest.mark.parametrize(("window", "tile"), [(4, 3), (5, 2), (30, 12)])
def test_local_attention_is_its_definition(window: int, tile: int) -> None:
    q, k, v = tokens(1, 2, 5, 7)
    expected = by_loops(q[0].detach(), k[0].detach(), v[0].detach(), window)
    torch.testing.assert_close(local_attention(q, k, v, window, tile)[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tile", [1, 5, 12, 64])
@pytest.mark.parametrize(("height", "width", "window"), SIZES)
def test_local_attention_and_gradients(height: int, width: int, window: int, tile: int) -> None:
    if tile == 1 and height * width * window**2 > 10_000:
        tile = 3
    qkv = tokens(2, 3, height, width)
    ours = value_and_gradients(lambda *x: local_attention(*x, window, tile), qkv)
    for a, b in zip(ours, value_and_gradients(lambda *x: by_unfolding(*x, window), qkv), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_local_attention_survives_large_logits() -> None:
    # Rows of keys that a window does not hold come first; they must not turn a softmax into NaN.
    q, k, v = (100 * x for x in tokens(1, 4, 70, 70))
    out = local_attention(q, k, v, 30, 64)
    torch.testing.assert_close(out, local_attention(q, k, v, 30, 12), rtol=0, atol=1e-9)
    assert out.isfinite().all()


def test_local_attention_weighs_in_float32_under_autocast() -> None:
    q, k, v = (x.detach().bfloat16() for x in tokens(1, 8, 20, 20, dtype=torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        short = local_attention(q, k, v)
    exact = local_attention(q.double(), k.double(), v.double())
    torch.testing.assert_close(short.double(), exact, rtol=2**-7, atol=2**-9)


@pytest.mark.parametrize(("bands", "maps", "height", "width"), [(1, 1, 3, 5), (2, 2, 4, 6), (4, 2, 8, 4)])
def test_patch_attention_is_its_definition(bands: int, maps: int, height: int, width: int) -> None:
    qkv = tokens(2, 3, height, maps * width)

    def by_patches(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(q)
        down, across = height // bands, width // bands
        for i in range(bands):
            for j in range(bands):
                columns = [m * width + j * across + n for m in range(maps) for n in range(across)]
                place = (..., slice(i * down, (i + 1) * down), columns)
                a, b, c = (x[place].flatten(2) for x in (q, k, v))
                found = c @ (a.transpose(1, 2) @ b).softmax(2).transpose(1, 2)
                out[place] = found.view(2, 3, down, -1)
        return out

    ours = value_and_gradients(lambda *x: patch_attention(*x, bands, maps), qkv)
    for a, b in zip(ours, value_and_gradients(by_patches, qkv), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_mutual_gating_takes_turns() -> None:
    x, h, half = torch.tensor(3.0), torch.tensor(5.0), torch.tensor(0.25).logit()
    turns: list[str] = []

    def gate(source: str):
        return lambda _: turns.append(source) or half

    x, h = mutual_gating(x, h, gate("h"), gate("x"))
    assert turns == ["h", "x", "h", "x", "h"]
    assert (x.item(), h.item()) == (3 / 8, 5 / 4)


def bytes_saved(run) -> int:
    """Return the bytes that the backward pass of ``run`` needs, each storage counted once."""
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        run()
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("size", [24, 48])
def test_local_attention_keeps_only_its_inputs(size: int) -> None:
    qkv = tokens(1, 8, size, size, dtype=torch.float32)
    maps = sum(x.nbytes for x in qkv)
    unfolded = bytes_saved(lambda: by_unfolding(*qkv, 30))
    assert unfolded > 500 * maps
    assert bytes_saved(lambda: local_attention(*qkv)) == maps


def test_patch_attention_never_keeps_a_weight_per_pair() -> None:
    qkv = tokens(1, 8, 32, 64, dtype=torch.float32)
    pairs = (32 * 64) ** 2 * qkv[0].element_size()
    assert bytes_saved(lambda: patch_attention(*qkv, 1, maps=2)) < pairs / 20


@pytest.mark.parametrize(("name", "maps"), [("preciplstm", 40), ("cms-lstm", 70), ("modernn", 26)])
def test_bytes_saved_per_layer_and_step(name: str, maps: int) -> None:
    def saved(layers: int) -> int:
        model = fc.create_model(name, hidden=8, layers=layers)
        weights = sum(p.nbytes for p in model.parameters())
        return bytes_saved(lambda: model.rollout(clip, 2, 1).frames.sum()) - weights

    clip = torch.rand(1, 3, 1, 32, 32)
    one_map = 8 * 32 * 32 * 4
    assert (saved(3) - saved(1)) / (2 * 2 * one_map) < maps


STEP = """
import resource, torch
import framecast as fc
model = fc.create_model("preciplstm", hidden=32)
clip = torch.rand(1, 8, 1, 180, 180)
error = model.rollout(clip, 4, 4).frames - clip[:, 1:]
(error.square() + error.abs()).sum((2, 3, 4)).mean().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_training_step_of_preciplstm_on_radar_frames_fits_into_16_gb() -> None:
    done = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, check=True)
    kilobytes = int(done.stdout) if sys.platform != "darwin" else int(done.stdout) // 1024
    assert kilobytes < 12 * 2**20, f"{kilobytes / 2**20:.1f} GiB"


@pytest.mark.parametrize("name", ["preciplstm", "cms-lstm", "modernn"])
def test_options_are_checked(name: str) -> None:
    small, large = (fc.create_model(name, hidden=4, layers=2, kernel=kernel) for kernel in (3, 5))
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in large.parameters())
    with pytest.raises(ValueError, match=r"kernel is 4.*use 3 or 5"):
        fc.create_model(name, hidden=4, layers=2, kernel=4)


def test_window_is_checked() -> None:
    with pytest.raises(ValueError, match="window is 0"):
        fc.create_model("preciplstm", hidden=4, layers=2, window=0)
