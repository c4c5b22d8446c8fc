"""The errors framecast raises on purpose: each says what is wrong, where, and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnknownNameError(ValueError):
    """A name that is not in a table; the message lists the table and the nearest spelling."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"there is no {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}.")


class DataError(ValueError):
    """Data that cannot be used as it is: wrong shape, range, axis order, or a damaged file."""


class DatasetNotFoundError(FileNotFoundError):
    """Files of a data set that are not where they were sought."""


class WeightsError(ValueError):
    """A weights or checkpoint file that is damaged or does not fit the model."""


class RunFolderError(FileExistsError):
    """A run folder that exists already, or lacks what is needed from it."""


class HeldError(OSError):
    """A lock that another process holds; the message is who it is."""


class NonFiniteError(ArithmeticError):
    """A training step whose loss or gradient is NaN or infinite; the message names step and clips."""


class OutOfMemoryError(MemoryError):
    """A training that does not fit into memory; the message says what was tried and what needs less."""


class PeerLostError(ConnectionError):
    """Another process of the same training that has ended before its time."""


class MissingExtraError(ImportError):
    """An optional dependency that is not installed; the message names the pip command."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed: pip install 'framecast[{extra}]'")


def check_count(name: str, value: int, least: int = 1) -> None:
    """Refuse a count below its least value.

    Raises:
        ValueError: value is not a whole number of at least ``least``.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is {value!r} and must be a whole number of at least {least}")


# Processors, cuBLAS and cuDNN have no error class of their own for it; CUDA has.
SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory did not suffice."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
    )
