"""The command line: every verb is a Python function of the same name and options."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

VERBS = {
    "train": "train a model on a data set into a run folder, or continue one",
    "evaluate": "score a trained model beside the baselines",
    "predict": "forecast the frames that follow",
    "report": "write one HTML page of one or several result folders",
    "data": "list, describe, check or convert data",
    "models": "list the models, or the options of one",
    "cost": "count parameters and multiply-accumulates, beside what was published",
    "demo": "train, evaluate, forecast and report on moving digits in a few minutes",
}

DATA_VERBS = {
    "list": "the names of all data sets",
    "info": "what a data set is: source, licence, options; or what there is at a path",
    "check": "find what would hurt a training",
    "convert": "turn radar files, archives of them, or any frames into one Zarr",
}

USAGE_ERROR, INTERRUPTED = 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit code: 0 done, 1 refused with a reason, 2 wrong usage, 130 Ctrl-C."""
    given = sys.argv[1:] if arguments is None else arguments
    # Threads that spin for long while they wait starve each other as soon as anything else runs.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
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
    parser.add_argument("--data", type=str | None, help="name of a data set, e.g. moving-mnist, or a path")
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
    parser.add_argument("frames", type=str, help="the past: .npy, .npz, .gif, a folder of .png or of radar files")
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


def _data(arguments: list[str]) -> int:
    from jsonargparse import ArgumentParser

    from framecast.datasets.catalogue import describe_data, list_data
    from framecast.datasets.checking import check_data
    from framecast.datasets.converting import convert_data

    options: dict[str, Any] = {"type": dict[str, Any], "default": {}, "help": "e.g. --data_options.context 4"}
    verbs = {name: ArgumentParser(prog=f"framecast data {name}") for name in ("list", "info", "check", "convert")}
    verbs["info"].add_argument("name", type=str, help="name of a data set, or a path")
    verbs["info"].add_argument("--data_options", **options)
    verbs["check"].add_argument("path", type=str, help="a path, or name of a data set; exit code 1 on errors")
    verbs["check"].add_argument("--data_options", **options)
    verbs["check"].add_argument("--frames", type=int, default=600, help="about how many frames of a split to look at")
    verbs["convert"].add_argument("source", type=str, help="folder or archive of radar files, or anything readable")
    verbs["convert"].add_argument("target", type=str, help="the Zarr to make")
    verbs["convert"].add_function_arguments(convert_data, skip={"source", "target"})
    parser = _parser("data")
    commands = parser.add_subcommands(dest="what")
    for name, text in DATA_VERBS.items():
        commands.add_subcommand(name, verbs[name], help=text)
    values = _values(parser, arguments)
    what = values["what"]
    given = values.get(what) or {}
    if what == "list":
        known = list_data()
        print("\n".join(f"{name:<{max(map(len, known))}}  {text}" for name, text in known.items()))
    elif what == "info":
        print(describe_data(given["name"], **given["data_options"]))
    elif what == "check":
        report = check_data(given["path"], frames=given["frames"], **given["data_options"])
        print(report.text())
        return 0 if report.ok else 1
    else:
        print(convert_data(**given).text())
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


def _cost(arguments: list[str]) -> int:
    from framecast.analysis.counting import cost
    from framecast.analysis.paper_costs import explanation, paper_rows, published_cost
    from framecast.reporting.tables import text_table

    parser = _parser("cost")
    parser.add_argument("model", type=str | None, nargs="?", help="name of a model")
    parser.add_argument("--shape", type=int, nargs=4, metavar=("T", "C", "H", "W"), help="of a clip, e.g. 20 1 64 64")
    parser.add_argument("--context", type=int | None, help="past frames of the clip; None takes half of it")
    parser.add_argument("--model_options", type=dict[str, Any], default={}, help="e.g. --model_options.hidden 16")
    parser.add_argument("--paper", action="store_true", help="the cost tables of the MS-LSTM paper beside ours")
    values = _values(parser, arguments)
    if values["paper"]:
        head = ["table, model", "Params", "ours", "FLOPs", "ours", "", "true Params", "true MACs"]
        rows = []
        for row in paper_rows():
            published, counted = row.published(), row.counted()
            ours = f"{published.parameters / 1e6:.1f}", f"{published.macs / 1e9:.1f}"
            same = "" if ours == (row.parameters, row.macs) else "differs"
            true = f"{counted.parameters:,}", f"{counted.macs / 1e9:.1f} G"
            rows.append([f"{row.table} {row.name}", f"{row.parameters}M", f"{ours[0]}M", f"{row.macs}G", f"{ours[1]}G",
                         same, *true])  # fmt: skip
        print(f"{text_table([head, *rows])}\n\n{explanation()}")
        return 0
    if values["model"] is None or not values["shape"]:
        raise ValueError("cost needs a model and --shape T C H W, or --paper")
    shape, options = values["shape"], values["model_options"]
    context = values["context"] or shape[0] // 2
    counted = cost(values["model"], shape, context, **options)
    known = {name: options[name] for name in ("hidden", "kernel", "layers") if name in options}
    convention = published_cost(values["model"], shape, context, **known)
    rows = [["", "parameters", "multiply-accumulates"], _cost_row("true", counted)]
    print(text_table(rows + ([_cost_row("published convention", convention)] if convention else [])))
    return 0


def _cost_row(label: str, cost: Any) -> list[str]:
    return [label, f"{cost.parameters:,}", f"{cost.macs / 1e9:,.3f} G"]


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
    "data": _data,
    "models": _models,
    "cost": _cost,
    "demo": _demo,
}

if __name__ == "__main__":
    sys.exit(main())
