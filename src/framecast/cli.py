"""The command line: every verb is a Python function of the same name and options."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

VERBS = {
    "train": "train a model on a data set into a run folder, or continue one",
    "evaluate": "score a trained model beside the baselines",
    "predict": "forecast the frames that follow",
    "report": "write one HTML page of one or several result folders",
    "models": "list the models, or the options of one",
    "demo": "train, evaluate, forecast and report on moving digits in a few minutes",
}

USAGE_ERROR, INTERRUPTED = 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit code: 0 done, 1 refused with a reason, 2 wrong usage, 130 Ctrl-C."""
    given = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(format="%(message)s")
    if not given or given[0] in ("-h", "--help"):
        print(_help())
        return 0 if given else USAGE_ERROR
    if given[0] == "--version":
        from framecast import __version__

        print(f"framecast {__version__}")
        return 0
    try:
        if given[0] not in VERBS:
            from framecast.errors import UnknownNameError

            raise UnknownNameError("verb", given[0], VERBS)
        return COMMANDS[given[0]](given[1:])
    except KeyboardInterrupt as stop:
        print(f"\n{stop or 'stopped'}", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError, ImportError) as error:
        print(f"framecast {given[0]}: {error}", file=sys.stderr)
        return 1


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items())
    return (
        "usage: framecast VERB [options]\n\nForecast the next frames of a video or of a gridded sequence.\n\n"
        f"verbs:\n{verbs}\n\nframecast VERB --help lists the options, with defaults and units.\n"
        "Every verb takes --config FILE.yaml and --print_config; in Python: framecast.VERB(...)."
    )


def _parser(verb: str) -> Any:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog=f"framecast {verb}", description=VERBS[verb])
    parser.add_argument("--config", action="config", help="a YAML file of options")
    return parser


def _values(parser: Any, arguments: list[str]) -> dict[str, Any]:
    """Parse and return plain keyword arguments."""
    values: dict[str, Any] = parser.parse_args(arguments).as_dict()
    values.pop("config", None)
    return values


def _train(arguments: list[str]) -> int:
    from framecast.api import train
    from framecast.training.options import TrainingOptions

    parser = _parser("train")
    parser.add_argument("--model", type=str | None, help="name of a model, see framecast models")
    parser.add_argument("--model_options", type=dict[str, Any], default={}, help="e.g. --model_options.hidden 16")
    parser.add_argument("--data", type=str | None, help="name of a data set, e.g. moving-mnist")
    parser.add_argument("--data_options", type=dict[str, Any], default={}, help="e.g. --data_options.size 32")
    parser.add_argument("--out", type=str, required=True, help="the run folder; never overwritten")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out by its own configuration")
    parser.add_class_arguments(TrainingOptions)
    run = train(**_values(parser, arguments))
    score = "" if run.validation_mse is None else f", validation MSE {run.validation_mse:.4g}"
    print(f"{run.path}: {run.batches} batches{'' if run.finished else ' (stopped early)'}{score}")
    print(f"next: framecast evaluate {run.path}")
    return 0


def _evaluate(arguments: list[str]) -> int:
    from framecast.api import evaluate
    from framecast.reporting.tables import score_table

    parser = _parser("evaluate")
    parser.add_argument("run", type=str, help="a run folder or weights file")
    parser.add_argument("--data", type=str | None, help="another data set than the one it was trained on")
    parser.add_function_arguments(evaluate, skip={"run", "data"})
    results = evaluate(**_values(parser, arguments))
    print(score_table(results))
    return 0


def _predict(arguments: list[str]) -> int:
    from framecast.api import predict

    parser = _parser("predict")
    parser.add_argument("run", type=str, help="a run folder or weights file")
    parser.add_argument("frames", type=str, help="the past: .npy, .npz, .gif, or a folder of .png")
    parser.add_argument("--out", type=str, default="forecast", help="folder for forecast.npy and forecast.gif")
    parser.add_function_arguments(predict, skip={"run", "frames", "out"})
    values = _values(parser, arguments)
    forecast = predict(**values)
    print(f"{Path(values['out']) / 'forecast.npy'}: {' x '.join(map(str, forecast.shape))}, and forecast.gif beside it")
    return 0


def _report(arguments: list[str]) -> int:
    from framecast.api import report

    parser = _parser("report")
    parser.add_argument("results", type=str, nargs="+", help="folders that evaluate wrote into")
    parser.add_argument("--out", type=str, default="report.html", help="the page to write")
    values = _values(parser, arguments)
    print(report(values["results"], out=values["out"]))
    return 0


def _models(arguments: list[str]) -> int:
    from framecast.registry import ALIASES, list_models, model_entry

    parser = _parser("models")
    parser.add_argument("name", type=str | None, nargs="?", help="list the options of this model")
    name = _values(parser, arguments)["name"]
    if name is None:
        for known in list_models():
            entry, also = model_entry(known), [alias for alias, target in ALIASES.items() if target == known]
            print(f"{known:<18} {', '.join(also):<9} {entry.title:<16} {entry.paper}, doi:{entry.doi}")
        return 0
    entry = model_entry(name)
    print(f"{entry.name}: {entry.title}, {entry.paper}, doi:{entry.doi}")
    for option in entry.options().values():
        print(f"  {option.name}: {option.annotation} = {option.default!r}")
    return 0


def _demo(arguments: list[str]) -> int:
    from framecast.demonstration import demo

    parser = _parser("demo")
    parser.add_function_arguments(demo)
    print(demo(**_values(parser, arguments)))
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "report": _report,
    "models": _models,
    "demo": _demo,
}

if __name__ == "__main__":
    sys.exit(main())
