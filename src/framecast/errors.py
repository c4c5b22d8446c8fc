"""The errors that framecast raises: each says what is wrong, where, and how to mend it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any, Self


class FramecastError(Exception):
    """Base of all error classes of framecast: ``except framecast.FramecastError`` catches them all."""


class UnknownNameError(FramecastError, ValueError):
    """A name that is not in a table; the message lists the table and the nearest spelling."""

    def __init__(self, kind: str, name: str, choices: Iterable[str]) -> None:
        names = sorted(choices)
        near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"there is no {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}.")

    def with_remedy(self, remedy: str) -> Self:
        """Return the error with one more sentence on how to mend it."""
        self.args = (f"{self} {remedy}",)
        return self


class OptionError(FramecastError, ValueError):
    """An argument or option whose value cannot be used; the message says which values can."""


class CellError(FramecastError, TypeError):
    """A cell that does not keep the contract of cells; the message says what it gives and what it should."""


class DataError(FramecastError, ValueError):
    """Data that cannot be used as it is: wrong shape, range, axis order, or a damaged file."""


class DatasetNotFoundError(FramecastError, FileNotFoundError):
    """Files of a data set that are not where they were sought."""


class WeightsError(FramecastError, ValueError):
    """A weights or checkpoint file that is damaged or does not fit the model."""


class RunFolderError(FramecastError, ValueError):
    """A run folder that cannot be used as it is: a file in it is damaged, or another process trains into it."""


class RunExistsError(RunFolderError, FileExistsError):
    """A folder for a new run that is not empty."""


class RunNotFoundError(RunFolderError, FileNotFoundError):
    """A folder that is not there, or lacks the weights, configuration or results that are needed from it."""


class OutputExistsError(FramecastError, FileExistsError):
    """A file that would be written and is there already."""


class OutputPlaceError(FramecastError, OSError):
    """A place nothing can be written to: read-only, beyond a link that leads nowhere, or of a name that is not text."""


class LockedError(FramecastError, OSError):
    """A lock that another process holds; the message names the process."""


class MeasurementError(FramecastError, ValueError):
    """A measurement in a process of its own that did not complete; the message says why."""


class TrialBusyError(FramecastError, RuntimeError):
    """A trial of a study that another process works on."""


class NonFiniteError(FramecastError, ArithmeticError):
    """A training step whose loss or gradient is NaN or infinite; the message names step and clips."""


class OutOfMemoryError(FramecastError, MemoryError):
    """A training that does not fit into memory; the message says what was tried and what needs less."""


class DiskFullError(FramecastError, OSError):
    """No room for what is unpacked or decoded while a file is read; the file may be whole."""


class PeerLostError(FramecastError, ConnectionError):
    """Another process of the same training that has ended before its time."""


class WorkerLostError(FramecastError, RuntimeError):
    """A process that prepares or converts data and has ended before its time, killed or out of memory."""


class MissingExtraError(FramecastError, ImportError):
    """An optional dependency that is not installed; the message names the pip command."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed: pip install 'framecast[{extra}]'")


def check_count(name: str, value: int, least: int = 1) -> None:
    """Refuse a count below its least value.

    Raises:
        ValueError: value is not a whole number of at least ``least``.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise OptionError(f"{name} is {value!r} and must be a whole number of at least {least}")


def check_finite(name: str, value: Any) -> None:
    """Refuse NaN and infinity, in lists and mappings too.

    Raises:
        ValueError: there is one; the message names the option.
    """
    if isinstance(value, Mapping):
        for key, part in value.items():
            check_finite(f"{name}.{key}", part)
    elif isinstance(value, list | tuple):
        for part in value:
            check_finite(name, part)
    elif isinstance(value, float) and not math.isfinite(value):
        raise OptionError(f"{name} is {value} and must be a finite number")


def check_number(name: str, value: float, *, least: float | None = None, above: float | None = None) -> None:
    """Refuse a number that is not finite, or below what it may be.

    Raises:
        ValueError: it is NaN or infinite, below ``least``, or not above ``above``.
    """
    check_finite(name, value)
    if least is not None and value < least:
        raise OptionError(f"{name} is {value} and must be at least {least}")
    if above is not None and value <= above:
        raise OptionError(f"{name} is {value} and must be above {above}")


# What the loader of torch raises where one of its processes has gone: a word of its own, or what its pipe says.
LOST = ("killed by signal", "exited unexpectedly")


def is_worker_lost(error: BaseException) -> bool:
    """Return whether an error says that a process that prepares clips has gone; ours say themselves what is lost."""
    if isinstance(error, FramecastError):
        return False
    words = str(error) if isinstance(error, RuntimeError) else ""
    lost = "DataLoader worker" in words and any(sign in words for sign in LOST)
    return lost or isinstance(error, ConnectionError | EOFError)


# Processors, cuBLAS and cuDNN have no error class of their own for it; CUDA has.
SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory did not suffice."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
    )
