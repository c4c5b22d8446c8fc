"""Models: the names of all models, or the options of one, in words."""

from __future__ import annotations

from framecast.registry import ALIASES, list_models, model_entry


def models(name: str | None = None) -> str:
    """Say in words which models there are, or what options one has.

    Args:
        name: a model's name or alias; None lists all models with their papers.

    Raises:
        UnknownNameError: there is no such model.
    """
    if name is None:
        return "\n".join(_line(entry_name) for entry_name in list_models())
    entry = model_entry(name)
    options = [f"  {option.name}: {option.annotation} = {option.default!r}" for option in entry.options().values()]
    return "\n".join([f"{entry.name}: {entry.title}, {entry.paper}, doi:{entry.doi}", *options])


def _line(name: str) -> str:
    entry, aliases = model_entry(name), [alias for alias, target in ALIASES.items() if target == name]
    return f"{name:<18} {', '.join(aliases):<9} {entry.title:<16} {entry.paper}, doi:{entry.doi}"
