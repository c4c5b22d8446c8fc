"""Shared fixtures: reference vectors that travel with the tests, and files that only some machines have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
REFERENCE = Path(__file__).parent / "reference"

# One thread each, for the tests and what they start: several share the two cores.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep decoded videos and indices out of the user's cache."""
    os.environ["FRAMECAST_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data files beside the checkout, or a skip (a failure where it is required)."""
    path = Path(os.environ.get("FRAMECAST_SHARED", ROOT.parent / "shared"))
    if path.is_dir():
        return path
    reason = f"{path} is absent: set FRAMECAST_SHARED to the folder of reference data"
    if os.environ.get("FRAMECAST_REQUIRE_SHARED"):
        pytest.fail(reason)
    pytest.skip(reason)
