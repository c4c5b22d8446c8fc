"""Plugins: modules outside the package that register cells, models, data sets or scores when they are imported."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
import sys
from pathlib import Path

from framecast.errors import OptionError

log = logging.getLogger(__name__)
PLUGINS = "framecast.plugins"
"""The group of entry points: each names a module that registers what is in it when it is imported."""
IMPORTS = "FRAMECAST_IMPORT"
"""The variable of the environment that names modules to import, for this process and those that it starts."""


def import_plugin(module: str | Path) -> None:
    """Import a module that registers cells, models, data sets or scores, here and in processes started from here.

    Args:
        module: its name, or its file.

    Raises:
        OptionError: there is no such module, or it cannot be imported.
    """
    path = Path(module)
    place = str(path.resolve()) if path.suffix == ".py" else str(module)
    folder, name = (str(path.resolve().parent), path.stem) if path.suffix == ".py" else (str(Path.cwd()), str(module))
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        importlib.import_module(name)
    except Exception as error:
        raise OptionError(f"{module} cannot be imported: {type(error).__name__}: {error}") from error
    modules = list(filter(None, os.environ.get(IMPORTS, "").split(os.pathsep)))
    if place not in modules:
        os.environ[IMPORTS] = os.pathsep.join([*modules, place])


_plugins_imported = False


def import_plugins() -> None:
    """Import, once, what is installed as a plugin, and what the environment names.

    Not while this module is imported, which others do halfway through their own import.
    """
    global _plugins_imported
    if _plugins_imported:
        return
    _plugins_imported = True  # before they are, for they use what calls this
    for entry_point in importlib.metadata.entry_points(group=PLUGINS):
        try:
            entry_point.load()
        except Exception as error:  # another's module must not keep anyone from working
            log.warning("plugin %s cannot be imported: %s: %s", entry_point.value, type(error).__name__, error)
    for module in filter(None, os.environ.get(IMPORTS, "").split(os.pathsep)):
        import_plugin(module)
