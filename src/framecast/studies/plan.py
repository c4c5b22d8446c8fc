"""The plan of a study: models, seeds, one data set and one way of training, read from a YAML file.

name: ablation                      # what the tables are called
about: text shown above the tables
data: moving-mnist                  # with data_options
training: {steps: 500, batch: 8}    # options of framecast train, the same for all models
evaluation: {split: test, limit: 1000}
seeds: [0, 1]
model_options: {hidden: 16}         # for all models that know them
models:                             # label: what differs for this model
  ms-lstm: {}
  wide: {model: ms-lstm, model_options: {hidden: 32}, training: {lr: 0.0003}, reference: ms-lstm}
reference: ms-lstm                  # differences are to this model, or to a model's own reference
published: {source: where from, values: {mse: {ms-lstm: 52.63}, memory_gb: {ms-lstm: 5.2}}}
also: [../other]                    # studies whose results of equal trials are taken instead of run again
out: .                              # folder of runs, results and tables, beside the file by default
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from framecast.errors import OptionError, RunNotFoundError, UnknownNameError, check_count
from framecast.registry import model_entry, paper_name
from framecast.training.options import FREE_ON_RESUME, TrainingOptions
from framecast.untrusted import check_aliases

KEYS = frozenset(
    {"name", "about", "data", "data_options", "training", "evaluation", "seeds", "model_options", "models", "reference",
     "published", "also", "out"}
)  # fmt: skip
MODEL_KEYS = frozenset({"model", "model_options", "training", "reference"})
PUBLISHED_KEYS = frozenset({"source", "values"})
EVALUATION_KEYS = frozenset({"split", "limit", "scores", "score_options", "baselines", "batch"})
SCORED_ALIKE = EVALUATION_KEYS - {"batch"}
LABEL = re.compile(r"[\w+][\w.+-]*")


@dataclass(frozen=True, eq=False)
class StudyModel:
    """A model of a study.

    Attributes:
        label: its name in the study.
        name: its name in the registry.
        options: of the model.
        training: what is done otherwise than in the rest of the study.
        reference: label of the model it is compared with, or "".
    """

    label: str
    name: str
    options: dict[str, Any]
    training: dict[str, Any]
    reference: str = ""


class Trial(NamedTuple):
    """One training: a model and a seed."""

    model: StudyModel
    seed: int

    def __str__(self) -> str:
        """Return how the trial is called in messages and file names."""
        return f"{self.model.label}-seed{self.seed}"


@dataclass(frozen=True)
class Published:
    """Numbers of a paper.

    Attributes:
        source: where they are from.
        values: score, or cost such as memory_gb, -> label of the model -> number.
    """

    source: str = ""
    values: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyPlan:
    """A study as its file says, all names checked."""

    file: Path
    name: str
    about: str
    data: str
    data_options: dict[str, Any]
    training: dict[str, Any]
    evaluation: dict[str, Any]
    seeds: tuple[int, ...]
    models: dict[str, StudyModel]
    published: Published
    also: tuple[Path, ...]
    out: Path

    @property
    def command(self) -> str:
        """The command that runs the study, without the folders of this machine."""
        path, folder = self.file.resolve(), Path.cwd()
        relative = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
        return f"framecast study {relative}"

    def trials(self, only: Iterable[str] = ()) -> list[Trial]:
        """Return the trials seed by seed, so that an unfinished study holds all models equally often.

        Raises:
            UnknownNameError: ``only`` names no model of the study.
        """
        for label in only:
            if label not in self.models:
                raise UnknownNameError("model of this study", label, self.models)
        chosen = [model for label, model in self.models.items() if not only or label in only]
        return [Trial(model, seed) for seed in self.seeds for model in chosen]

    def trial(self, label: str, seed: int) -> Trial:
        """Return one trial.

        Raises:
            UnknownNameError: there is no such model in the study.
            ValueError: there is no such seed in the study.
        """
        if seed not in self.seeds:
            raise OptionError(f"{self.file} has the seeds {', '.join(map(str, self.seeds))} and not {seed}")
        return next(trial for trial in self.trials([label]) if trial.seed == seed)

    def run_folder(self, trial: Trial) -> Path:
        """Return the run folder of a trial."""
        return self.out / "runs" / trial.model.label / f"seed{trial.seed}"

    def result_file(self, trial: Trial) -> Path:
        """Return the file that says a trial is done."""
        return self.out / "results" / f"{trial}.json"

    def training_of(self, trial: Trial) -> dict[str, Any]:
        """Return the options of a trial's training."""
        return {**self.training, **trial.model.training, "seed": trial.seed}

    def recipe(self, trial: Trial) -> dict[str, Any]:
        """Return what a trial's result depends on, as plain values: equal recipes have equal results."""
        training = {name: value for name, value in self.training_of(trial).items() if name not in FREE_ON_RESUME}
        recipe = {
            "model": model_entry(trial.model.name).name,
            "model_options": trial.model.options,
            "data": self.data,
            "data_options": self.data_options,
            "training": training,
            "evaluation": {name: value for name, value in self.evaluation.items() if name in SCORED_ALIKE},
        }
        return json.loads(json.dumps(recipe, sort_keys=True))  # type: ignore[no-any-return]


