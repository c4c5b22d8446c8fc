"""Weight gradients from several steps at a time are those of one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from samples.models import CONTEXT, HORIZON, RECURRENT, small_clip, small_model
from torch import Tensor

from framecast.cells import weight_gradients
from framecast.cells.native import torch_alone
from framecast.compute.compiling import compile_step
from framecast.compute.placement import arrange
from framecast.models.recurrent import RecurrentForecaster

Gradients = dict[str, Tensor]
# Sums in another order: float32 rounding, relative to the largest of a gradient.
TOLERANCE = 1e-5


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Have them computed so, from so many images at a time; torch alone convolves."""

    def switch(images: int) -> None:
        monkeypatch.setattr(RecurrentForecaster, "shares_kernels", True)
        monkeypatch.setattr(weight_gradients, "IMAGES", images)

    with torch_alone():
        yield switch


def gradients_of(name: str, layout: str = "channels-last", compiled: bool = False, **options: Any) -> Gradients:
    model = small_model(name).train()
    arrange(model, layout, torch.device("cpu"))
    if compiled:
        compile_step(model)
    for _ in range(2):  # nothing of one backward pass is left for the next
        model.zero_grad()
        rollout = model.rollout(small_clip(), CONTEXT, HORIZON, **options)
        penalty = 0.0 if rollout.penalty is None else rollout.penalty.mean()
        (rollout.frames.square().sum() + penalty).backward()  # type: ignore[no-untyped-call]
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def assert_equal(ours: Gradients, theirs: Gradients, tolerance: float = TOLERANCE) -> None:
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        scale = float(gradient.abs().max())
        assert float((ours[name] - gradient).abs().max()) <= tolerance * scale + 1e-7, name


@pytest.mark.parametrize("name", RECURRENT)
def test_they_equal_those_of_single_steps(name: str, together: Callable[..., None]) -> None:
    expected = gradients_of(name)
    together(images=4)
    assert_equal(gradients_of(name), expected)
    assert not weight_gradients._steps, "nothing outlives the roll-out"


@pytest.mark.parametrize(
    ("images", "options"),
    [(64, {}), (7, {}), (3, {}), (4, {"recompute": "lean"}), (4, {"layout": "channels-first"})],
    ids=str,
)
def test_whatever_the_number_of_steps(images: int, options: dict[str, Any], together: Callable[..., None]) -> None:
    expected = gradients_of("ms-lstm")
    together(images)
    assert_equal(gradients_of("ms-lstm", **options), expected)


SLOW_TO_COMPILE = [pytest.param(name, marks=pytest.mark.slow) for name in ("ms-lstm", "ms-predrnn-v2")]


# torch's compiler looks at .grad of all it is given, and the weights of a roll-out are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", ["convlstm", *SLOW_TO_COMPILE])
def test_compiled_steps_too(name: str, together: Callable[..., None]) -> None:
    expected = gradients_of(name)
    together(images=4)
    # Here the compiler too orders sums anew, of a penalty that divides by norms.
    assert_equal(gradients_of(name, compiled=True), expected, tolerance=1e-4)


def test_frozen_weights_stay_without_gradient(together: Callable[..., None]) -> None:
    together(images=4)
    model = small_model("convlstm").train()
    frozen, learned = model.stack.cells[0].gates, model.stack.cells[1].gates  # type: ignore[union-attr, index]
    frozen.requires_grad_(False)
    model.rollout(small_clip(), CONTEXT, HORIZON).frames.sum().backward()  # type: ignore[no-untyped-call]
    assert frozen.weight.grad is None
    assert learned.weight.grad.abs().sum() > 0


def test_autocast_casts_once_and_learns_the_same(together: Callable[..., None]) -> None:
    expected = gradients_of("convlstm")
    together(images=4)
    with torch.autocast("cpu", torch.bfloat16):
        ours = gradients_of("convlstm")
    for name, gradient in expected.items():
        assert ours[name].dtype == torch.float32
        # bfloat16 keeps eight bits, and a dozen steps follow each other.
        assert float((ours[name] - gradient).abs().max()) <= 0.05 * float(gradient.abs().max()), name
