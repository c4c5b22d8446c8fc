"""Compile the native code at first use, keep it in the user's cache, and load it.

The file in the cache is named after all that it follows from: source, compiler, flags and processor. It stands behind a
line with its checksum; one that is damaged, or of another user, is made again and never loaded. Several processes may
compile at once: each puts a whole file into place.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch

from framecast.data.cache import cache_folder
from framecast.errors import WeightsError
from framecast.files import read_checked, write_checked

log = logging.getLogger(__name__)

SOURCES = [Path(__file__).with_name(name) for name in ("conv_same.cpp", "gates.cpp")]
HEADER = Path(__file__).with_name("vectors.h")
KIND = "native"
VARIABLE = "FRAMECAST_NATIVE"
COMPILERS = ("g++", "c++", "clang++")
# What torch says of the processor -> flags for the same instructions: so both can be told to keep to AVX2.
INSTRUCTIONS = {"AVX512": "-march=native", "AVX2": "-mavx2 -mfma"}
SECONDS = 120


class NotNativeError(Exception):
    """There can be no native code here; the message says why."""


@cache
def load_code() -> ctypes.CDLL:
    """Return the compiled code, compiled now where it has not been.

    Raises:
        NotNativeError: it was switched off, or cannot be compiled or loaded here.
    """
    if os.environ.get(VARIABLE, "1") == "0":
        raise NotNativeError(f"{VARIABLE}=0 switches it off")
    compiler = find_compiler()
    if compiler is None:
        raise NotNativeError(f"there is no C++ compiler ({', '.join(COMPILERS)}, or CXX)")
    flags, threads = _flags(), _openmp_of_torch()
    texts = [file.read_text() for file in (*SOURCES, HEADER)]
    key = hashlib.sha256("\n".join((*texts, *_facts(compiler), *flags, str(threads))).encode())
    path = cache_folder() / "native" / key.hexdigest()[:24]
    content = _kept(path)
    if content is None:
        content = _compile(compiler, flags, threads)
        try:
            write_checked(path, KIND, content)
        except OSError as error:
            log.warning("%s; the native code is compiled again next time", error)
    return _loaded(content)


def find_compiler() -> str | None:
    """Return the path of the C++ compiler that CXX names, or of the first that is found."""
    named = os.environ.get("CXX")
    return next((path for name in ([named] if named else COMPILERS) if (path := shutil.which(name))), None)


def _flags() -> list[str]:
    """Return flags for the instructions that torch uses here.

    Raises:
        NotNativeError: an unusual processor or system.
    """
    capability, machine = torch.backends.cpu.get_cpu_capability(), platform.machine().lower()
    if platform.system() != "Linux":
        raise NotNativeError(f"it is made for Linux, and this is {platform.system()}")
    if machine in ("x86_64", "amd64") and capability in INSTRUCTIONS:
        instructions = INSTRUCTIONS[capability]
    elif machine in ("aarch64", "arm64"):
        instructions = "-mcpu=native"
    else:
        raise NotNativeError(f"processors such as this one ({machine}, {capability}) are not known")
    return ["-O3", "-std=c++17", "-fno-math-errno", "-fPIC", "-fopenmp", *instructions.split()]


def _openmp_of_torch() -> Path:
    """Return the library of threads that torch has loaded: with a second one the threads would fight.

    Raises:
        NotNativeError: there is none.
    """
    home = Path(torch.__file__).parent
    for folder in (home / "lib", home.parent / "torch.libs"):
        for path in sorted(folder.glob("libgomp*.so*")):
            return path
    raise NotNativeError("torch does not bring libgomp, whose threads it would share")


def _facts(compiler: str) -> Iterator[str]:
    """Yield what else the code depends on: the compiler's version and the processor."""
    yield subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    for name in ("model name", "flags", "Features", "CPU part"):
        yield next((line for line in lines if line.startswith(name)), "")


def _kept(path: Path) -> bytes | None:
    try:
        if path.stat().st_uid != os.getuid():
            return None
        return read_checked(path, KIND)
    except (OSError, WeightsError):
        return None


def _compile(compiler: str, flags: list[str], threads: Path) -> bytes:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        parts = [Path(folder) / f"{source.stem}.o" for source in SOURCES]
        linked = Path(folder) / "code.so"
        commands = [
            [compiler, *flags, "-c", str(source), "-o", str(part)] for source, part in zip(SOURCES, parts, strict=True)
        ]
        for command in (*commands, [compiler, "-shared", *map(str, parts), str(threads), "-o", str(linked)]):
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise NotNativeError(f"{compiler} fails: {error}") from error
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if "error" in line]
                raise NotNativeError(f"{compiler} fails: {lines[0] if lines else f'exit code {done.returncode}'}")
        content = linked.read_bytes()
    log.warning("compiled convolutions and gates for this processor in %.1f s, once", time.monotonic() - began)
    return content


def _loaded(content: bytes) -> ctypes.CDLL:
    # From a copy that nobody else writes to: what was checked is what is loaded.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "code.so"
        file.write_bytes(content)
        try:
            return ctypes.CDLL(str(file))
        except OSError as error:
            raise NotNativeError(f"it cannot be loaded: {error}") from error
