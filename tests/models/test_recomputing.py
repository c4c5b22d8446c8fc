"""Intermediate results that are computed again change memory, never numbers."""

from __future__ import annotations

import weakref

import pytest
import torch
from samples.models import CONTEXT, HORIZON, RECURRENT, small_clip, small_model

from framecast.models.forecaster import segment_length
from framecast.registry import ONE_SHOT

pytestmark = pytest.mark.usefixtures("either_way")
STEPS = CONTEXT + HORIZON - 1


@pytest.mark.parametrize("recompute", ["lean", 3])
@pytest.mark.parametrize("name", RECURRENT)
def test_gradients_are_the_same_bits(name: str, recompute: int | str) -> None:
    clip = small_clip()
    # The second sample is fed with its own forecasts and with truth in turn, inside and across segments.
    truth = torch.tensor([[True] * STEPS, [True, True, False, True, False]])
    results = []
    for mode in ("none", recompute):
        model = small_model(name).train()
        rollout = model.rollout(clip, CONTEXT, HORIZON, truth, mode)  # type: ignore[arg-type]
        loss = (rollout.frames - clip[:, 1:]).square().sum()
        if rollout.penalty is not None:
            loss = loss + rollout.penalty.sum()
        loss.backward()
        results.append([loss, rollout.frames, *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("recompute", ["lean", 2])
@pytest.mark.parametrize("name", RECURRENT)
def test_fewer_results_are_kept(name: str, recompute: int | str) -> None:
    kept = []
    for mode in ("none", recompute):
        storages: dict[int, int] = {}

        def keep(tensor: torch.Tensor, storages: dict[int, int] = storages) -> torch.Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        model = small_model(name, hidden=16).train()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.rollout(small_clip(), CONTEXT, HORIZON, recompute=mode)  # type: ignore[arg-type]
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        kept.append(sum(storages.values()) - weights)
    assert kept[1] < 0.75 * kept[0]


@pytest.mark.parametrize("name", RECURRENT)
def test_a_forecast_holds_one_state_at_a_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On full radar maps a state takes hundreds of MB: none may live until the end of a forecast."""
    model = small_model(name).eval()
    states: list[weakref.ref[torch.Tensor]] = []
    step = model._step

    def watched(frame: torch.Tensor, layers: tuple[torch.Tensor, ...], *others: object) -> object:
        assert not any(state() is not None for state in states), "a state of an earlier step is held"
        states.append(weakref.ref(layers[0]))
        return step(frame, layers, *others)

    monkeypatch.setattr(model, "_step", watched)
    with torch.no_grad():
        model(small_clip()[:, :CONTEXT], HORIZON)
    assert len(states) == STEPS


def test_lengths_of_segments() -> None:
    assert segment_length(19, "none") == 19
    assert [segment_length(steps, "lean") for steps in (1, 4, 19, 39)] == [1, 2, 4, 6]
    assert segment_length(19, 3) == 3


@pytest.mark.parametrize(("wrong", "message"), [("some", "'none', 'lean' or the steps"), (0, "at least 1")])
def test_no_such_recomputation(wrong: int | str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model("convlstm").rollout(small_clip(), CONTEXT, HORIZON, recompute=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ONE_SHOT)
def test_models_without_steps_say_so(name: str) -> None:
    with pytest.raises(ValueError, match="for recurrent models"):
        small_model(name).rollout(small_clip(), CONTEXT, HORIZON, recompute="lean")
