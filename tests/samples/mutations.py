"""Damage to files, and reading them in a process of their own, so that a crash or hang of a parser is seen."""

from __future__ import annotations

import multiprocessing
import random
import resource
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from framecast.errors import DataError, DatasetNotFoundError, MissingExtraError, RunFolderError, WeightsError

DOCUMENTED = (DataError, DatasetNotFoundError, MissingExtraError, RunFolderError, WeightsError)
SECONDS = 5.0
MEMORY = 6 * 1024**3
"""Address space a reader may take beyond what the process has: a real bomb fails, the machine lives."""


def flip_bit(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :]


def truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def insert_bytes(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.randbytes(rng.randint(1, 9)) + content[place:]


def zero_block(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    stop = min(len(content), start + rng.choice((4, 32, 512)))
    return content[:start] + bytes(stop - start) + content[stop:]


def swap_blocks(content: bytes, rng: random.Random) -> bytes:
    size = max(1, min(rng.choice((4, 32, 512)), len(content) // 3))
    first = rng.randrange(len(content) - 2 * size + 1)
    second = rng.randrange(first + size, len(content) - size + 1)
    left, right = content[first : first + size], content[second : second + size]
    return content[:first] + right + content[first + size : second] + left + content[second + size :]


KINDS = (flip_bit, truncate, insert_bytes, zero_block, swap_blocks)


def mutate(content: bytes, number: int, seed: int = 0) -> bytes:
    """Return content with damage number so and so: the five kinds in turn, most of it at the head of the file."""
    rng = random.Random(f"{seed} {number}")
    if len(content) < 3:
        return content + rng.randbytes(3)
    # Headers are short and data long: every second damage hits the first 512 bytes.
    head = min(len(content), 512) if number % 2 else len(content)
    kind = KINDS[number % len(KINDS)]
    return kind(content[:head], rng) + (b"" if kind is truncate else content[head:])


@dataclass
class Outcomes:
    """What became of the mutations: outcome -> how often, and what should not have been."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    peak: int = 0


def run_apart(read: Callable[[int], Any], count: int, expected: Any, path: Path, seconds: float = SECONDS) -> Outcomes:
    """Call ``read(number)`` for every number in forked processes and sort what happens.

    Outcomes: "same" as expected, "changed", "refused" by a documented error that names the path; all others, other
    errors, crashes and hangs, are wrong.
    """
    result, number = Outcomes(), 0
    context = multiprocessing.get_context("fork")
    while number < count:
        mine, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_work, args=(read, number, count, expected, str(path), theirs), daemon=True)
        child.start()
        theirs.close()
        for outcome, detail, peak in _told(mine, seconds):
            result.outcomes[outcome] += 1
            result.peak = max(result.peak, peak)
            if outcome not in ("same", "changed", "refused"):
                result.wrong.append(f"mutation {number}: {outcome}: {detail}")
            number += 1
        if number < count:
            child.join(0.2)
            outcome = "hang" if child.is_alive() else f"crash, exit code {child.exitcode}"
            result.outcomes[outcome] += 1
            result.wrong.append(f"mutation {number}: {outcome}")
            number += 1
        child.kill()
        child.join()
    return result


def _told(mine: Any, seconds: float) -> Iterator[tuple[str, str, int]]:
    while mine.poll(seconds):
        try:
            yield mine.recv()
        except EOFError:
            return


def _work(read: Callable[[int], Any], start: int, count: int, expected: Any, path: str, theirs: Any) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # a pool of several threads does not outlive a fork
    here = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (here + MEMORY, here + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(start, count):
        try:
            found = read(number)
            outcome, detail = ("same" if found == expected else "changed"), ""
        except DOCUMENTED as error:
            told = path in str(error)
            outcome, detail = ("refused", "") if told else ("no path in the message", repr(error))
        except BaseException as error:
            outcome, detail = "another error", repr(error)[:300]
        theirs.send((outcome, detail, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
