"""The table of names: what exists, where it is built, and the facts that belong to a name.

Nothing is imported until it is asked for.
"""

from framecast.registry.entries import BaselineEntry, CellEntry, ModelEntry, ModelSpec, Training, resolve
from framecast.registry.lookup import (
    create_model,
    dataset_builder,
    frame_reader,
    list_models,
    make_baselines,
    model_entry,
    paper_name,
    register_cell,
    score_families,
)
from framecast.registry.tables import (
    ALIASES,
    BASELINES,
    CELLS,
    DATASETS,
    FRAME_READERS,
    ONE_SHOT,
    RAIN_RATE,
    SCORES,
)

__all__ = [
    "ALIASES",
    "BASELINES",
    "CELLS",
    "DATASETS",
    "FRAME_READERS",
    "ONE_SHOT",
    "RAIN_RATE",
    "SCORES",
    "BaselineEntry",
    "CellEntry",
    "ModelEntry",
    "ModelSpec",
    "Training",
    "create_model",
    "dataset_builder",
    "frame_reader",
    "list_models",
    "make_baselines",
    "model_entry",
    "paper_name",
    "register_cell",
    "resolve",
    "score_families",
]
