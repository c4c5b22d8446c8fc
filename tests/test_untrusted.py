"""Hostile files: through every public way in, none runs code, writes or reads elsewhere, or takes the memory."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pickle
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
import yaml
from samples.entries import ENTRIES, tiny_run
from samples.exploits import EXPLOITS, stack_global
from samples.paths import ROOT

import framecast as fc
from framecast import cli
from framecast.errors import DataError, RunFolderError
from framecast.registry import DATASETS
from framecast.reporting.results import read_results
from framecast.training.run_folder import RunFolder
from framecast.untrusted import check_aliases

# A page is drawn in seconds, so only the long form gives all exploits to these.
SLOW = {
    "report, examples": (".npz with an object", "pickle with os.system"),
    "report, log": ("pickle with os.system", "YAML object"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("runs") / "whole")


def test_the_exploits_are_live(tmp_path: Path) -> None:
    """Read by those who trust them, they do what they were made for."""

    def trusting(content: bytes) -> object:
        return torch.load(_written(tmp_path / "a.pt", content), weights_only=False)

    loaders = {
        "pickle with os.system": pickle.loads,
        "STACK_GLOBAL": pickle.loads,
        "torch with collect_env.run": trusting,
        "torch zip": trusting,
        "YAML object": yaml.unsafe_load,
    }
    for name, load in loaders.items():
        marker = tmp_path / name.replace(" ", "-")
        with contextlib.suppress(TypeError, AttributeError, RuntimeError):
            load(EXPLOITS[name](marker))
        assert marker.exists(), name
    assert stack_global(tmp_path / "x") != EXPLOITS["pickle with os.system"](tmp_path / "x")


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _refusal(call: Callable[[], object]) -> str | None:
    """Return what a call says by an error of the kinds that the command line tells; None where it ends well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call()
        except (ValueError, OSError) as error:
            return str(error)
        except SystemExit as stop:  # the command line's way with wrong options
            return "a.yaml" if stop.code == 2 else f"exit code {stop.code}"
    return None


@pytest.mark.parametrize("entry", ENTRIES)
def test_no_file_runs_code(entry: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRAMECAST_CACHE", str(tmp_path / "cache"))
    marker = tmp_path / "marker"
    for name, make in EXPLOITS.items():
        if entry in SLOW and name not in SLOW[entry] and "FRAMECAST_LONG_TESTS" not in os.environ:
            continue
        folder = tmp_path / re.sub(r"\W", "", name)
        said = _refusal(lambda make=make, folder=folder: ENTRIES[entry](make(marker), folder, run))
        assert said is None or str(tmp_path) in said or "a.yaml" in said, (name, said)
        assert not marker.exists(), name
    assert not {path.name for path in tmp_path.parent.iterdir()} & {"marker", "outer.npy"}


def test_every_data_set_is_an_entry() -> None:
    assert set(DATASETS) - {"own", "knmi-sample"} <= {name.split(",")[0] for name in ENTRIES}


def test_every_verb_that_reads_files_is_an_entry() -> None:
    assert set(cli.VERBS) - {"models", "demo"} <= {name.split(" ")[0].rstrip(",") for name in ENTRIES}


# ---- what the code may not say

MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
BUILTINS = {"eval", "exec", "__import__"}
ALWAYS = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}
NEVER = {"yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "os.system", "shutil.unpack_archive",
         "torch.package.PackageImporter", "torch.jit.load", "torch.serialization.load", "os.popen"}  # fmt: skip
NEVER_METHODS = {"extractall", "extract", "read_pickle", "load_from_checkpoint", "load_state_dict_from_url"}
# By these names alone the calls above are known.
NAMES = {"torch": "torch", "numpy": "np", "yaml": "yaml", "os": "os", "shutil": "shutil"}
LOADERS = {"hub", "jit", "serialization", "package", "system", "popen", "unpack_archive", "read_pickle"}


