"""Print the annotated tree of the repository from the files' own first lines, or write it into the README.

Run: python tools/readme_tree.py [--write]
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- tree -->\n```text\n", "```\n<!-- end of tree -->"
FOLDERS = {
    "src/framecast/data/sets/digits": "5,000 MNIST digits with provenance and licence",
    "benchmarks": "timings and memory, as ratios within one run; results of make torture",
    "docs": "the documentation; docs/why holds half-page decisions",
    "recipes": "one file a data set, for framecast train --config, and one for SLURM",
    "studies": "what framecast study was told, and what came out: configurations, results, tables, logs",
    "tests/torture": "what is promised when something fails, and checks that try to break it (make torture)",
    "tests": "laws over the registry, parity with the released models, bad input",
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


def main() -> None:
    """Print or write."""
    if "--write" not in sys.argv:
        print(tree(), end="")
        return
    readme = ROOT / "README.md"
    text = readme.read_text()
    start, stop = text.index(BEGIN) + len(BEGIN), text.index(END)
    readme.write_text(text[:start] + tree() + text[stop:])


if __name__ == "__main__":
    main()
