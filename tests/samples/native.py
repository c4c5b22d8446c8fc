"""Native code, used for everything that it takes, or for nothing."""

from __future__ import annotations

import pytest

from framecast.cells import native
from framecast.compute.native import conv_same, gates
from framecast.compute.native.library import why_not

WAYS = ("torch", "native")


def use(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Have cells computed by torch alone, or by native code however little there is to do."""
    if way == "torch":
        monkeypatch.setattr(native, "_found", [None])
        return
    if why_not():
        pytest.skip(why_not())
    monkeypatch.setattr(conv_same, "WORTH", 0)
    monkeypatch.setattr(conv_same, "LEAST_CHANNELS", 1)
    monkeypatch.setattr(gates, "LEAST", 0)
