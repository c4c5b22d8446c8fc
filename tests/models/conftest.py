"""Laws and parity hold with native code and without it."""

from __future__ import annotations

import pytest
from samples.native import WAYS, use


@pytest.fixture(params=WAYS)
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Compute cells by torch alone, and by native code; return which."""
    use(monkeypatch, request.param)
    way: str = request.param
    return way
