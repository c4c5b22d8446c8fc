"""The command line: every verb calls the Python function of the same name and options."""

from __future__ import annotations

import argparse
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from framecast.errors import FramecastError, NonFiniteError, TrialBusyError, UnknownNameError

DATA_VERBS = {
    "list": "the names of all data sets",
    "info": "what a data set is: source, licence, options; or what there is at a path",
    "check": "find what would hurt a training",
    "convert": "turn radar files, archives of them, or any frames into one Zarr",
}

ANALYSES = {
    "complexity": "parameters, FLOPs and memory by the paper's formulas, beside what is counted",
    "receptive": "what every layer can see, by theory and by gradients",
    "layers": "what every layer of trained models puts out over time, as a figure",
}

USAGE_ERROR, NON_FINITE, OUT_OF_MEMORY, INTERRUPTED = 2, 3, 4, 130


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit code.

    0 done, 1 refused with a reason, 2 wrong usage, 3 a training met NaN or infinity, 4 out of memory, 130 stopped by
    Ctrl-C or SIGTERM with all saved.
    """
    words = sys.argv[1:] if arguments is None else arguments
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(message)s"))
    logging.basicConfig(handlers=[handler])
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0 if words else USAGE_ERROR
    if words[0] == "--version":
        from framecast import __version__

        print(f"framecast {__version__}")
        return 0
    try:
        words = _import_modules(words)
        if not words or words[0] not in VERBS:
            raise UnknownNameError("verb", words[0] if words else "", VERBS)
        from framecast.plugins import import_plugins

        import_plugins()
        return VERBS[words[0]].run(words[1:])
    except KeyboardInterrupt as stop:
        if not _first():
            # Lightning kills the first process before it has ended if another one ends with an error.
            return 0
        print(f"\n{_in_words(str(stop)) or 'stopped'}", file=sys.stderr)
        return INTERRUPTED
    except NonFiniteError as error:
        # All processes of a training meet it together; see above why the others end without an error.
        return _refused(words[0], error, NON_FINITE) if _first() else 0
    except MemoryError as error:
        return _refused(words[0], error, OUT_OF_MEMORY)
    except argparse.ArgumentError as error:
        name = _parsers[-1].prog.replace(" [options]", "")
        problem = _in_words(str(error), usage=True)
        end = "" if problem.endswith("?") else "."
        print(f"{name}: {problem}{end} {name} --help lists the options.", file=sys.stderr)
        return USAGE_ERROR
    except (FramecastError, ValueError, OSError, ImportError) as error:
        return _refused(words[0], error, 1)


def _complete() -> None:
    """Tell the shell what may follow the words typed so far, and end the process.

    Raises:
        MissingExtraError: argcomplete is not installed.
    """
    from framecast.errors import MissingExtraError

    try:
        import argcomplete
    except ImportError as error:
        raise MissingExtraError("argcomplete", "completion", "completion in the shell") from error
    words = _words_so_far()
    if len(words) > 1 and words[0] in VERBS:
        os.environ["_ARGCOMPLETE"] = "2"  # the verb is the first word to its parser, which answers and exits
        VERBS[words[0]].run([])
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=VERBS)
    argcomplete.autocomplete(parser)


def _words_so_far() -> list[str]:
    """Return the words before the cursor where the shell asks for more, the last one perhaps empty."""
    line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
    return (line.split() + [""] * line.endswith(" "))[1:]


def _import_modules(words: Sequence[str]) -> list[str]:
    """Return a command line without ``--import MODULE``, once the modules are imported."""
    rest, queue = list[str](), list(words)
    _imported.clear()
    while queue:
        word = queue.pop(0)
        name, equals, module = word.partition("=")
        if name != "--import" or not (equals or queue):
            rest.append(word)
            continue
        from framecast.plugins import import_plugin

        _imported.append(module if equals else queue.pop(0))
        import_plugin(_imported[-1])
    return rest


def _refused(verb: str, error: Exception, code: int) -> int:
    print(f"framecast {verb}: {_in_words(str(error))}", file=sys.stderr)
    return code


def _in_words(message: str, *, usage: bool = False) -> str:
    """Return a message with options named as they are typed on the command line."""
    from framecast.option_names import as_typed, usage_error

    if not _parsers:
        return message
    return usage_error(message, _parsers[-1]) if usage else as_typed(message, _parsers[-1])


class _Formatter(logging.Formatter):
    """Messages of the log, with options named as they are typed."""

    def format(self, record: logging.LogRecord) -> str:
        return _in_words(super().format(record))


_imported: list[str] = []
"""The modules that this command line imports; a command that goes on with a run needs them too."""
_parsers: list[Any] = []
"""The parsers of this command line, the one of the innermost verb last; errors name options as it does."""


def _first() -> bool:
    from framecast.training.distributed import is_first_process

    return is_first_process()


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {text}" for verb, (_, text) in VERBS.items())
    return (
        "usage: framecast VERB [options]\n\nForecast the next frames of a video or of a gridded sequence.\n\n"
        f"verbs:\n{verbs}\n\nframecast VERB --help lists the options, with defaults and units.\n"
        "Every verb takes --config FILE.yaml, and --import MODULE for cells, data sets or scores of your own. "
        "Python has the same: import framecast; help(framecast.train)."
    )


CONFIG = "a YAML file of options, such as the one in a run folder"


def _parser(verb: str) -> Any:
    import yaml
    from jsonargparse import ArgumentParser, set_loader

    set_loader("yaml", _read_yaml, exceptions=(yaml.YAMLError,))
    parser = ArgumentParser(prog=f"framecast {verb}", description=VERBS[verb].text, exit_on_error=False)
    parser.add_argument("--config", action="config", help=CONFIG)
    return parser


def _parser_of_part(verb: str, part: str) -> Any:
    """Return the parser of a part of a verb, such as ``framecast data info``."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog=f"framecast {verb} {part}", exit_on_error=False)
    parser.add_argument("--config", action="config", help=CONFIG)
    return parser


