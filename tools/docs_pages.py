"""Fill the docs from the registry, so that a new name has its row and its page without a further edit.

A page may hold a line such as ``<!-- cells -->``; mkdocs calls ``on_page_markdown`` for each page.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from framecast.cells.cell import Cell
from framecast.cost.count import operations
from framecast.models.forecaster import create_model
from framecast.registry import CELLS, ONE_SHOT, list_models, model_entry, paper_name, resolve

SHAPE, CONTEXT = (20, 1, 64, 64), 10


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers of a page by what the registry says."""
    for marker, make in MARKERS.items():
        if f"<!-- {marker} -->" in markdown:
            markdown = markdown.replace(f"<!-- {marker} -->", make())
    return markdown


def models() -> str:
    """Return a table of all models."""
    rows = []
    for name in list_models():
        entry = model_entry(name)
        also = f"`{paper_name(name)}`" if paper_name(name) != name else ""
        rows.append([f"`{name}`", also, entry.title, f"[{entry.paper}](https://doi.org/{entry.doi})"])
    return _table(["name", "also called", "title", "paper"], rows)


def cells() -> str:
    """Return the table of cells: what they remember, what they cost, what differs from the released code."""
    rows = []
    for name, entry in CELLS.items():
        column = resolve(entry.column)(channels=8, depth=6)
        cell = max(column, key=lambda c: len(c.init_state(_frame(c))))
        own, pyramid = operations(name, SHAPE, CONTEXT), operations(f"ms-{name}", SHAPE, CONTEXT)
        state = re.search(r"state \(([^)]*)\)", type(cell).__doc__ or "")
        rows.append([
            f"[`{name}`](#{_module(entry.column)})",
            state.group(1) if state else "",
            "zigzag m" if cell.init_memory(_frame(cell)) is not None else "",
            str(max(c.multiple for c in column)),
            f"{own.parameters:,}",
            f"{own.macs / 1e9:.1f} G",
            f"{pyramid.macs / 1e9:.1f} G",
            _differs(_module(entry.column)),
        ])  # fmt: skip
    head = ["cell", "state", "memory", "multiple", "parameters", "MACs, plain", "MACs, pyramid", "differs in"]
    return _table(head, rows)


def sizes() -> str:
    """Return the table of what each model does with a frame size it cannot take directly."""
    rows = []
    for name in CELLS:
        plain, pyramid = (create_model(prefix + name, hidden=8).multiple for prefix in ("", "ms-"))
        rows.append([f"`{name}`, `ms-{name}`", f"pads to multiples of {plain} (plain) and {pyramid} (pyramid of six)"])
    for name in ONE_SHOT:
        known = model_entry(name).options()
        what = "pads to the multiple of its encoder" if "size" not in known else (
            "is built for one size; another raises, or with `resize_positions=True` the position tables are resized"
        )  # fmt: skip
        rows.append([f"`{name}`", what])
    return _table(["model", "frames of another size"], rows)


def modules() -> str:
    """Return the documentation of every cell and one-shot model: idea, equations, paper, differences."""
    targets = [_module(entry.column) for entry in CELLS.values()] + [
        _module(entry.build) for entry in ONE_SHOT.values()
    ]
    options = "    options: {heading_level: 3, members: false}"
    return "\n".join(f"::: {module}\n{options}\n" for module in dict.fromkeys(targets))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def _frame(cell: Cell) -> Any:
    import torch

    return torch.zeros(1, cell.channels, 8, 8)


def _module(target: str | Callable[..., Any]) -> str:
    return str(target).partition(":")[0]


def _differs(module: str) -> str:
    """Return the paragraph of a module's docstring on what differs from the released code."""
    text = importlib.import_module(module).__doc__ or ""
    found = re.search(r"Differs from (?:the released code|the latter): (.*)\Z", text, re.S)
    return " ".join(found.group(1).split()) if found else ""


MARKERS: dict[str, Callable[[], str]] = {"models": models, "cells": cells, "sizes": sizes, "modules": modules}
