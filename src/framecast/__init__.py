"""framecast: forecast the next frames of a video or of a gridded sequence.

    import framecast as fc
    model = fc.create_model("ms-lstm", hidden=32)
    future = model(past, horizon=10)          # (B, T, C, H, W) -> (B, 10, C, H, W)

Everything is imported when it is first used, so ``import framecast`` itself costs little.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from framecast.registry import CellEntry, create_model, list_models, register_cell
    from framecast.weights.importing import import_weights

__version__ = "0.1.0"

_HOMES = {
    "weights.importing": ("import_weights",),
    "registry": ("CellEntry", "create_model", "list_models", "register_cell"),
}
_HOME_OF = {name: f"framecast.{module}" for module, names in _HOMES.items() for name in names}

__all__ = [
    "CellEntry",
    "create_model",
    "import_weights",
    "list_models",
    "register_cell",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'framecast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
