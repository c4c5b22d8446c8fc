"""Every promise of ``docs/reliability.md``, tried a few times; ``make torture`` tries each many times."""

from __future__ import annotations

from pathlib import Path

import pytest
from torture.promise import Promise, all_promises


@pytest.mark.parametrize(
    "promise", [promise for promise in all_promises() if promise.short], ids=lambda promise: promise.name
)
def test_promises_hold(promise: Promise, tmp_path: Path) -> None:
    figure = promise.check(tmp_path, promise.short)
    assert figure.tried > 0
    assert not figure.broken
    assert figure.held == figure.tried
