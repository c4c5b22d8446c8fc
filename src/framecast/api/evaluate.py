"""Evaluate: a run folder becomes scores beside those of the baselines."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Subset

from framecast.api.data import as_trained, check_channels, open_trained, plain_options, run_data
from framecast.compute.compiling import Mode, speed_up
from framecast.compute.placement import arithmetic, find_device, place
from framecast.cost.count import model_cost
from framecast.data.clips import SPLITS, ClipData, ClipSpec, Split
from framecast.errors import DataError, WorkerLostError, check_count, is_worker_lost
from framecast.evaluation import Evaluation, Protocol, evaluate_clips
from framecast.files import check_place, sealed_json, write_atomically
from framecast.models.forecaster import Forecaster
from framecast.models.members import Mean
from framecast.registry import shipped_runs
from framecast.reporting.results import Scores, score_csv
from framecast.training.distributed import join_peers, own_device
from framecast.training.order import EveryClipOnce

if TYPE_CHECKING:
    from framecast.training.loop import Run


def evaluate(
    run: str | Path | Run | Forecaster,
    *,
    data: str | Path | ClipData | None = None,
    data_options: Mapping[str, Any] | None = None,
    split: Split = "test",
    protocol: Protocol = "forecast",
    batch: int = 16,
    limit: int | None = None,
    scores: list[str] | None = None,
    score_options: dict[str, Any] | None = None,
    baselines: list[str] | None = None,
    bootstrap: int = 1000,
    per_clip: bool = False,
    members: int | None = None,
    seed: int | None = None,
    mean: Mean = "plain",
    examples: int = 8,
    out: str | Path | None = None,
    device: str = "auto",
    precision: str = "32-true",
    compile: Mode = "auto",
    workers: int = 0,
    threads: int | None = None,
    progress: bool = True,
) -> Scores:
    """Score a trained model on a split of its data set, beside the baselines.

    Processes that torchrun started share the clips, each of which is scored once; all of them return the same results
    and the first one writes them.

    Args:
        run: a run folder, a weights file, the name of a model that comes trained, what ``train`` returned, or a
            forecaster in memory, for which ``data`` is needed.
        data: another data set than the one it was trained on, by name or opened.
        data_options: options of the data set; they replace those of the same name that it was trained with.
        split: "train", "validation" or "test".
        protocol: "forecast", or "as-published" to add the published average over warm-up frames.
        batch: clips forecast at a time.
        limit: only the first so many clips.
        scores: families of scores, "image" or "rain"; None takes all that suit the data's unit.
        score_options: options of families, such as {"thresholds": [0.5, 2, 5], "scales": [5, 11]} of "rain".
        baselines: forecasts to compare with; None takes all that suit the unit, are installed and do not take long;
            "steps" is an ensemble to ask for.
        bootstrap: replicates for 95 % confidence intervals over clips, or over blocks of time; 0 for none.
        per_clip: write the main scores of every clip too, for paired comparisons of models.
        members: of the ensemble that a model with noise forecasts; None takes 16. Their mean is its forecast.
        seed: of the members; None takes 0.
        mean: of an ensemble, "plain", or "matched" for the probability-matched mean, which has the amounts of the
            members: better at thresholds, and worse in squared error.
        examples: clips to keep as pictures for the report.
        out: folder for results.json, results.csv and examples.npz; None writes into the run folder, and for a model
            that comes trained into runs/<its name>. Of a model in memory None writes nothing.
        device: "auto", "cpu", "cuda", ...
        precision: "32-true", or "bf16-mixed" where the processor is faster in it; the results say which.
        compile: "step" compiles a time step, which takes a minute or more before the first forecast; "graph", on CUDA,
            also launches the kernels of a forecast together; "auto" does so uncompiled on CUDA, and nothing elsewhere.
        workers: processes that prepare clips.
        threads: threads of the processor; None leaves torch's choice.
        progress: show a progress bar.

    Returns:
        What results.json holds: scores per lead time and of all together, with counts and intervals, of the model
        and each baseline; None where a score is undefined.

    Raises:
        RunNotFoundError: there are no weights, or weights alone and no data.
        DataError: there is no such split, or it is empty.
        UnknownNameError: no such protocol, precision, score, option of it, baseline or mean.
        OptionError: a mean of members where there are only single forecasts.
        MissingExtraError: a baseline that was asked for needs a package that is not installed.
        WorkerLostError: a process that prepares clips has ended before its time.
    """
    check_count("batch", batch)
    check_count("examples", examples, least=0)
    if limit is not None:
        check_count("limit", limit)
    model, name, model_options, folder = trained = open_trained(run)
    if out is not None:
        check_place(Path(out))
    clips = as_trained(run_data(folder, data, data_options), model)
    check_channels(model, clips)
    peers, subset, where = join_peers(), _first(clips, split, limit), own_device(find_device(device))
    share = EveryClipOnce(len(subset), peers.number, peers.count)
    pin = where.type == "cuda"
    loader: DataLoader[Any] = DataLoader(subset, batch, sampler=share, num_workers=workers, pin_memory=pin)
    costs = _cost(model, clips.spec)
    place(model, where)
    speed_up(model, compile)
    evaluation = Evaluation(
        model, name, clips.spec, protocol, examples, scores=scores, score_options=score_options, baselines=baselines,
        bootstrap=bootstrap, per_clip=per_clip, precision=precision, members=members, seed=seed, mean=mean,
    )  # fmt: skip
    progress = progress and peers.number == 0
    with arithmetic(threads), _explain_lost_workers(workers):
        evaluate_clips(evaluation, loader, len(loader), lambda tensor: tensor.to(where, non_blocking=pin), progress)
    if peers.count > 1:
        evaluation.merge(peers.gather(evaluation.part()))
    facts = {
        "run": folder.resolve().name,
        "model": name,
        "model_options": plain_options(model_options),
        **costs,
        "precision": precision,
        "data": clips.name,
        "data_options": plain_options(clips.options),
        "split": split,
        "fingerprint": clips.fingerprint(split),
        "clip_spec": clips.spec.to_dict(),
        **evaluation.results(),
    }
    results = Scores(facts)
    if peers.number == 0 and not (trained.in_memory and out is None):
        _write(_results_folder(folder) if out is None else Path(out), results, evaluation.example_arrays())
    peers.gather(None)  # no process goes on before the files are there
    return results


@contextmanager
def _explain_lost_workers(workers: int) -> Iterator[None]:
    """Say in words where a process that prepares clips has gone.

    Raises:
        WorkerLostError: one has.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if not workers or not is_worker_lost(error):
            raise
        raise WorkerLostError(
            f"a process that prepares clips has ended, killed or out of memory: evaluate again, perhaps with fewer "
            f"than workers={workers}"
        ) from error


