"""What a promise is: a sentence, and a check that tries to break it so many times.

Every module of this package may hold a list ``PROMISES``; ``all_promises`` finds them, so that a new one needs no
entry elsewhere. ``python -m torture`` (``make torture``) runs the long forms, ``tests/test_torture.py`` the short ones.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torture


class Figure(NamedTuple):
    """What a check found.

    Attributes:
        held: how often the promise held.
        tried: how often it was tried.
        note: what else was seen, e.g. how often the fault fell into the middle of a write.
        broken: one line for each time it did not hold.
    """

    held: int
    tried: int
    note: str = ""
    broken: tuple[str, ...] = ()


@dataclass(frozen=True)
class Promise:
    """A sentence and its check.

    Args:
        name: of the table in the docs, e.g. "R1".
        sentence: what is promised.
        check: tries to break it in an empty folder, so many times.
        long: how many times in ``make torture``.
        short: how many times in ``make test``; 0 leaves it to the long form.
    """

    name: str
    sentence: str
    check: Callable[[Path, int], Figure]
    long: int
    short: int


def all_promises() -> list[Promise]:
    """Return the promises of all modules of this package, in the order of their names (R2 before R10)."""
    found: list[Promise] = []
    for module in pkgutil.iter_modules(torture.__path__):
        if not module.name.startswith("_"):
            found += getattr(importlib.import_module(f"torture.{module.name}"), "PROMISES", [])
    return sorted(found, key=lambda promise: (promise.name[0], int(promise.name[1:])))
