"""Names of options as they were typed: in errors of Python's functions, and the nearest spelling of unknown ones."""

from __future__ import annotations

import difflib
import inspect
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from framecast.errors import UnknownNameError
from framecast.registry import DATASETS, dataset_builder, list_models, model_entry

ARGUMENT = re.compile(r"(?<![\w.-])([a-z_]+)=('[^']*'|\"[^\"]*\"|\[[^\]]*\]|\{[^}]*\}|[^\s,;:)]*)")
"""An argument as Python writes it, such as in_channels=3."""
TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "list": "a list"}


def nested_options(parser: Any) -> dict[str, str]:
    """Return the names of models' and data sets' options -> how a parser takes them."""
    groups: dict[str, Iterable[str]] = {}
    if "--model_options" in spellings(parser):
        groups["model_options"] = {option for name in list_models() for option in model_entry(name).options()}
    if "--data_options" in spellings(parser):
        builders = [dataset_builder(name) for name in DATASETS]
        groups["data_options"] = {option for build in builders for option in inspect.signature(build).parameters}
    return {name: f"--{group}.{name}" for group, names in groups.items() for name in sorted(names)}


def spellings(parser: Any) -> list[str]:
    """Return the options of a parser, as they are typed."""
    return [text for action in parser._actions for text in action.option_strings if text.startswith("--")]


def as_typed(message: str, parser: Any) -> str:
    """Return a message with the arguments in it written as options of the command line, where it has them."""
    if not ARGUMENT.search(message):
        return message
    direct = {text.removeprefix("--"): text for text in spellings(parser)}
    options = {**nested_options(parser), **direct}

    def on_command_line(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        rest = "." if value.endswith(".") else ""
        value = value.removesuffix("...").removesuffix(".").strip("'\"")
        if name not in options:
            return match[0]
        if value == "True":
            value = ""
        return f"{options[name]} {shlex.quote(value)}".removesuffix(" ''") + rest

    return ARGUMENT.sub(on_command_line, message)


def usage_error(message: str, parser: Any) -> str:
    """Return what is wrong with a command line in one line, with the nearest spelling of an unknown option."""
    if "unrecognized arguments" in message:
        words = message.partition("unrecognized arguments: ")[2].split()
        unknown = [word.partition("=")[0] for word in words if word.startswith("-")]
        if unknown:
            return _unknown(unknown[0], parser)
        return f"{' '.join(words)} is one word too many: options begin with --"
    if match := re.search(r"[Oo]ption '([^']+)' is not accepted", message):
        return _unknown(f"--{match[1]}", parser).replace("--", "")
    if match := re.search(r"arguments are required: (.+)", message):
        names = [f"--{name}" if f"--{name}" in spellings(parser) else name.upper() for name in match[1].split(", ")]
        return f"{' and '.join(names)} must be given"
    if match := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
        return str(UnknownNameError("part", match[1], re.findall(r"'([^']+)'", match[2]))).removesuffix(".")
    key = re.search(r'Parser key "([^"]+)"', message)
    value = re.search(r"(?:Given|Got) value: (.*)", message)
    if key and value:
        expected = [TYPES[name] for name in re.findall(r"Expected a <class '(\w+)'>", message) if name in TYPES]
        kinds = " or ".join(dict.fromkeys(expected)) or "something else"
        name = f"--{key[1]}" if f"--{key[1].split('.')[0]}" in spellings(parser) else key[1]
        return f"{name} is {value[1].strip()} and must be {kinds}"
    return message.strip()


def _unknown(option: str, parser: Any) -> str:
    """Return that there is no such option, with the one that was meant, of models and data too."""
    nested = nested_options(parser)
    candidates = [*spellings(parser), *nested.values()]
    plain = {candidate.lstrip("-").replace("-", "_"): candidate for candidate in candidates}
    name = option.lstrip("-").replace("-", "_")
    near = [plain[name]] if name in plain else [nested[name]] if name in nested else []
    last = {candidate.rpartition(".")[2].lstrip("-"): candidate for candidate in reversed(candidates)}
    near = near or [plain[close] for close in difflib.get_close_matches(name, plain, n=1, cutoff=0.6)]
    near = near or [last[close] for close in difflib.get_close_matches(name, last, n=1, cutoff=0.6)]
    return f"there is no option {option}{f'. Did you mean {near[0]}?' if near else ''}"


def join_numbers(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which several numbers after an option of models or data are one list.

    So they are written as those of other options are: ``--data_options.crop 0 480 0 360``.
    """
    joined: list[str] = []
    numbers: list[str] = []

    def close() -> None:
        joined.extend([f"[{', '.join(numbers)}]"] if len(numbers) > 1 else numbers)
        numbers.clear()

    collecting = False
    for word in arguments:
        if collecting and re.fullmatch(r"-?\d+(\.\d*)?(e-?\d+)?", word):
            numbers.append(word)
            continue
        close()
        joined.append(word)
        collecting = bool(re.fullmatch(r"--\w+_options\.\w+", word))
    close()
    return joined


def flat_run(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a run, as its folder holds it, as options of ``train``; others as they are."""
    if set(content) == {"model", "model_options", "data", "data_options", "training"}:
        return {**{name: value for name, value in content.items() if name != "training"}, **content["training"]}
    return dict(content)