def _results_folder(run: Path) -> Path:
    """Return the run folder, or a new one where that is part of the installed package."""
    return Path("runs") / run.name if run in shipped_runs().values() else run


def _cost(model: Forecaster, spec: ClipSpec) -> dict[str, int]:
    """Return what the model costs, by its own recipe; the memory of training is that of a step of one clip."""
    shape = (spec.length, spec.channels, spec.height, spec.width)
    costs = model_cost(model, model.recipe(), shape, spec.context).to_dict()
    return {key: costs[key] for key in ("parameters", "macs", "saved_bytes", "peak_bytes")}


def _first(clips: ClipData, split: Split, limit: int | None) -> Subset[Any]:
    """Return the first clips of a split, all without a limit.

    Raises:
        DataError: there is no such split, or it is empty.
    """
    part = clips[split]
    count = min(len(part), limit or len(part))
    if not count:
        raise DataError(f"the {split} split of {clips.title} is empty: choose one of {', '.join(SPLITS)}")
    return Subset(part, range(count))


def _write(folder: Path, results: dict[str, Any], examples: Mapping[str, NDArray[Any]]) -> None:
    """Write the three files, results.json last: it names the pictures that belong to it."""
    pictures = io.BytesIO()
    np.savez_compressed(pictures, **examples)  # type: ignore[arg-type]
    write_atomically(folder / "examples.npz", pictures.getvalue())
    write_atomically(folder / "results.csv", score_csv(results).encode())
    results["examples_sha256"] = hashlib.sha256(pictures.getvalue()).hexdigest()
    write_atomically(folder / "results.json", sealed_json(results, indent=1))
