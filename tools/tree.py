"""Write docs/tree.md: the annotated tree of the repository, from the files' own first lines.

Run: python tools/tree.py [--check]
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/tree.md"
HEAD = """# The whole repository

Made by `python tools/tree.py` from the first sentence of every module. How it is cut, and why:
[structure](why/structure.md).

```text
"""
FOLDERS = {
    "src/framecast/data/sets/digits": "5,000 MNIST digits with provenance and licence",
    "benchmarks": "timings and memory, as ratios within one run; results of make torture",
    "docs": "the documentation; docs/why holds half-page decisions",
    "recipes": "one file a data set, for framecast train --config, and one for SLURM",
    "studies": "configurations of studies with their results, tables and logs",
    "tests": "laws over the registry, parity with the released models, bad input; in folders as the package's",
    "tests/samples": "the small models, runs, files and studies that tests share",
    "tests/reference": "outputs and gradients of the released models",
    "tests/torture": "what is promised when something fails, and checks that try to break it (make torture)",
    "tools": "makers and checks that are not part of the package",
}


def tree() -> str:
    """Return one line per folder and per module of the package, with what it is for."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    files = [Path(name) for name in listed if (ROOT / name).is_file()]
    package = _folder(Path("src/framecast"), [name for name in files if name.suffix == ".py"], 0)
    others = [
        f"{folder + '/':<28} {purpose}"
        for folder, purpose in FOLDERS.items()
        if any(_in(name, folder) for name in files)
    ]
    return "\n".join([*package, *others]) + "\n"


def _in(name: Path, folder: str) -> bool:
    return Path(folder) in name.parents


def _folder(folder: Path, files: list[Path], depth: int) -> list[str]:
    """Return the lines of a package: itself, its modules, then its sub-packages."""
    here = sorted(name for name in files if name.parent == folder and name.name != "__init__.py")
    below = sorted({Path(*name.parts[: len(folder.parts) + 1]) for name in files if _in(name, str(folder))} - set(here))
    label = str(folder) if not depth else folder.name
    lines = [f"{'  ' * depth + label + '/':<28} {_first_sentence(ROOT / folder / '__init__.py')}"]
    lines += [f"{'  ' * (depth + 1) + name.name:<28} {_first_sentence(ROOT / name)}" for name in here]
    for package in below:
        if package.suffix != ".py":
            lines += _folder(package, files, depth + 1)
    return lines


def _first_sentence(path: Path) -> str:
    doc = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(doc.split("\n\n")[0].split()).rstrip(".")


def main() -> int:
    """Write the page, or say whether it is true."""
    page = f"{HEAD}{tree()}```\n"
    if "--check" in sys.argv:
        return int(page != PAGE.read_text())
    PAGE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
