"""Another process that holds a lock, as one that trains does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# It has a child of its own, as those that prepare clips are, which outlives it.
CODE = """
import os, sys, time
from pathlib import Path
from framecast.files import locked
with locked(Path(sys.argv[1])):
    if not os.fork():
        time.sleep(3)
        os._exit(0)
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def holding(lock: Path) -> Iterator[int]:
    """Have another process hold a lock, and SIGKILL it in the end; yield its number."""
    with subprocess.Popen([sys.executable, "-c", CODE, str(lock)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            yield process.pid
        finally:
            process.kill()