def violations(code: str) -> list[str]:
    """Return what code says that could run code, or write where it wants, from a file."""
    found = []
    for node in ast.walk(ast.parse(code)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"import {name}" for name in names if name.split(".")[0] in MODULES]
        if isinstance(node, ast.Import):
            aliases = [(alias.name, alias.asname) for alias in node.names if alias.asname]
            found += [f"import {name} as {short}" for name, short in aliases if NAMES.get(name, short) != short]
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in (*NAMES, "pandas"):
            found += [f"from {node.module} import {alias.name}" for alias in node.names
                      if alias.name in LOADERS or alias.name.endswith("load")]  # fmt: skip
        if isinstance(node, ast.Call):
            called, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            needed = ALWAYS.get(called)
            method = called.rsplit(".", 1)[-1] if "." in called else ""
            shell = given.get("shell", "False") not in ("False", "0", "None")
            if called in BUILTINS | NEVER or method in NEVER_METHODS or shell or called.startswith("torch.hub."):
                found.append(f"line {node.lineno}: {called}")
            elif given.get("allow_pickle", "False") != "False" or (needed and given.get(needed[0]) != str(needed[1])):
                found.append(f"line {node.lineno}: {called} needs {needed}")
    return found


# Tests that make hostile files, show that they are live, or send clips to a process as a loader's workers do.
ALLOWED = {
    "tests/samples/exploits.py": ["import pickle", "np.save needs None"],
    "tests/test_untrusted.py": ["import pickle", "torch.load needs ('weights_only', True)"],
    "tests/data/sets/test_moving_mnist.py": ["np.save needs None"],
    "tests/data/sets/test_own.py": ["import pickle"],
    "tests/data/sets/test_own_files.py": ["import pickle", "np.save needs None", "np.savez needs None"],
    "tests/api/test_verbs.py": ["np.save needs None"],
    "tests/data/test_windows.py": ["import pickle"],
}


@pytest.mark.parametrize("folder", ["src", "tools", "benchmarks", "tests"])
def test_nothing_that_runs_code_is_ever_called(folder: str) -> None:
    found: dict[str, list[str]] = {}
    for file in sorted((ROOT / folder).rglob("*.py")):
        said = [re.sub(r"^line \d+: ", "", one) for one in violations(file.read_text())]
        if said:
            found[file.relative_to(ROOT).as_posix()] = said
    assert (ROOT / folder).is_dir()
    # Equal, so that what is allowed goes when it is needed no more.
    assert found == {file: said for file, said in ALLOWED.items() if file.startswith(f"{folder}/")}


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from pickle import loads", "torch.load(path)", "torch.load(path, weights_only=False)",
     "np.load(path)", "np.load(path, allow_pickle=True)", "np.savez(path, allow_pickle=True)", "yaml.load(text)",
     "from yaml import unsafe_load", "eval(text)", "exec(text)", "archive.extractall(folder)", "os.system(text)",
     "subprocess.run(text, shell=True)", "subprocess.run(text, shell=1)", "import torch as t", "import numpy as n",
     "from torch.serialization import load", "from torch import hub", "from os import system", "torch.jit.load(path)",
     "torch.hub.load(a, b)", "pd.read_pickle(path)", "Model.load_from_checkpoint(path)", "__import__(text)",
     "np.lib.format.read_array(file, allow_pickle=1)"],
)  # fmt: skip
def test_the_rule_finds_what_it_is_for(code: str) -> None:
    assert violations(code)


def test_the_rule_passes_what_is_safe() -> None:
    assert not violations(
        "torch.load(p, weights_only=True); np.load(p, allow_pickle=False); yaml.safe_load(t); m.eval()"
    )