@cache
def _yaml_loader() -> Any:
    """Return a loader of YAML with the truth values of version 1.2: a variable may be called no, on or off."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    boolean, number = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:float"
    Loader.yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in pairs if tag not in (boolean, number, "tag:yaml.org,2002:timestamp")]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(boolean, re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
    floats = r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    Loader.add_implicit_resolver(number, re.compile(floats), list("-+0123456789."))
    return Loader


def _read_yaml(text: str) -> Any:
    from framecast.option_names import flat_run

    content = _yaml_loader()(text).get_single_data()
    return flat_run(content) if isinstance(content, dict) else content


Option = str | bool | int | float | list[Any] | dict[str, Any] | None


def _add_data_options(parser: Any, example: str) -> None:
    """Add --data_options; text comes first among its types, so that jsonargparse takes no word for another type."""
    parser.add_argument("--data_options", type=dict[str, Option], default={}, help=f"e.g. --data_options.{example}")


def _typed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of data with numbers and lists where no text is expected."""
    from framecast.data.catalogue import text_options

    texts = text_options()
    return {
        name: _read_yaml(value) if isinstance(value, str) and name not in texts else value
        for name, value in options.items()
    }


def _values(parser: Any, arguments: list[str], inner: Mapping[str, Any] = {}) -> dict[str, Any]:
    """Parse and return plain keyword arguments; ``inner`` are the parsers of the verb's parts."""
    from framecast.option_names import join_numbers
    from framecast.untrusted import check_aliases, reading

    for word, following in zip(arguments, [*arguments[1:], ""], strict=False):
        config = Path(following if word == "--config" else word.removeprefix("--config="))
        if word.startswith("--config") and config.is_file():
            with reading(config, "is not a configuration", "give a YAML file of options"):
                check_aliases(config.read_text())
    _parsers[:] = [parser, *inner.values()]
    for options in _parsers:
        for action in options._actions:
            if getattr(action, "_typehint", None) is bool:  # --tf32, --tf32 true and --tf32 false
                action.nargs, action.const = "?", True
    if "_ARGCOMPLETE" in os.environ and len(words := _words_so_far()) > 2 and words[1] in inner:
        os.environ["_ARGCOMPLETE"] = "3"
        inner[words[1]].parse_args([])
    subparsers = [inner[word] for word in arguments[:1] if word in inner]
    _parsers[:] = subparsers or [parser]
    values: dict[str, Any] = parser.parse_args(join_numbers(arguments)).as_dict()
    for option in ("scores", "baselines"):
        if values.get(option) is not None:
            values[option] = [word for words in values[option] for word in re.split(r"[\[\],\s]+", words) if word]
    for part in (values, *(inner for inner in values.values() if isinstance(inner, dict))):
        part.pop("config", None)
        if part.get("data_options"):
            part["data_options"] = _typed(part["data_options"])
    return values


