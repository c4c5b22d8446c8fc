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
from framecast.errors import OptionError, check_count, check_number
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


def cost_answer(request: CostRequest, progress: Callable[[str], None] = lambda _: None) -> str:
    """Return the answer as text.

    Args:
        request: what is asked.
        progress: called with a line of text at each long step.

    Raises:
        UnknownNameError: no such model, option or data set.
        ValueError: a shape, size, context or ``recompute`` that is not valid, or options that exclude each other.
        OSError: the file of the table cannot be written.
    """
    _check(request)
    if request.paper:
        return paper_text()
    if request.table is not None:
        return make_cost_table(
            request.table, models=request.models, batch=request.batch or 1, seconds=request.seconds or 300.0,
            threads=request.threads, out=request.out, progress=progress,
        )  # fmt: skip
    if request.model is None or not request.shape:
        raise OptionError("cost needs a model and --shape T C H W, or --table SHAPE..., or --paper")
    shape, context = request.shape, request.shape[0] // 2 if request.context is None else request.context
    device = request.device or "cpu"
    if request.fit is not None:
        limit, modes = read_size(request.fit), None if request.recompute is None else [request.recompute]
        fits = largest_batches(
            request.model, shape, context, limit, modes=modes, options=request.model_options, device=device,
            threads=request.threads, progress=progress,
        )  # fmt: skip
        return fit_text(fits, limit)
    text = _count_text(request, shape, context)
    if not request.measure:
        return text
    batch = request.batch or 1
    progress(f"measuring {request.model}, batch {batch}")
    step = measure_step(
        request.model,
        shape,
        context,
        batch=batch,
        recompute=_mode(request),
        options=request.model_options,
        device=device,
        threads=request.threads,
    )
    assert step.forecast is not None
    rows = [
        ["measured", f"batch {batch}"],
        ["process at its peak", shown_bytes(step.peak)],
        ["process before", shown_bytes(step.base)],
        ["training step", f"{step.step:.3g} s"],
        ["forecast", f"{step.forecast:.3g} s"],
    ]
    ways = cheaper_ways(request.model, shape, context, batch, device, **request.model_options)
    return f"{text}\n\n{text_table(rows)}\n\n" + "\n".join(["cheaper, if you ask for it:", *ways])


def _check(request: CostRequest) -> None:
    options = {name for name, value in vars(request).items() if value not in (None, False, {})}
    forms = [name for name in TAKES if name in options]
    if len(forms) > 1:
        raise OptionError(f"--{forms[0]} and --{forms[1]} are both given: choose one")
    takes = TAKES[forms[0]] if forms else COUNTING
    if wrong := sorted(options - takes - set(forms)):
        asking = f"--{forms[0]}" if forms else "counting"
        raise OptionError(f"{asking} does not take {', '.join(wrong)}: leave it out, or see framecast cost --help")
    for name in ("batch", "threads"):
        if getattr(request, name) is not None:
            check_count(name, getattr(request, name))
    if request.seconds is not None:
        check_number("seconds", request.seconds, above=0)


def _mode(request: CostRequest) -> Recompute:
    return "none" if request.recompute is None else request.recompute


def _count_text(request: CostRequest, shape: Sequence[int], context: int) -> str:
    assert request.model is not None
    options, batch, mode = request.model_options, request.batch or 1, _mode(request)
    costs = cost(request.model, shape, context, batch=batch, recompute=mode, **options)
    shown_options = {name: options[name] for name in ("hidden", "kernel", "layers") if name in options}
    convention = published_cost(request.model, shape, context, **shown_options)
    operations = [["", "parameters", "multiply-accumulates"], _operations_row("true", costs)]
    if convention:
        operations.append(_operations_row("published convention", convention))
    rows = [
        ["counted", f"batch {batch}, recompute {mode}"],
        ["saved for backward", shown_bytes(costs.saved_bytes)],
        ["all tensors at the peak of a step", shown_bytes(costs.peak_bytes)],
    ]
    return f"{text_table(operations)}\n\n{text_table(rows)}"


def _operations_row(label: str, costs: Cost | Operations) -> list[str]:
    return [label, f"{costs.parameters:,}", f"{costs.macs / 1e9:,.3f} G"]
