"""Something that is opened on first use, anew in every process, so that workers never share a file handle."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """What ``opener`` returns, opened once in each process, forked ones included.

    Args:
        opener: opens it; must be picklable where worker processes are spawned.
    """

    def __init__(self, opener: Callable[[], T]) -> None:
        self._opener = opener
        self._content: T | None = None
        self._owner: int | None = None

    def get(self) -> T:
        """Return it, opened in this process."""
        if self._content is None or self._owner != os.getpid():
            self._content, self._owner = self._opener(), os.getpid()
        return self._content

    def close(self) -> None:
        """Close what this process has opened; it is opened again when it is asked for."""
        if self._content is not None and self._owner == os.getpid():
            close = getattr(self._content, "close", None)
            if close is not None:
                close()
        self._content = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the handle behind when another process gets a copy."""
        return {"_opener": self._opener, "_content": None, "_owner": None}