def _train(arguments: list[str]) -> int:
    from framecast.api.train import train
    from framecast.training.options import TrainingOptions

    parser = _parser("train")
    parser.add_argument("--model", type=str | None, help="name of a model, see framecast models")
    parser.add_argument("--model_options", type=dict[str, Any], default={}, help="e.g. --model_options.hidden 16")
    parser.add_argument("--data", type=str | None, help="name of a data set, e.g. moving-mnist, or a path")
    _add_data_options(parser, "size 32")
    parser.add_argument("--out", type=str, required=True, help="the run folder; never overwritten")
    parser.add_argument(
        "--resume",
        type=bool,
        default=False,
        help="continue the run in --out; with a model and data, start it if there is none",
    )
    parser.add_class_arguments(TrainingOptions)
    run = train(**_values(parser, arguments))
    if not _first():
        return 0
    score = "" if run.validation_mse is None else f", validation MSE {run.validation_mse:.4g}"
    print(f"{run.path}: {run.batches} batches{'' if run.finished else ' (stopped early)'}{score}")
    if (run.path / "tensorboard").is_dir():
        print(f"curves: tensorboard --logdir {shlex.quote(str(run.path))}")
    imports = "".join(f"--import {shlex.quote(module)} " for module in _imported)
    if run.test_clips:
        print(f"next: framecast evaluate {imports}{shlex.quote(str(run.path))}")
    return 0


def _evaluate(arguments: list[str]) -> int:
    from framecast.api.evaluate import evaluate
    from framecast.reporting.results import score_table

    parser = _parser("evaluate")
    parser.add_argument(
        "run", type=str, help="a run folder, a weights file, or a model that comes trained (framecast models)"
    )
    parser.add_argument("--data", type=str | None, help="another data set than the one it was trained on")
    _add_data_options(parser, "context 4")
    for option, text in (("scores", "families of scores"), ("baselines", "baselines")):
        help_text = f"names of {text}; default: all that suit the data"
        parser.add_argument(f"--{option}", type=str, nargs="+", help=help_text)
    parser.add_function_arguments(evaluate, skip={"run", "data", "data_options", "scores", "baselines"})
    results = evaluate(**_values(parser, arguments))
    if _first():
        print(score_table(results))
    return 0


def _past_help() -> str:
    from framecast.data.formats.pictures import PICTURES
    from framecast.registry import sequence_endings

    return f"the past: {', '.join(sequence_endings())}, or a folder of pictures ({', '.join(PICTURES)}) or radar files"


def _predict(arguments: list[str]) -> int:
    from framecast.api.predict import forecast_frames, predict
    from framecast.reporting.clips import time_labels

    parser = _parser("predict")
    parser.add_argument(
        "run", type=str, help="a run folder, a weights file, or a model that comes trained (framecast models)"
    )
    parser.add_argument("frames", type=str, help=_past_help())
    parser.add_argument("--out", type=str, default="forecast", help="folder for forecast.npy and forecast.gif")
    _add_data_options(parser, "variable rain")
    parser.add_function_arguments(predict, skip={"run", "frames", "out", "data_options", "overwrite"})
    parser.add_argument("--overwrite", type=bool, default=False, help="replace a forecast that is there already")
    values = _values(parser, arguments)
    forecast = forecast_frames(**values)
    for fact in forecast.facts:
        print(_in_words(fact))
    if forecast.times is not None:
        steps = forecast.frames.shape[1]
        base, first, last = time_labels(forecast.times[[-steps - 1, -steps, -1]])
        print(f"base time {base}, valid times {first} to {last}")
    shape = " x ".join(map(str, forecast.frames.shape))
    others = ", ".join(file.name for file in forecast.files[1:])
    print(f"{forecast.files[0]}: {shape} (clips x frames x channels x rows x columns), beside it {others}")
    return 0


