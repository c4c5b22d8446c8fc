"""framecast: forecast the next frames of a video or of a gridded sequence.

    import framecast as fc
    model = fc.create_model("ms-lstm", hidden=32)
    future = model(past, horizon=10)          # (B, T, C, H, W) -> (B, 10, C, H, W)

Everything is imported when it is first used, so ``import framecast`` itself costs little.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from framecast.api.analyse import analyse_complexity, analyse_layers, analyse_receptive
    from framecast.api.data import data, load
    from framecast.api.evaluate import evaluate
    from framecast.api.predict import predict, report
    from framecast.api.train import train
    from framecast.cost.count import cost, count_memory
    from framecast.cost.fit import largest_batches
    from framecast.cost.measure import measure_step
    from framecast.cost.table import make_cost_table
    from framecast.data.catalogue import describe_data, list_data
    from framecast.data.check import check_data
    from framecast.data.convert import convert_data
    from framecast.demo import demo
    from framecast.models.forecaster import create_model
    from framecast.registry import CellEntry, list_models, register_cell
    from framecast.studies.run import study
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
    "demo",
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
    "api.analyse": ("analyse_complexity", "analyse_layers", "analyse_receptive"),
    "api.data": ("data", "load"),
    "api.evaluate": ("evaluate",),
    "api.predict": ("predict", "report"),
    "api.train": ("train",),
    "cost.fit": ("largest_batches",),
    "cost.measure": ("measure_step",),
    "cost.count": ("cost", "count_memory"),
    "cost.table": ("make_cost_table",),
    "data.catalogue": ("describe_data", "list_data"),
    "data.check": ("check_data",),
    "data.convert": ("convert_data",),
    "demo": ("demo",),
    "models.forecaster": ("create_model",),
    "registry": ("CellEntry", "list_models", "register_cell"),
    "studies.run": ("study",),
    "weights.importing": ("import_weights",),
    "weights.saving": ("save_weights",),
}
_HOME_OF = {name: f"framecast.{module}" for module, names in _HOMES.items() for name in names}


class _Package(ModuleType):
    """This package, in which a public function is never hidden by the submodule of its name, such as ``data``."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'framecast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
