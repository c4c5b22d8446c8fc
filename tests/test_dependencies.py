"""What the package declares to need keeps out versions with known holes, and packages it does without."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement
from samples.paths import ROOT

DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())
NEEDED = {one.name: one for one in map(Requirement, DECLARED["project"]["dependencies"])}
EXTRAS = [Requirement(one) for extra in DECLARED["project"]["optional-dependencies"].values() for one in extra]
GROUPS = [Requirement(one) for group in DECLARED["dependency-groups"].values() for one in group]


@pytest.mark.parametrize(
    ("name", "first", "refused"),
    [
        # Before 2.10, weights_only loading could corrupt memory (CVE-2026-24747); before 2.6, run code.
        ("torch", "2.10.0", ["2.5.1", "2.6.0", "2.9.1"]),
        # 2.6.2 and 2.6.3 carried code that stole credentials.
        ("lightning", "2.6.4", ["2.6.1", "2.6.2", "2.6.3"]),
    ],
)
def test_versions_with_holes_are_kept_out(name: str, first: str, refused: list[str]) -> None:
    allowed = NEEDED[name].specifier
    assert first in allowed
    assert version(name).split("+")[0] in allowed
    assert not [old for old in refused if old in allowed]


def test_pinned_versions_are_among_those_declared() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines()
                if re.match(r"[\w.-]+==", line))  # fmt: skip
    pins = {re.sub(r"[-_.]+", "-", name).lower(): pin.split(";")[0].split("#")[0].strip() for name, pin in pins.items()}
    for one in [*NEEDED.values(), *EXTRAS, *GROUPS]:
        if one.name.lower() in pins:
            assert one.specifier.contains(pins[one.name.lower()], prereleases=True), (one, pins[one.name.lower()])


def test_torchvision_is_never_needed() -> None:
    everything = {one.name.lower() for one in [*NEEDED.values(), *EXTRAS, *GROUPS]}
    assert "torch" in everything
    assert "torchvision" not in everything
    assert not re.search(r"^torchvision\b", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    using = [file.name for file in (ROOT / "src").rglob("*.py")
             if re.search(r"^\s*(import|from) torchvision", file.read_text(), re.MULTILINE)]  # fmt: skip
    assert not using