def _report(arguments: list[str]) -> int:
    from framecast.api.report import report

    parser = _parser("report")
    parser.add_argument("results", type=str, nargs="+", help="folders that evaluate wrote into")
    parser.add_argument("--out", type=str, default="report.html", help="the page to write")
    parser.add_argument("--scores", type=str, nargs="+", help="scores to draw, e.g. ssim mae; default: the main ones")
    parser.add_argument("--clips", type=int, default=4, help="example clips to show, at most")
    parser.add_argument("--figures", type=bool, default=True, help="write the figures beside the page too")
    parser.add_argument("--overwrite", type=bool, default=False, help="replace a page that is there already")
    print(report(**_values(parser, arguments)))
    return 0


def _data(arguments: list[str]) -> int:
    from framecast.data.catalogue import describe_data, list_data
    from framecast.data.check import check
    from framecast.data.convert import convert

    verbs = {name: _parser_of_part("data", name) for name in DATA_VERBS}
    verbs["info"].add_argument("name", type=str, help="name of a data set, or a path")
    _add_data_options(verbs["info"], "context 4")
    verbs["check"].add_argument("path", type=str, help="a path, or name of a data set; exit code 1 on errors")
    _add_data_options(verbs["check"], "context 4")
    verbs["check"].add_argument("--frames", type=int, default=600, help="about how many frames of a split to look at")
    verbs["convert"].add_argument("source", type=str, help="folder or archive of radar files, or anything readable")
    verbs["convert"].add_argument("target", type=str, help="the Zarr to make")
    verbs["convert"].add_function_arguments(convert, skip={"source", "target"})
    parser = _parser("data")
    commands = parser.add_subcommands(dest="what")
    for name, text in DATA_VERBS.items():
        commands.add_subcommand(name, verbs[name], help=text)
    values = _values(parser, arguments, verbs)
    what = values["what"]
    choices = values.get(what) or {}
    if what == "list":
        descriptions = list_data()
        print("\n".join(f"{name:<{max(map(len, descriptions))}}  {text}" for name, text in descriptions.items()))
    elif what == "info":
        print(_in_words(describe_data(choices["name"], **choices["data_options"])))
    elif what == "check":
        report = check(choices["path"], frames=choices["frames"], **choices["data_options"])
        print(_in_words(report.text()))
        return 0 if report.ok else 1
    else:
        converted = convert(**choices)
        print(_in_words(converted.text()))
        return 1 if converted.unreadable else 0
    return 0


def _models(arguments: list[str]) -> int:
    from framecast.api.models import models

    parser = _parser("models")
    parser.add_argument("name", type=str | None, nargs="?", help="list the options of this model")
    print(models(**_values(parser, arguments)))
    return 0


def _cost(arguments: list[str]) -> int:
    from framecast.api.cost import CostRequest, cost_answer

    parser = _parser("cost")
    parser.add_argument("model", type=str | None, nargs="?", help="name of a model")
    parser.add_argument("--shape", type=int, nargs=4, metavar=("T", "C", "H", "W"), help="of a clip, e.g. 20 1 64 64")
    parser.add_argument("--measure", type=bool, default=False, help="measure memory and time of steps and forecasts")
    table = "a table of models for each of: moving-mnist, taxibj, kth, german-radar, T,C,H,W or T,C,H,W:CONTEXT"
    parser.add_argument("--table", type=str, nargs="+", metavar="SHAPE", help=table)
    parser.add_argument("--models", type=str, nargs="+", metavar="NAME", help="of the table; all if not given")
    parser.add_argument("--paper", type=bool, default=False, help="the cost tables of the MS-LSTM paper beside ours")
    parser.add_class_arguments(CostRequest, skip={"model", "shape", "measure", "table", "models", "paper"})
    print(cost_answer(CostRequest(**_values(parser, arguments)), lambda text: print(text, file=sys.stderr)))
    return 0


