"""Time stamps: decoding, and their steps, gaps and jitter.

Times are whole seconds since 1970 UTC; in a calendar with other years than ours (noleap, 360_day), seconds of that
calendar. A time axis need not be regular: windows are cut where frames stand at exactly the interval, so all that must
be found is that interval.

Reference: CF conventions, chapter 4.4; dates and calendars are read by cftime.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, NamedTuple

import cftime
import numpy as np
from numpy.typing import NDArray

from framecast.data.sources import Indices
from framecast.errors import DataError

TIME_NAMES = (
    "time", "times", "timestamp", "timestamps", "valid_time", "xtime", "date", "dates", "datetime",
)  # fmt: skip
_UNITS = {
    Fraction(1, 10**9): ("nanosecond", "nsec", "ns"),
    Fraction(1, 10**6): ("microsecond", "microsec", "us"),
    Fraction(1, 1000): ("millisecond", "millisec", "msec", "ms"),
    Fraction(1): ("second", "sec", "s"),
    Fraction(60): ("minute", "min"),
    Fraction(3600): ("hour", "hr", "h"),
    Fraction(86400): ("day", "d"),
}
_SECONDS = {word + plural: unit for unit, words in _UNITS.items() for word in words for plural in ("", "s")}
_FARTHEST_SECONDS = 10**16
_LATEST_SECONDS = 4_102_444_800  # the year 2100: larger whole numbers are calendar digits or another unit
_LIKELY_SECONDS = 10**8  # 1973: smaller numbers without a unit are hardly dates
_DIGITS = {6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_PRECISION = 0.01
_FARTHEST_ZONE = 14 * 3600
_WAY_ON = "give time='none' to take the frames as equally spaced"


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
    """Move times that are within ``tolerance`` seconds of the series' own grid onto it.

    The grid is that of the multiples of ``interval`` since 1970 where more times are near it than near any other, else
    the one through the mean of the times.

    Raises:
        DataError: ``tolerance`` is not below half the interval, so it could join two frames.
    """
    if not 0 <= tolerance < interval / 2:
        raise DataError(f"tolerance is {tolerance} s and must be at least 0 and below half the interval, {interval} s")
    angles = (times % interval) * (2 * np.pi / interval)
    mean = round(float(np.angle(np.exp(1j * angles).mean())) * interval / (2 * np.pi)) if len(times) else 0
    grids = [(times - phase + interval // 2) // interval * interval + phase for phase in (0, mean)]
    near = [np.abs(grid - times) <= tolerance for grid in grids]
    best = int(near[1].sum() > near[0].sum())
    return np.where(near[best], grids[best], times)


def read_times(stored: NDArray[Any], attributes: Mapping[str, Any], where: str, tolerance: int = 0) -> Indices:
    """Turn stored time stamps into seconds.

    Args:
        stored: (N,) datetime64; text such as 2017-06-01T12:05 or 201706011205, as (N, letters) characters too; numbers
            with the CF attribute ``units`` ("minutes since 2000-01-01"); whole seconds since 1970; or calendar digits
            YYYYMMDD[HH[MM[SS]]].
        attributes: of the variable, for ``units`` and ``calendar``.
        where: the file and variable, for messages.
        tolerance: seconds by which a stamp may be wrong.

    Raises:
        DataError: they are none of these, some are missing, or they are less precise than the tolerance.
    """
    if stored.ndim == 2 and stored.dtype.kind in "SU" and stored.dtype.itemsize in (1, 4):
        stored = np.array(["".join(map(_text, row)) for row in stored.tolist()])
    if stored.ndim != 1:
        raise DataError(f"{where} is {stored.shape} and time stamps have one axis: name the right variable as time=")
    if stored.dtype.kind == "M":
        if np.isnat(stored).any():
            raise DataError(f"{where}: {int(np.isnat(stored).sum())} time stamps are missing (NaT): drop these frames")
        return _whole_seconds(stored.astype("datetime64[ns]").astype(np.int64), Fraction(1, 10**9), where, tolerance)
    if stored.dtype.kind in "SUO":
        return np.array([_from_text(text, where) for text in stored.tolist()], np.int64)
    if stored.dtype.kind not in "iuf":
        raise DataError(f"{where} holds {stored.dtype} and time stamps are numbers, text or datetime64")
    if not np.isfinite(stored).all():
        raise DataError(f"{where}: {int((~np.isfinite(stored)).sum())} time stamps are NaN or infinite: drop them")
    units = _text(attributes.get("units", ""))
    if units.lower().startswith("day as %y%m%d"):
        days, fractions = np.divmod(stored.astype(np.float64), 1)
        return _dates(days.astype(np.int64), "%Y%m%d", where) + _whole_seconds(
            fractions, Fraction(86400), where, tolerance
        )
    if units:
        step, start = _cf_unit(units, _text(attributes.get("calendar", "standard")), where)
        return _whole_seconds(stored, step, where, tolerance) + start
    return _from_numbers(_whole_seconds(stored, Fraction(1), where, tolerance), where)


_DIRECTIVES = {"%Y": r"\d{4}", "%y": r"\d{2}", "%j": r"\d{3}", **{f"%{c}": r"\d{2}" for c in "mdHMS"}}
_STAMPS = re.compile(r"(?<!\d)(?:19|20)\d{2}([-_.]?)\d{2}\1\d{2}[-_.T]?\d{2}[-_.]?\d{2}(?:[-_.]?\d{2})?(?!\d)")


def time_in_name(name: str, pattern: str) -> int | None:
    """Return the time that a file's name tells by a pattern such as "radar_%Y%m%d%H%M", or None where it does not fit.

    The pattern is of ``strptime``; ? stands for any one letter, and what follows the pattern is ignored.
    """
    parts = re.split(r"(%[A-Za-z]|\?)", pattern)
    words = "".join(f"({_DIRECTIVES[part]})" if part in _DIRECTIVES else "." if part == "?" else re.escape(part)
                    for part in parts)  # fmt: skip
    match = re.match(words, name)
    try:
        moment = match and datetime.strptime("".join(match.groups()), "".join(p for p in parts if p in _DIRECTIVES))
    except ValueError:
        return None
    return int(moment.replace(tzinfo=UTC).timestamp()) if moment else None


def times_in_names(names: Sequence[str], pattern: str | None) -> Indices | None:
    """Return the times that the names of files tell, by a pattern or, of 12 or 14 digits, without one; else None.

    Raises:
        DataError: a name does not fit the pattern.
    """
    if pattern is not None:
        times = [time_in_name(name, pattern) for name in names]
        if None in times:
            raise DataError(f"{names[times.index(None)]} does not fit time={pattern!r}: give the pattern of all names")
        return np.array(times, np.int64)
    digits = [[re.sub(r"\D", "", stamp[0]) for stamp in _STAMPS.finditer(name)] for name in names]
    if any(len(stamps) != 1 for stamps in digits) or not names:
        return None
    try:
        return np.array([_from_text(stamp, name) for (stamp,), name in zip(digits, names, strict=True)], np.int64)
    except DataError:
        return None


def holds_dates(variable: Any) -> bool:
    """Return whether a variable holds dates by its type or its units: datetime64, text or a CF unit of time since."""
    units = _text(variable.attrs.get("units", "")).lower()
    return variable.dtype.kind in "MSUO" or " since " in units or units.startswith("day as %y")


def doubts_about_times(times: Indices, attributes: Mapping[str, Any]) -> list[str]:
    """Say what is doubtful about times that were read."""
    calendar = _text(attributes.get("calendar", "")).lower()
    if calendar in ("noleap", "365_day", "360_day", "all_leap", "366_day"):
        return [f"time stamps are those of the calendar {calendar}, whose years are not ours"]
    if calendar == "julian":
        return ["the calendar julian is taken as the standard one, as writers mean it"]
    if not attributes.get("units") and len(times) and 0 <= times.max() < _LIKELY_SECONDS:
        second = times[min(1, len(times) - 1)]
        return [f"time stamps {times[0]}, {second} ... have no unit and are no dates: taken as seconds since 1970"]
    return []


def _whole_seconds(stored: NDArray[Any], step: Fraction, where: str, tolerance: int) -> Indices:
    """Return stored numbers of so many seconds each as whole seconds; a fraction that all share is left out."""
    if stored.dtype.kind in "iu":
        numbers = stored.astype(np.int64)
        if len(numbers) and np.abs(numbers.astype(np.float64)).max() * float(step) > _FARTHEST_SECONDS:
            raise DataError(f"{where}: some time stamps are missing: drop these frames")
        whole, rest = np.divmod(numbers * step.numerator, step.denominator)
        seconds, error = rest / step.denominator, 0.0
    else:
        exact = stored.astype(np.float64) * float(step)
        if len(exact) and np.abs(exact).max() > _FARTHEST_SECONDS:
            raise DataError(f"{where}: some time stamps are missing: drop these frames")
        whole, seconds = np.floor(exact).astype(np.int64), exact - np.floor(exact)
        error = float(np.spacing(np.abs(stored).max())) * float(step) / 2 if len(stored) else 0.0
    if not len(whole):
        return whole
    # Half a second past each minute is a minute; the rounding of floats goes both ways.
    fractions = seconds - seconds[0]
    shared = float(np.abs(fractions - np.rint(fractions)).max()) <= _PRECISION
    if shared:
        near = round(float(seconds[0])) if min(seconds[0], 1 - seconds[0]) <= _PRECISION else 0
        result: Indices = whole + np.rint(fractions).astype(np.int64) + near
    else:
        result = whole + np.rint(seconds).astype(np.int64)
        error = max(error, float(np.abs(seconds - np.rint(seconds)).max()))
    if error > (0.5 if shared else _PRECISION) and error > tolerance:
        what = f"are told to {2 * error:.2g} s only, as {stored.dtype}" if error > 0.5 else "are finer than a second"
        raise DataError(
            f"{where}: time stamps {what}: give interval= and tolerance={max(1, int(np.ceil(2 * error)))} or more, or "
            f"{_WAY_ON}"
        )
    return result


def _text(value: Any) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


def _from_text(text: Any, where: str) -> int:
    if not isinstance(text, bytes | str):
        raise DataError(f"{where} holds {type(text).__name__} objects and time stamps are numbers, text or datetime64")
    words = _text(text).strip("\x00 ").removesuffix("Z")
    try:
        if words.isdecimal() and len(words) in _DIGITS:
            moment = datetime.strptime(words, _DIGITS[len(words)])
        else:
            moment = datetime.fromisoformat(words.replace("_", "T"))
    except ValueError as error:
        raise DataError(f"{where}: {words!r} is not a time stamp: write 2017-06-01T12:05 or 201706011205") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)


def _from_numbers(numbers: Indices, where: str) -> Indices:
    """Return numbers without a unit as seconds since 1970, or as the dates that their digits are."""
    digits = {len(str(number)) for number in (numbers.min(), numbers.max())} if len(numbers) else set()
    if len(digits) == 1 and (form := _DIGITS.get(digits.pop())):
        years = numbers // 10 ** (len(str(numbers[0])) - 4)
        if years.min() >= 1900 and years.max() <= 2100:
            try:
                return _dates(numbers, form, where)
            except DataError:
                pass  # seconds that look like the digits of a date at first
    if not len(numbers) or (numbers.min() >= 0 and numbers.max() <= _LATEST_SECONDS):
        return numbers
    raise DataError(
        f"{where}: {numbers[0]} is neither seconds since 1970 nor YYYYMMDDHHMM: give the variable an attribute units, "
        f"such as 'seconds since 1970-01-01', or {_WAY_ON}"
    )


def _dates(numbers: Indices, form: str, where: str) -> Indices:
    try:
        moments = [datetime.strptime(str(number), form).replace(tzinfo=UTC) for number in numbers.tolist()]
    except ValueError as error:
        raise DataError(f"{where}: {error}, as dates like {form} have to be") from error
    return np.array([int(moment.timestamp()) for moment in moments], np.int64)


def _cf_unit(units: str, calendar: str, where: str) -> tuple[Fraction, int]:
    """Return the seconds of one unit, and the start in seconds since 1970 of its calendar."""
    match = re.fullmatch(r"\s*(\w+)\s+since\s+(.+?)\s*", units)
    step = _SECONDS.get(match.group(1).lower()) if match else None
    if match is None or step is None:
        raise DataError(
            f"{where}: units {units!r} cannot be read, as 'seconds since 1970-01-01' or minutes, hours and days can: "
            f"correct them, or {_WAY_ON}"
        )
    date, zone = _split_zone(match.group(2))
    kind = calendar.lower()
    kind = "standard" if kind in ("julian", "gregorian", "none", "") else kind
    try:
        if zone is None or not re.match(r"\d+-\d+-\d+", date):
            raise ValueError(date)
        start = cftime.num2date(0, f"seconds since {date}", kind)
        return step, round(cftime.date2num(start, "seconds since 1970-01-01", kind)) - zone
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(
            f"{where}: units {units!r} with calendar {calendar!r} start at no date that can be read, like 1970-01-01 "
            f"00:00 +02:00: correct them, or {_WAY_ON}"
        ) from error


def _split_zone(start: str) -> tuple[str, int | None]:
    """Return a date without its time zone, and the zone in seconds, 0 of none and None of one that is not known.

    UDUNITS reads +2, +02, +0200, +200 and +2:00 alike: hours and minutes.
    """
    date, _, zone = re.sub(r"\s*(UTC|GMT|Z)$", " +0", start.strip()).rpartition(" ")
    glued = re.fullmatch(r"(\d+-\d+-\d+[ T]+\d+:\d+(?::[\d.]+)?)([+-].+)", start.strip())
    if glued:
        date, zone = glued.groups()
    match = re.fullmatch(r"([+-])(?:(\d{1,2})(?::?(\d{2}))?)", zone)
    if match:
        sign, hours, minutes = match.groups()
        if len(hours + (minutes or "")) == 3 and ":" not in zone:
            hours, minutes = zone[1], zone[2:]
        offset = int(hours) * 3600 + int(minutes or 0) * 60
        return date.strip(), (1 if sign == "+" else -1) * offset if offset <= _FARTHEST_ZONE else None
    return start.strip(), None if re.match(r"[+-]|.*[A-Za-z]{2,}", zone) else 0
