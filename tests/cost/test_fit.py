"""What the cost report advises, and that it advises only."""

from __future__ import annotations

import pytest

from framecast.compute.precision import bfloat16_gain
from framecast.cost import measure as module
from framecast.cost.measure import cheaper_ways

SHAPE = (6, 1, 16, 16)


def test_the_gain_is_measured() -> None:
    assert 0 < bfloat16_gain() < 100


@pytest.mark.parametrize(("gain", "said"), [(2.0, "2.0 times faster"), (0.05, "20.0 times slower")])
def test_bfloat16_is_advised_where_it_is_faster(gain: float, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "bfloat16_gain", lambda device: gain)
    assert said in cheaper_ways("convlstm", SHAPE, 3, hidden=4)[1]


def test_lean_memory_is_smaller_and_only_for_models_with_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "bfloat16_gain", lambda device: 1.0)
    assert "lean" in cheaper_ways("predrnn", SHAPE, 3, hidden=4)[0]
    assert not any("lean" in line for line in cheaper_ways("simvp", SHAPE, 3, hid_S=8, hid_T=16, N_T=2))


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "bfloat16_gain", lambda device: 1.0)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    assert "needs a C++ compiler" in cheaper_ways("convlstm", SHAPE, 3, hidden=4)[-1]


def test_native_code_is_measured_or_its_absence_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "bfloat16_gain", lambda device: 1.0)
    seconds = iter((4.0, 1.0))
    monkeypatch.setattr(module, "median_seconds", lambda work: (work(), next(seconds))[1])
    monkeypatch.setattr(module, "why_not", lambda: "")
    assert "native convolutions: in use, a 5x5 convolution is 4.0 times as fast" in module.native_advice()
    monkeypatch.setattr(module, "why_not", lambda: "there is no C++ compiler (g++)")
    advice = cheaper_ways("convlstm", SHAPE, 3, hidden=4)
    assert any("native convolutions: none, there is no C++ compiler (g++)" in line for line in advice)
    assert not any("native" in line for line in cheaper_ways("simvp", SHAPE, 3, hid_S=8, hid_T=16, N_T=2))