def read_plan(file: str | Path) -> StudyPlan:
    """Read a study's file.

    Args:
        file: the YAML file, or a folder with a study.yaml.

    Raises:
        RunNotFoundError: there is no such file.
        UnknownNameError: a key, model or option that does not exist; the message has the nearest spelling.
        ValueError: something is missing or of another kind than it should be; the message names file and key.
    """
    path = Path(file) / "study.yaml" if Path(file).is_dir() else Path(file)
    if not path.is_file():
        raise RunNotFoundError(f"there is no study {path}: give a YAML file, or a folder with a study.yaml")
    try:
        content = yaml.safe_load(check_aliases(path.read_text()))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise OptionError(f"{path} is not YAML: {error}") from error
    return _plan(path, _mapping(path, "a study", content))


def _plan(path: Path, content: dict[str, Any]) -> StudyPlan:
    _check_names(path, "key of a study", content, KEYS)
    for needed in ("name", "data", "seeds", "models"):
        if not content.get(needed):
            raise OptionError(f"{path} has no {needed}: a study needs name, data, seeds and models")
    for option in ("data_options", "training", "evaluation", "model_options", "published"):
        content[option] = _mapping(path, option, content.get(option))
    models = {
        label: _model(path, str(label), content, settings)
        for label, settings in _mapping(path, "models", content["models"]).items()
    }
    for model in models.values():
        if model.reference and model.reference not in models:
            raise UnknownNameError(f"model in {path} to be a reference", model.reference, models)
    _check_names(path, "evaluation option", content["evaluation"], EVALUATION_KEYS)
    return StudyPlan(
        file=path,
        name=_label(path, content["name"]),
        about=" ".join(str(content.get("about", "")).split()),
        data=str(content["data"]),
        data_options=content["data_options"],
        training=_training(path, content["training"]),
        evaluation=content["evaluation"],
        seeds=_seeds(path, content["seeds"]),
        models=models,
        published=_published(path, content["published"], models),
        also=tuple(path.parent / str(other) for other in content.get("also") or ()),
        out=path.parent / str(content.get("out", ".")),
    )


def _model(path: Path, label: str, study: dict[str, Any], settings: Any) -> StudyModel:
    settings = _mapping(path, f"models.{label}", settings)
    _check_names(path, f"key of models.{label}", settings, MODEL_KEYS)
    entry = model_entry(str(settings.get("model", label)))
    accepted = entry.options()
    special = _mapping(path, f"models.{label}.model_options", settings.get("model_options"))
    _check_names(path, f"option of model {paper_name(entry.name)}", special, accepted)
    common = {name: value for name, value in study["model_options"].items() if name in accepted}
    training = _training(path, _mapping(path, f"models.{label}.training", settings.get("training")))
    reference = str(settings.get("reference", study.get("reference") or ""))
    return StudyModel(_label(path, label), str(settings.get("model", label)), {**common, **special}, training,
                      "" if reference == label else reference)  # fmt: skip


def _training(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Return training options with their types, such as 0.001 for the text 1e-3 that YAML makes of it."""
    from jsonargparse import ArgumentParser

    _check_names(path, "training option", content, {option.name for option in fields(TrainingOptions)})
    for name, instead in (("seed", "list seeds instead"), ("minutes", "all trials must see the clips they are to see")):
        if name in content:
            raise OptionError(f"{path} has training.{name}, which no study can have: {instead}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrainingOptions)
    try:
        values = parser.parse_object(content).as_dict()
        TrainingOptions(**values)
    except Exception as error:
        raise OptionError(f"{path}, training: {error}") from error
    return {name: values[name] for name in content}


def _seeds(path: Path, content: Any) -> tuple[int, ...]:
    seeds = content if isinstance(content, list) else [content]
    for seed in seeds:
        check_count(f"seeds of {path}", seed, least=0)
    if len(set(seeds)) < len(seeds):
        raise OptionError(f"{path} names a seed twice: {seeds}")
    return tuple(seeds)


def _published(path: Path, content: dict[str, Any], models: Mapping[str, StudyModel]) -> Published:
    _check_names(path, "key of published", content, PUBLISHED_KEYS)
    if content and set(content) != PUBLISHED_KEYS:
        raise OptionError(f"{path}: published needs source and values, so that a reader knows what they are")
    values = {}
    for score, numbers in _mapping(path, "published.values", content.get("values")).items():
        what = f"published.values.{score}"
        values[str(score)] = _mapping(path, what, numbers)
        _check_names(path, f"model of {what}", values[str(score)], models)
        for label, value in values[str(score)].items():
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise OptionError(f"{path}: {what}.{label} is {value!r} and must be a number")
    return Published(str(content.get("source", "")), values)


def _mapping(path: Path, what: str, content: Any) -> dict[str, Any]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise OptionError(f"{path}: {what} is {content!r} and must be names with values, as in 'size: 32'")
    return dict(content)


def _check_names(path: Path, kind: str, spelled: Iterable[str], accepted: Iterable[str]) -> None:
    names = set(accepted)
    for name in spelled:
        if name not in names:
            raise UnknownNameError(f"{kind} (in {path})", str(name), names)


def _label(path: Path, label: Any) -> str:
    if not LABEL.fullmatch(str(label)):
        raise OptionError(f"{path}: {label!r} names files and can only have letters, digits and _ . + -")
    return str(label)
