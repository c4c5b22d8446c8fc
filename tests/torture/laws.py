"""Promises whose checks are tests of ``make test``, run again and counted here, and what safety costs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

from samples.paths import ROOT

from torture.promise import Figure, Promise

PATIENCE = 1800
LAWS = {
    "D2": ("RADOLAN files with unknown tokens, empty, cut, of another size, packed: the right error or values",
           "radolan", ""),
    "D3": ("No clip spans a gap or a border (1,000 patterns); masked values change nothing; dry is finite",
           "windows masks properties", "gap or possible or mask or dry or constant"),
    "D4": ("A sequence shorter than a clip is left out and told, or an error, never padded",
           "check kth own own_files", "short"),
    "D5": ("Archives write nothing outside their folder, leave nothing behind, and bombs are refused",
           "archives", "archives"),
    "D7": ("A full disk, a read-only folder or a link that leads nowhere is told with the path, and is no fault of the "
           "data",
           "files files_places convert_again verbs", "full_disk or nowhere or read_only or no_folder or not_text"),
    "D8": ("What a file only claims takes no memory, in any format; pipes and endless groups are refused at once",
           "claimed_memory declared_sizes untrusted",
           "claims or copies or clips_are_refused or pipe or groups or heap"),
    "R12": ("Numbers that are not finite: options are refused, a stream takes them as no data, a kept graph is told",
            "training laws", "not_finite or no_data_is_taken or stream_that_keeps"),
    "S3": ("No word of results, titles or labels runs in a report", "untrusted figures verbs", "escape"),
    "S1": ("Exploit files run nothing, whatever entry they are given to, and no code could run them",
           "untrusted", "runs_code or exploits or rule"),
    "S2": ("Parsers given 500 edited files each end in data or our error; declared sizes are checked first",
           "parsers declared_sizes archives", "parsers or sizes or claims or bombs or packed or chunk"),
    "P1": ("Paddings, patches, crops, scalings, configurations and files come back; scores have bounds and add up; 200 "
           "examples each", "properties scaling image_scores rain_scores", ""),
}  # fmt: skip


def tests_hold(topics: str, chosen: str, folder: Path, times: int) -> Figure:
    """Run the chosen tests of some topics in their long forms, and count those that passed."""
    del folder, times
    files = [str(*(ROOT / "tests").rglob(f"test_{topic}.py")) for topic in topics.split()]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", chosen]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"FRAMECAST_LONG_TESTS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|errors?)", done.stdout)}
    held = counts.get("passed", 0)
    lost = re.findall(r"^(?:FAILED|ERROR) .*", done.stdout, re.MULTILINE)
    return Figure(held, max(1, sum(counts.values())), "tests", tuple(lost) or (() if held else (done.stdout[-2000:],)))


def cost_of_safety(folder: Path, times: int) -> Figure:
    """Run the benchmark of safety and count the targets that are met."""
    del folder, times
    command = [sys.executable, str(ROOT / "benchmarks/safety.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines() if " target " in line]
    missed = tuple(line for line in lines if line.endswith("MISSED"))
    return Figure(len(lines) - len(missed), max(3, len(lines)), "; ".join(lines), missed)


PROMISES = [
    Promise("R6", "Saving flushes and checks at little cost", cost_of_safety, long=1, short=0),
    *(Promise(name, sentence, partial(tests_hold, topics, chosen), long=1, short=0)
      for name, (sentence, topics, chosen) in LAWS.items()),
]  # fmt: skip
