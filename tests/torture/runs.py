"""Training runs to be tortured: small ones of the real command line, and how two of them are compared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from framecast.training.callbacks import CheckedCheckpoints
from framecast.training.run_folder import RunFolder

STEPS = 40
PATIENCE = 300
COMPARED = ("weights.safetensors", "log/train.csv", "log/validation.csv")
TRAIN = [
    "train", "--model", "convlstm", "--model_options.hidden", "4", "--model_options.layers", "2",
    "--data", "moving-mnist", "--data_options.size", "16", "--data_options.clips", "60", "--data_options.context", "2",
    "--data_options.horizon", "2", "--steps", str(STEPS), "--batch", "4", "--sampling", "scheduled",
    "--schedule", "one-cycle", "--save_every", "1", "--validate_every", "15", "--validate_clips", "4",
    "--log_every", "3", "--accelerator", "cpu", "--threads", "1", "--progress", "false",
]  # fmt: skip
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start(out: Path, arguments: Sequence[str], launcher: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start framecast, what it prints going to a file beside its run folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, *launcher, "-m", "framecast", *arguments, "--out", str(out)]
    with out.with_name(out.name + ".txt").open("ab") as said:
        return subprocess.Popen(command, stdout=said, stderr=said, env=environment)


def torchrun_this(script: str, out: Path, *arguments: str, launcher: Sequence[str] = TORCHRUN) -> int:
    """Run a file of this package in two processes, or as a launcher says, and return the exit code."""
    out.mkdir()
    command = [sys.executable, *launcher, script, str(out), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
                   "PYTHONPATH": os.pathsep.join(sys.path)}  # fmt: skip
    with out.with_name(out.name + ".txt").open("ab") as said:
        return ended(subprocess.Popen(command, stdout=said, stderr=said, env=environment))


def finish(out: Path, arguments: Sequence[str], launcher: Sequence[str] = ()) -> int:
    """Run framecast to its end and return the exit code."""
    return ended(start(out, arguments, launcher))


def ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a process and return its exit code; one that does not end is killed."""
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def printed(out: Path) -> str:
    """Return what all starts of a run have printed."""
    return out.with_name(out.name + ".txt").read_text()


def running(out: Path) -> dict[int, str]:
    """Return the processes, by their numbers, that have this run folder among their arguments."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                dead = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            except OSError:
                continue
            if str(out) in words and not dead:
                found[int(entry.name)] = " ".join(words)
    return found


def staying(out: Path, seconds: float) -> dict[int, str]:
    """Return the processes of a run folder that have not ended after so many seconds."""
    end = time.monotonic() + seconds
    while (found := running(out)) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def wait_for_batch(out: Path, batch: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until a training has saved the state after a batch; return False where it ended before."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        states = RunFolder(out).saved_checkpoints()
        if states and int(states[0].stem.split("-")[1]) >= batch:
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    raise TimeoutError(printed(out))


def kill(number: int) -> bool:
    """SIGKILL a process that we started; return whether it was still there."""
    try:
        os.kill(number, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def differences(one: Path, other: Path) -> list[str]:
    """Return where two runs differ: weights and logs byte for byte, the last training states value for value."""
    found = [name for name in COMPARED if (one / name).read_bytes() != (other / name).read_bytes()]
    newest = [RunFolder(run).saved_checkpoints()[0] for run in (one, other)]
    if newest[0].name != newest[1].name:
        return [*found, f"{newest[0].name} and {newest[1].name}"]
    states = [CheckedCheckpoints().load_checkpoint(path) for path in newest]
    return found + unequal(*states, where="state")


def unequal(one: Any, other: Any, where: str) -> list[str]:
    """Return the places where two nested values differ in as much as a bit."""
    if type(one) is not type(other):
        return [where]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [where]
        return [place for key in one for place in unequal(one[key], other[key], f"{where}.{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [where]
        return [
            place
            for key, (a, b) in enumerate(zip(one, other, strict=True))
            for place in unequal(a, b, f"{where}.{key}")
        ]
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        raw = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)] if same else []
        return [] if same and torch.equal(raw[0], raw[1]) else [where]
    return [] if one == other or (one != one and other != other) else [where]
