"""Warping and the cells built on it: the equation pixel by pixel, and gradients against differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import functional_call

from framecast.cells import motionrnn, trajgru
from framecast.cells.cell import Cell
from framecast.cells.warp import advect, warp_along
from framecast.data.clips import ClipSpec
from framecast.data.scaling import DbzPixel
from framecast.models.extrapolation import motion_errors


def read(a: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """Interpolate a (C, H, W) between its four neighbours at (x, y), zero outside."""
    left, top = math.floor(x), math.floor(y)
    value = torch.zeros(a.shape[0], dtype=a.dtype)
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        if 0 <= column < a.shape[2] and 0 <= row < a.shape[1]:
            value += a[:, row, column] * (1 - abs(x - column)) * (1 - abs(y - row))
    return value


def test_warp_is_its_equation() -> None:
    height, width = 3, 5
    a = torch.rand(2, 2, height, width, dtype=torch.float64)
    flow = 3 * torch.randn(2, 4, 2, height, width, dtype=torch.float64)
    ours = warp_along(a, flow)
    for b in range(2):
        for n in range(4):
            for y in range(height):
                for x in range(width):
                    u, v = flow[b, n, :, y, x].tolist()
                    at_x = (x + u) * width / (width - 1) - 0.5
                    at_y = (y + v) * height / (height - 1) - 0.5
                    torch.testing.assert_close(ours[b, :, n, y, x], read(a[b], at_x, at_y))


def test_no_flow_is_not_the_identity() -> None:
    a = torch.ones(1, 1, 3, 3)
    unmoved = warp_along(a, torch.zeros(1, 1, 2, 3, 3))[0, 0, 0]
    torch.testing.assert_close(unmoved, torch.tensor([[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]]))


def test_a_map_of_one_pixel_has_no_extent_to_divide_by() -> None:
    assert warp_along(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 2, 1, 1)).item() == 0.25


def test_positions_stay_exact_under_autocast() -> None:
    a, flow = torch.rand(1, 2, 9, 9), torch.randn(1, 3, 2, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(warp_along(a, flow), warp_along(a, flow.float()))
        short = warp_along(a.bfloat16(), flow.bfloat16())
    assert short.dtype == torch.float32
    torch.testing.assert_close(short, warp_along(a.bfloat16().float(), flow.bfloat16().float()))


@pytest.mark.parametrize("cell", [trajgru.column(4, 1, links=2)[0], motionrnn.column(4, 2)[0]])
def test_gradients_of_cells_that_warp(cell: Cell) -> None:
    cell = cell.double()
    names, values = zip(*((name, p.detach().requires_grad_()) for name, p in cell.named_parameters()), strict=True)
    x = torch.rand(1, 4, 4, 6, dtype=torch.float64, requires_grad=True)
    # Random states: nothing moves a memory that is zero.
    state = tuple(torch.randn_like(t).requires_grad_() for t in cell.init_state(x))
    memory = cell.init_memory(x)

    def step(x: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        before, parameters = rest[: len(state)], dict(zip(names, rest[len(state) :], strict=True))
        h, after, _ = functional_call(cell, parameters, (x, before, memory))
        return h, *after

    assert torch.autograd.gradcheck(step, (x, *state, *values), eps=1e-7, atol=1e-5, fast_mode=True)


def test_advection_by_hand() -> None:
    a = torch.arange(12.0, dtype=torch.float64).reshape(1, 1, 3, 4)
    still, known = advect(a, torch.zeros(1, 2, 3, 4, dtype=torch.float64), 2)
    assert torch.equal(still, a[:, None].expand(-1, 2, -1, -1, -1))
    assert known.all()
    right = torch.zeros(1, 2, 3, 4, dtype=torch.float64)
    right[:, 0] = 1.0
    moved, known = advect(a, right, 2)
    assert torch.equal(moved[0, 0, 0, :, 1:], a[0, 0, :, :-1])
    assert torch.equal(moved[0, 1, 0, :, 2:], a[0, 0, :, :-2])
    # What comes from the left of the map is not known, and taken to be as at its edge.
    assert known[0, :, 0, 0].tolist() == [[False, True, True, True], [False, False, True, True]]
    assert moved[0, 1, 0, :, :2].tolist() == [[0, 0], [4, 4], [8, 8]]
    # Half as fast, then as it should be; and then a pixel down, which is to the right of what goes right on a map.
    errors = torch.tensor([[[-0.5, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    moved, _ = advect(a, right, 2, errors)
    torch.testing.assert_close(moved[0, 0, 0, :, 1:], a[0, 0, :, :-1] + 0.5)
    torch.testing.assert_close(moved[0, 1, 0, 1:, 2:], a[0, 0, :-1, :-2] + 0.5)


def test_advection_is_that_of_pysteps() -> None:
    oracle = pytest.importorskip("pysteps.extrapolation.semilagrangian", reason="pysteps needs a C compiler to install")
    generator = torch.Generator().manual_seed(0)
    for height, width in ((9, 31), (40, 12), (25, 25)):
        a = torch.rand(2, 3, height, width, dtype=torch.float64, generator=generator)
        motion = 30 * torch.randn(2, 2, height, width, dtype=torch.float64, generator=generator)
        motion = torch.nn.functional.avg_pool2d(motion, 7, 1, 3) + 1.5
        ours, known = advect(a, motion, 5)
        for b in range(2):
            for c in range(3):
                theirs = torch.from_numpy(oracle.extrapolate(a[b, c].numpy(), motion[b].numpy(), 5))
                outside = theirs.isnan()
                assert torch.equal(~outside, known[b, :, 0])
                # Rounding of a place grows step by step where the motion differs from pixel to pixel.
                torch.testing.assert_close(
                    ours[b, :, c].where(known[b, :, 0], 0), theirs.nan_to_num(0.0), rtol=0, atol=1e-9
                )


def test_errors_of_the_motion_are_those_of_pysteps() -> None:
    oracle = pytest.importorskip("pysteps.extrapolation.semilagrangian", reason="pysteps needs a C compiler to install")
    noise = pytest.importorskip("pysteps.noise.motion")
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(1, 1, 40, 30, dtype=torch.float64, generator=generator)
    # The same everywhere: of a motion that changes from place to place theirs keeps another half of the step before.
    motion = torch.tensor([3.0, -1.5], dtype=torch.float64)[None, :, None, None].expand(1, 2, 40, 30)
    clips = ClipSpec(40, 30, 1, 4, 6, "mm/h", DbzPixel(), 600.0)
    drawn = torch.tensor([[1.3, -0.7, 9.0]], dtype=torch.float64)
    ours, known = advect(a, motion, 6, motion_errors(drawn, 6, clips))
    perturbator = noise.initialize_bps(motion[0].numpy(), 1.0, 10)
    perturbator |= {"eps_par": 1.3, "eps_perp": -0.7}
    displacement = None
    for step in range(6):
        velocity = motion[0].numpy() + noise.generate_bps(perturbator, 10 * (step + 1))
        theirs, displacement = oracle.extrapolate(
            a[0, 0].numpy(), velocity, 1, displacement_prev=displacement, return_displacement=True
        )
        expected = torch.from_numpy(theirs[0])
        assert torch.equal(~expected.isnan(), known[0, step, 0])
        result = ours[0, step, 0].where(known[0, step, 0], torch.nan)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-9, equal_nan=True)
