"""What ``framecast cost`` prints: one model counted or measured, what fits, a table, or the paper's tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from framecast.cost.count import Cost, Operations, cost
from framecast.cost.fit import fit_text, largest_batches, read_size
from framecast.cost.measure import cheaper_ways, measure_step
from framecast.cost.memory import shown_bytes
from framecast.cost.paper import paper_text, published_cost
from framecast.cost.table import make_cost_table
from framecast.errors import OptionError, check_count
from framecast.models.forecaster import Recompute
from framecast.reporting.results import text_table

# What each form of the verb takes beside what it asks for; anything else given would be ignored, so it is refused.
COMMON = {"model", "shape", "context", "model_options", "recompute", "threads", "device"}
TAKES = {
    "paper": set[str](),
    "table": {"models", "batch", "seconds", "threads", "out"},
    "fit": COMMON,
    "measure": COMMON | {"batch"},
}
COUNTING = {"model", "shape", "context", "model_options", "recompute", "batch"}


@dataclass(frozen=True)
class CostRequest:
    """What is asked of ``framecast cost``.

    Args:
        model: name of a model.
        shape: (T, C, H, W) of a clip.
        context: past frames of the clip; None takes half of it.
        model_options: e.g. --model_options.hidden 16.
        batch: clips of a training step; None takes 1.
        recompute: "none", "lean" or the steps of a segment; None takes "none", and with --fit several ways.
        measure: measure memory and time of training steps and forecasts.
        fit: a memory, e.g. 8GB: measure which batch fits into it.
        table: a table of many models for each of these shapes: moving-mnist, taxibj, kth, german-radar, T,C,H,W or
            T,C,H,W:CONTEXT.
        models: models of the table; None takes all.
        seconds: allowed for measuring a row of the table; None takes 300.
        out: file of the table, .csv or .md; rows found in the .csv are not made again.
        threads: threads of the processor to measure with; None leaves torch's choice.
        device: to measure on; None takes cpu.
        paper: the cost tables of the MS-LSTM paper beside ours.
    """

    model: str | None = None
    shape: list[int] | None = None
    context: int | None = None
    model_options: dict[str, Any] = field(default_factory=dict)
    batch: int | None = None
    recompute: Recompute | None = None
    measure: bool = False
    fit: str | None = None
    table: list[str] | None = None
    models: list[str] | None = None
    seconds: float | None = None
    out: str | None = None
    threads: int | None = None
    device: str | None = None
    paper: bool = False


def cost_answer(asked: CostRequest, tell: Callable[[str], None] = lambda _: None) -> str:
    """Return the answer as text.

    Args:
        asked: what is asked.
        tell: is told what is being done, where it takes long.

    Raises:
        UnknownNameError: no such model, option or data set.
        ValueError: a shape, size, context or ``recompute`` that cannot be, or options that do not go together.
        OSError: the file of the table cannot be written.
    """
    _check(asked)
    if asked.paper:
        return paper_text()
    if asked.table is not None:
        return make_cost_table(
            asked.table, models=asked.models, batch=asked.batch or 1, seconds=asked.seconds or 300.0,
            threads=asked.threads, out=asked.out, tell=tell,
        )  # fmt: skip
    if asked.model is None or not asked.shape:
        raise OptionError("cost needs a model and --shape T C H W, or --table SHAPE..., or --paper")
    shape, context = asked.shape, asked.shape[0] // 2 if asked.context is None else asked.context
    device = asked.device or "cpu"
    if asked.fit is not None:
        limit, modes = read_size(asked.fit), None if asked.recompute is None else [asked.recompute]
        fits = largest_batches(
            asked.model, shape, context, limit, modes=modes, options=asked.model_options, device=device,
            threads=asked.threads, tell=tell,
        )  # fmt: skip
        return fit_text(fits, limit)
    text = _counted(asked, shape, context)
    if not asked.measure:
        return text
    batch = asked.batch or 1
    tell(f"measuring {asked.model}, batch {batch}")
    found = measure_step(
        asked.model, shape, context, batch=batch, recompute=_mode(asked), options=asked.model_options, device=device,
        threads=asked.threads,
    )  # fmt: skip
    assert found.forecast is not None
    rows = [
        ["measured", f"batch {batch}"],
        ["process at its peak", shown_bytes(found.peak)],
        ["process before", shown_bytes(found.base)],
        ["training step", f"{found.step:.3g} s"],
        ["forecast", f"{found.forecast:.3g} s"],
    ]
    ways = cheaper_ways(asked.model, shape, context, batch, device, **asked.model_options)
    return f"{text}\n\n{text_table(rows)}\n\n" + "\n".join(["cheaper, if you ask for it:", *ways])


def _check(asked: CostRequest) -> None:
    given = {name for name, value in vars(asked).items() if value not in (None, False, {})}
    forms = [name for name in TAKES if name in given]
    if len(forms) > 1:
        raise OptionError(f"--{forms[0]} and --{forms[1]} are both given: choose one")
    takes = TAKES[forms[0]] if forms else COUNTING
    if wrong := sorted(given - takes - set(forms)):
        asking = f"--{forms[0]}" if forms else "counting"
        raise OptionError(f"{asking} does not take {', '.join(wrong)}: leave it out, or see framecast cost --help")
    for name in ("batch", "threads"):
        if getattr(asked, name) is not None:
            check_count(name, getattr(asked, name))
    if asked.seconds is not None and asked.seconds <= 0:
        raise OptionError(f"seconds is {asked.seconds} and must be above 0")


def _mode(asked: CostRequest) -> Recompute:
    return "none" if asked.recompute is None else asked.recompute


def _counted(asked: CostRequest, shape: Sequence[int], context: int) -> str:
    assert asked.model is not None
    options, batch, mode = asked.model_options, asked.batch or 1, _mode(asked)
    counted = cost(asked.model, shape, context, batch=batch, recompute=mode, **options)
    known = {name: options[name] for name in ("hidden", "kernel", "layers") if name in options}
    convention = published_cost(asked.model, shape, context, **known)
    operations = [["", "parameters", "multiply-accumulates"], _operations_row("true", counted)]
    if convention:
        operations.append(_operations_row("published convention", convention))
    rows = [
        ["counted", f"batch {batch}, recompute {mode}"],
        ["saved for backward", shown_bytes(counted.saved_bytes)],
        ["all tensors at the peak of a step", shown_bytes(counted.peak_bytes)],
    ]
    return f"{text_table(operations)}\n\n{text_table(rows)}"


def _operations_row(label: str, counted: Cost | Operations) -> list[str]:
    return [label, f"{counted.parameters:,}", f"{counted.macs / 1e9:,.3f} G"]
