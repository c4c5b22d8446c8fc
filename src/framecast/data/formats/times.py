"""Time stamps: decoding, and their steps, gaps and jitter.

Times are whole seconds since 1970 UTC. A time axis need not be regular: windows are cut where frames stand at
exactly the interval, so all that must be found is that interval.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from framecast.data.sources import Indices
from framecast.errors import DataError

TIME_NAMES = ("time", "times", "timestamp", "timestamps", "valid_time", "date", "dates", "datetime")
_UNITS = {"millisecond": 1e-3, "msec": 1e-3, "ms": 1e-3, "second": 1, "sec": 1, "s": 1, "minute": 60, "min": 60,
          "hour": 3600, "hr": 3600, "h": 3600, "day": 86400, "d": 86400}  # fmt: skip
_STANDARD = ("standard", "gregorian", "proleptic_gregorian")
_FARTHEST_SECONDS = 10**16
_LATEST_SECONDS = 4_102_444_800  # the year 2100: larger whole numbers are calendar digits or another unit


class Steps(NamedTuple):
    """The steps of a time axis.

    Attributes:
        interval: the most common step, in seconds; None of fewer than two frames.
        share: of all steps that are exactly this.
        gaps: steps that are longer.
        longest: the longest step, in seconds.
        shorter: steps that are shorter.
    """

    interval: int | None
    share: float
    gaps: int
    longest: int
    shorter: int


def step_statistics(times: Indices) -> Steps:
    """Find the most common step of rising times, the smallest of equally common ones, and what deviates."""
    if len(times) < 2:
        return Steps(None, 1.0, 0, 0, 0)
    steps = np.diff(times)
    distinct, counts = np.unique(steps, return_counts=True)
    interval = int(distinct[counts.argmax()])
    return Steps(
        interval,
        float((steps == interval).mean()),
        int((steps > interval).sum()),
        int(steps.max()),
        int((steps < interval).sum()),
    )


def snap_times(times: Indices, interval: int, tolerance: int) -> Indices:
    """Move times that are within ``tolerance`` seconds of a multiple of ``interval`` onto it.

    Raises:
        DataError: ``tolerance`` is not below half the interval, so it could join two frames.
    """
    if not 0 <= tolerance < interval / 2:
        raise DataError(f"tolerance is {tolerance} s and must be at least 0 and below half the interval, {interval} s")
    nearest = (times + interval // 2) // interval * interval
    return np.where(np.abs(nearest - times) <= tolerance, nearest, times)


def read_times(stored: NDArray[Any], attributes: Mapping[str, Any], where: str) -> Indices:
    """Turn stored time stamps into seconds.

    Args:
        stored: (N,) datetime64; text such as 2017-06-01T12:05 or 201706011205; numbers with the CF attribute
            ``units`` ("minutes since 2000-01-01"); whole seconds since 1970; or calendar digits YYYYMMDDHHMM[SS].
        attributes: of the variable, for ``units`` and ``calendar``.
        where: the file and variable, for messages.

    Raises:
        DataError: they are none of these, some are missing, or they are finer than a second.
    """
    if stored.ndim != 1:
        raise DataError(f"{where} is {stored.shape} and time stamps have one axis: name the right variable as time=")
    if stored.dtype.kind == "M":
        if np.isnat(stored).any():
            raise DataError(f"{where}: {int(np.isnat(stored).sum())} time stamps are missing (NaT): drop these frames")
        return _rounded(stored.astype("datetime64[ns]").astype(np.int64) / 1e9, where)
    if stored.dtype.kind in "SUO":
        return np.array([_from_text(text, where) for text in stored.tolist()], np.int64)
    if stored.dtype.kind not in "iuf":
        raise DataError(f"{where} holds {stored.dtype} and time stamps are numbers, text or datetime64")
    if not np.isfinite(stored).all():
        raise DataError(f"{where}: {int((~np.isfinite(stored)).sum())} time stamps are NaN or infinite: drop them")
    if attributes.get("units"):
        step, start = _cf_unit(attributes, where)
        return _rounded(stored.astype(np.float64) * step, where) + start
    return _from_numbers(_rounded(stored.astype(np.float64), where), where)


def _rounded(seconds: NDArray[np.float64], where: str) -> Indices:
    rounded = np.rint(seconds)
    if len(seconds) and np.abs(rounded).max() > _FARTHEST_SECONDS:
        raise DataError(
            f"{where}: {int((np.abs(rounded) > _FARTHEST_SECONDS).sum())} time stamps are missing: drop them"
        )
    if len(seconds) and np.abs(rounded - seconds).max() > 0.01:
        raise DataError(
            f"{where}: time stamps are finer than a second, which clips do not tell: give time='none' to take the "
            "frames as equally spaced"
        )
    return rounded.astype(np.int64)


def _from_text(text: Any, where: str) -> int:
    words = text.decode("ascii", "replace") if isinstance(text, bytes) else text
    if not isinstance(words, str):
        raise DataError(f"{where} holds {type(text).__name__} objects and time stamps are numbers, text or datetime64")
    words = words.strip().rstrip("Z")
    try:
        if re.fullmatch(r"\d{8}|\d{12}|\d{14}", words):
            moment = datetime.strptime(words, "%Y%m%d%H%M%S"[: len(words) - 2])
        else:
            moment = datetime.fromisoformat(words)
    except ValueError as error:
        raise DataError(f"{where}: {words!r} is not a time stamp: write 2017-06-01T12:05 or 201706011205") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _from_numbers(numbers: Indices, where: str) -> Indices:
    if not len(numbers) or (numbers.min() >= 0 and numbers.max() <= _LATEST_SECONDS):
        return numbers
    digits = {len(str(number)) for number in (numbers.min(), numbers.max())}
    if digits <= {12} or digits <= {14}:
        return np.array([_from_text(str(number), where) for number in numbers.tolist()], np.int64)
    raise DataError(
        f"{where}: {numbers[0]} is neither seconds since 1970 nor YYYYMMDDHHMM: give the variable an attribute units, "
        "such as 'seconds since 1970-01-01'"
    )


def _cf_unit(attributes: Mapping[str, Any], where: str) -> tuple[float, int]:
    """Return the seconds of one unit, and the start in seconds since 1970."""
    unit = attributes["units"]
    words = unit.decode("ascii", "replace") if isinstance(unit, bytes) else str(unit)
    calendar = attributes.get("calendar", "standard")
    calendar = calendar.decode("ascii", "replace") if isinstance(calendar, bytes) else str(calendar)
    match = re.fullmatch(r"\s*(\w+)\s+since\s+(.+?)\s*", words)
    name = match.group(1).lower() if match else ""
    name = name if name in _UNITS else name.removesuffix("s")
    if match is None or name not in _UNITS or calendar.lower() not in _STANDARD:
        raise DataError(
            f"{where}: units {words!r} with calendar {calendar!r} cannot be read: use 'seconds since 1970-01-01' or "
            "minutes, hours, days in the standard calendar"
        )
    start = re.sub(r"\s*(UTC|GMT|Z)$", "", match.group(2))
    # Years such as 0001 and hours such as 0:0:0 are common in the wild.
    parts = re.fullmatch(r"(\d+)-(\d+)-(\d+)(?:[ T]+(\d+):(\d+)(?::(\d+)(?:\.\d*)?)?)?(?:\s*([+-]\d+:?\d*))?", start)
    try:
        if parts is None:
            raise ValueError(start)
        year, month, day, hour, minute, second = (int(part or 0) for part in parts.groups()[:6])
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        if year < 1583 and calendar != "proleptic_gregorian":
            raise ValueError(start)  # the standard calendar was another one then
    except ValueError as error:
        raise DataError(f"{where}: {start!r} in units {words!r} is not a date since 1583, like 1970-01-01") from error
    return _UNITS[name], int(moment.timestamp()) - _zone(parts.group(7))


def _zone(offset: str | None) -> int:
    """Return the seconds of a time zone such as +2:00, 0 of none."""
    if not offset:
        return 0
    hours, _, minutes = offset[1:].partition(":")
    return (1 if offset[0] == "+" else -1) * (int(hours) * 3600 + int(minutes or 0) * 60)
