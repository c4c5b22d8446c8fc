"""Laws and parity hold with native code and without it."""

from __future__ import annotations

import pytest
from samples.native import WAYS, use


@pytest.fixture(params=WAYS)
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute cells by torch alone, and by native code."""
    use(monkeypatch, request.param)