def test_yaml_that_grows_without_end_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    bomb = _written(tmp_path / "config.yaml", "\n".join([*lines, "model: ms-lstm", ""]).encode())
    for arguments in (["--config", str(bomb)], [f"--config={bomb}"]):
        assert cli.main(["train", "--out", str(tmp_path / "out"), *arguments]) == 1
        assert f"{bomb} is not a configuration: it refers to itself 81 times" in capsys.readouterr().err
    with pytest.raises(RunFolderError, match="refers to itself 81 times"):
        RunFolder(tmp_path).read_config()
    deep = _written(tmp_path / "deep.yaml", b"data: " + b"[" * 3000 + b"]" * 3000)
    assert cli.main(["train", "--out", str(tmp_path / "out"), "--config", str(deep)]) == 1
    assert f"{deep} is not a configuration: it nests deeper than 50 levels" in capsys.readouterr().err
    few = _written(tmp_path / "few.yaml", b"model: &m convlstm\ndata: *m\n")
    assert check_aliases(few.read_text())
    assert check_aliases("a: " + "[" * 49 + "]" * 49)


@pytest.mark.parametrize("name", ["film.mp4", "frames.npy", "frames.gif", "map.h5", "map.nc", "1.png", "1.jpg"])
def test_a_pipe_is_no_file_to_wait_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(DataError, match="is a pipe, a socket or a device"):
            fc.data(path, context=2, horizon=1)
    with pytest.raises(DataError, match="is a pipe, a socket or a device"):
        fc.predict("ms-lstm-moving-mnist", tmp_path / name)


def test_groups_without_end_are_refused_at_once(tmp_path: Path) -> None:
    for ending in (".h5", ".nc"):
        path = tmp_path / f"deep{ending}"
        with h5py.File(path, "w") as file:
            group = file
            for _ in range(1000):
                group = group.create_group("g")
            group["x"] = [[[1.0]]]
        began = time.monotonic()
        with pytest.raises(DataError, match=r"deep.*groups within groups deeper than 32"):
            fc.data(path, context=1, horizon=1)
        assert time.monotonic() - began < 10
    ring = tmp_path / "ring.h5"
    with h5py.File(ring, "w") as file:
        file["a/b"] = [[[1.0]], [[2.0]], [[3.0]]]
        file["a/again"] = file["a"]  # a group within itself
        file["a/soft"] = h5py.SoftLink("/a")
    assert fc.data(ring, context=1, horizon=1, shares=[1.0, 0.0, 0.0]).spec.height == 1


def _texts(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the places of all texts in a tree of mappings and lists, the scores' for the first score alone."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if place == ("scores",):
        inner = list(inner)[:1]
    found = [place] if isinstance(value, str) else []
    return found + [one for key, part in inner for one in _texts(part, (*place, key))]


def test_the_page_escapes_every_word_of_results(run: Path, tmp_path: Path) -> None:
    evil = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>"
    results = read_results(run)
    hostile = {**results, "model": evil, "data": evil, "split": evil, "run": evil, "notes": [evil]}
    hostile["forecasts"] = {evil: next(iter(results["forecasts"].values())), **results["forecasts"]}
    (tmp_path / "results.json").write_text(json.dumps(hostile))
    page = fc.report(tmp_path, out=tmp_path / "page.html", overwrite=True, figures=False).read_text()
    assert "alert(1)" in page, "the words are shown"
    assert "<script" not in page
    assert not re.search(r"<img[^>]*onerror", page)
    for place in _texts(results):
        one = json.loads(json.dumps(results))
        inner = one
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = evil
        (tmp_path / "results.json").write_text(json.dumps(one))
        with contextlib.suppress(DataError):
            page = fc.report(tmp_path, out=tmp_path / "page.html", overwrite=True, clips=1, figures=False).read_text()
            assert "<script" not in page, place
            assert not re.search(r"<img[^>]*onerror", page), place
    (tmp_path / "results.json").write_text(json.dumps({**results, "parameters": "many", "clip_spec": {"unit": 3}}))
    with pytest.raises(DataError, match="cannot be shown"):
        fc.report(tmp_path, out=tmp_path / "page.html", overwrite=True)
