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
    from framecast.analysis.cost_table import make_cost_table
    from framecast.analysis.counting import cost
    from framecast.analysis.fitting_memory import largest_batches
    from framecast.analysis.measuring import measure_step
    from framecast.analysis.memory import count_memory
    from framecast.api import (
        analyse_complexity,
        analyse_layers,
        analyse_receptive,
        data,
        evaluate,
        load,
        predict,
        report,
        train,
    )
    from framecast.datasets.archive.checking import check_data
    from framecast.datasets.archive.converting import convert_data
    from framecast.datasets.catalogue import describe_data, list_data
    from framecast.registry import CellEntry, create_model, list_models, register_cell
    from framecast.studies.conducting import study
    from framecast.weights.importing import import_weights
    from framecast.weights.saving import save_weights

__version__ = "0.1.0"

__all__ = [
    "CellEntry",
    "analyse_complexity",
    "analyse_layers",
    "analyse_receptive",
    "check_data",
    "convert_data",
    "cost",
    "count_memory",
    "create_model",
    "data",
    "describe_data",
    "evaluate",
    "import_weights",
    "largest_batches",
    "list_data",
    "list_models",
    "load",
    "make_cost_table",
    "measure_step",
    "predict",
    "register_cell",
    "report",
    "save_weights",
    "study",
    "train",
]

_HOMES = {
    "analysis.cost_table": ("make_cost_table",),
    "analysis.counting": ("cost",),
    "analysis.fitting_memory": ("largest_batches",),
    "analysis.measuring": ("measure_step",),
    "analysis.memory": ("count_memory",),
    "api": (
        "analyse_complexity",
        "analyse_layers",
        "analyse_receptive",
        "data",
        "evaluate",
        "load",
        "predict",
        "report",
        "train",
    ),
    "datasets.catalogue": ("describe_data", "list_data"),
    "datasets.archive.checking": ("check_data",),
    "datasets.archive.converting": ("convert_data",),
    "registry": ("CellEntry", "create_model", "list_models", "register_cell"),
    "studies.conducting": ("study",),
    "weights.importing": ("import_weights",),
    "weights.saving": ("save_weights",),
}
_HOME_OF = {name: f"framecast.{module}" for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'framecast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
