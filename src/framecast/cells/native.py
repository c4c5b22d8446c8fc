"""Where cells find native code for the processor, and how it is switched off for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from framecast.registry import resolve

# A list and not functools.cache, which torch's compiler cannot trace.
_found: list[Any] = []


def native() -> Any:
    """Return the native convolution and gates, or None where there are none; the first call may compile them."""
    if not _found:
        _found.append(resolve("framecast.compute.native.find:find_native")())
    return _found[0]


@contextmanager
def torch_alone() -> Iterator[None]:
    """Have cells computed by torch alone meanwhile."""
    before = list(_found)
    _found[:] = [None]
    try:
        yield
    finally:
        _found[:] = before
