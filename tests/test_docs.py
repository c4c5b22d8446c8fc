"""The README and the docs tell the truth: their code runs, their tree is the real one."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from samples.fresh import run_code
from samples.paths import ROOT

import framecast

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(page, code, said, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, (code, said) in enumerate(
        re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", page.read_text(), re.M | re.S)
    )
]
MODULES = [m.name for m in pkgutil.walk_packages(framecast.__path__, "framecast.") if not m.name.endswith("__main__")]


@pytest.mark.parametrize(("page", "code", "said"), BLOCKS)
def test_python_blocks_run_and_say_what_stands_below(page: Path, code: str, said: str, tmp_path: Path) -> None:
    done = run_code(code, tmp_path)
    assert done.returncode == 0, f"{page}:\n{done.stderr}"
    if said:
        assert done.stdout == said, page


def test_the_tree_is_the_real_one() -> None:
    done = subprocess.run([sys.executable, "tools/tree.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "run: python tools/tree.py"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_relative_links_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def exists(dotted: str) -> bool:
    """Whether a name is a module, or a chain of attributes of one: ``framecast.data`` is both."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        with contextlib.suppress(ModuleNotFoundError, AttributeError):
            functools.reduce(getattr, parts[end:], importlib.import_module(".".join(parts[:end])))
            return True
    return False


def test_dotted_names_exist() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for dotted in re.findall(r"`(?:framecast|fc)((?:\.\w+)+)(?=[`(])", page.read_text()):
            assert exists("framecast" + dotted), f"{page}: framecast{dotted}"


def test_no_path_or_host_of_a_machine() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in files:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".json", ".cff", ""} and path.is_file():
            assert not re.search(r"(?<![\w.])/(work|root|home)/", path.read_text()), name


def test_no_module_hides_what_its_package_exports() -> None:
    """A package may export a function of the name of a module in it, such as ``framecast.data``: the function wins."""
    for module in MODULES:
        importlib.import_module(module)
    for module in MODULES:
        package = importlib.import_module(module)
        for name in getattr(package, "__all__", ()):
            assert not inspect.ismodule(getattr(package, name)), f"{module}.{name}"


def test_public_functions_survive_the_import_of_every_module() -> None:
    for module in MODULES:
        importlib.import_module(module)
    for name in framecast.__all__:
        assert callable(getattr(framecast, name)), name


@pytest.mark.parametrize("module", MODULES)
def test_classes_are_abstract_or_final(module: str) -> None:
    """A class that can be instantiated is not a base of another, except where a class adds to a whole one."""
    loaded = importlib.import_module(module)
    for name, value in vars(loaded).items():
        if inspect.isclass(value) and value.__module__ == module:
            for base in value.__mro__[1:]:
                if base.__module__.startswith("framecast") and not inspect.isabstract(base):
                    assert issubclass(base, BaseException), (
                        f"{name} derives from {base.__name__}, which is not abstract"
                    )