def _analyse(arguments: list[str]) -> int:
    from framecast.api.analyse import analyse_complexity, analyse_layers, analyse_receptive
    from framecast.reporting.results import row_table

    verbs = {name: _parser_of_part("analyse", name) for name in ANALYSES}
    verbs["complexity"].add_argument("models", type=str, nargs="*", help="names of models; default: the ablation's")
    verbs["complexity"].add_function_arguments(analyse_complexity, skip={"models"})
    verbs["receptive"].add_argument("models", type=str, nargs="*", help="names or run folders; default: the ablation's")
    verbs["receptive"].add_function_arguments(analyse_receptive, skip={"models"})
    verbs["layers"].add_argument("runs", type=str, nargs="+", help="run folders")
    verbs["layers"].add_argument("--data", type=str | None, help="another data set than they were trained on")
    verbs["layers"].add_argument("--out", type=str, default="analyses", help="folder for the figure and the numbers")
    _add_data_options(verbs["layers"], "context 4")
    verbs["layers"].add_function_arguments(analyse_layers, skip={"runs", "data", "out", "data_options"})
    parser = _parser("analyse")
    commands = parser.add_subcommands(dest="what")
    for name, text in ANALYSES.items():
        commands.add_subcommand(name, verbs[name], help=text)
    values = _values(parser, arguments, verbs)
    what, options = values["what"], {name: value for name, value in values[values["what"]].items() if value != []}
    if what == "layers":
        for run, layers in analyse_layers(**options).items():
            print(f"{run}:", "  ".join(f"{name} {'x'.join(map(str, maps.shape[1:]))}" for name, maps in layers.items()))
        print(f"{Path(options['out']) / 'layer-outputs.png'}, .svg and .npz")
    else:
        print(row_table(analyse_complexity(**options) if what == "complexity" else analyse_receptive(**options)))
    return 0


def _study(arguments: list[str]) -> int:
    from framecast.studies.run import BUSY, study

    parser = _parser("study")
    parser.add_argument("file", type=str, help="the study's YAML file, or the folder that holds it as study.yaml")
    parser.add_argument("--only", type=str, nargs="+", default=[], help="labels of the models to run")
    parser.add_argument("--trial", type=str, nargs=2, metavar=("MODEL", "SEED"), help="run one trial in this process")
    parser.add_argument("--tables", type=bool, default=False, help="run nothing, only write the tables")
    parser.add_function_arguments(study, skip={"file", "only", "trial", "tables"})
    try:
        outcome = study(**_values(parser, arguments))
    except TrialBusyError as error:
        print(f"framecast study: {error}", file=sys.stderr)
        return BUSY
    for name, reason in outcome.failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    if outcome.tables is None:
        print(f"{outcome.done[0]}: done")
        return 0
    done, left, failed = len(outcome.done), len(outcome.remaining), len(outcome.failed)
    print(f"{outcome.tables}: {done} trials done, {left} left, {failed} failed just now")
    return 1 if outcome.failed else 0


def _demo(arguments: list[str]) -> int:
    from framecast.demo import demo

    parser = _parser("demo")
    parser.add_function_arguments(demo)
    demo(**_values(parser, arguments))
    return 0


class Verb(NamedTuple):
    """One verb of the command line."""

    run: Callable[[list[str]], int]
    """Parses the arguments, does the work, prints what came of it, returns the exit code."""
    text: str
    """One line for the help."""


VERBS: dict[str, Verb] = {
    "train": Verb(_train, "train a model on a data set into a run folder, or continue one"),
    "evaluate": Verb(_evaluate, "score a trained model beside the baselines"),
    "predict": Verb(_predict, "forecast the frames that follow"),
    "report": Verb(_report, "write one HTML page of one or several result folders"),
    "data": Verb(_data, "list, describe, check or convert data"),
    "models": Verb(_models, "list the models, or the options of one"),
    "cost": Verb(_cost, "count or measure what a model costs, and what fits into a memory"),
    "analyse": Verb(_analyse, "the paper's formulas beside counts, receptive fields, outputs of layers"),
    "study": Verb(_study, "train and test models x seeds alike, resumably; ends in tables"),
    "demo": Verb(_demo, "show forecasts of digits and rain, and a small training, on one page"),
}

if __name__ == "__main__":
    sys.exit(main())
