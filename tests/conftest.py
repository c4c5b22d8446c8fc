"""Shared fixtures: reference vectors that travel with the tests, and files that only some machines have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from samples.paths import ROOT

# One thread each, for the tests and the processes they start: two of pytest's workers share two cores.
THREADS = int(os.environ.get("FRAMECAST_TEST_THREADS", "1"))
os.environ["OMP_NUM_THREADS"] = str(THREADS)
torch.set_num_threads(THREADS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


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
