"""Analyse: the paper's formulas of cost beside counts, receptive fields, and the outputs of layers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from framecast.api.data import as_trained, check_channels, open_trained, run_data
from framecast.cost.count import create_for_shape, model_cost
from framecast.cost.measure import measure_step
from framecast.cost.paper import paper_memory, unit_complexity
from framecast.data.clips import ClipData, Split
from framecast.errors import DataError, RunNotFoundError, check_count
from framecast.files import write_atomically
from framecast.models.forecaster import Forecaster, create_model
from framecast.models.recurrent import RecurrentForecaster
from framecast.probes.layer_outputs import record_layers
from framecast.probes.receptive_field import effective_side, measure_gradients, reach, receptive_fields
from framecast.reporting.figures import draw_fields, draw_layers, write_drawings

ABLATION = ("convlstm", "sms-lstm", "tms-lstm", "ms-lstm")
AnalysisRow = dict[str, Any]


def analyse_complexity(
    models: Sequence[str] = ABLATION,
    *,
    shape: Sequence[int] = (20, 1, 64, 64),
    context: int = 10,
    batch: int = 1,
    model_options: Mapping[str, Any] | None = None,
    measure: bool = False,
    threads: int | None = None,
) -> list[AnalysisRow]:
    """Return the paper's formulas of parameters, FLOPs and memory beside what is counted, one row a model.

    Args:
        models: names of models; the formulas exist for those of ConvLSTM and MK-LSTM units.
        shape: frames, channels, height and width of a clip.
        context: past frames of it.
        batch: clips of a training step.
        model_options: options of all models, such as {"hidden": 16}.
        measure: train three steps of each model too, in a process of its own, and measure the most it held.
        threads: threads of the processor to measure with; None leaves torch's choice.

    Returns:
        Rows with ``model``; ``parameters`` and ``macs`` of a roll-out of one clip, counted; ``formula_parameters`` and
        ``formula_macs``, by Table 2 summed over units and steps, None where it has none; and in bytes ``model_bytes``,
        ``optimizer_bytes``, ``formula_output_bytes``, ``formula_bytes`` (the paper's sum), ``saved_bytes``, what a
        roll-out keeps for its backward pass, and ``peak_bytes``, all tensors at the peak of a training step by the
        model's recipe, counted. With ``measure`` also ``measured_bytes``, the peak of the process less what it held
        before the model was made.

    Raises:
        UnknownNameError: no such model or option.
        ValueError: a shape or context the model cannot take, or steps that could not be measured (MeasurementError).
        OSError: the system does not tell what a process holds.
    """
    check_count("batch", batch)
    rows = []
    for name in models:
        options = dict(model_options or {})
        model = create_for_shape(name, shape, context, options).eval()
        row = {"model": name, **_counted_row(model, name, shape, context, batch)}
        if measure:
            measured = measure_step(
                name, shape, context, batch=batch, options=options, forecasts=False, threads=threads
            )
            row["measured_bytes"] = measured.peak - measured.base
        rows.append(row)
    return rows


def _counted_row(model: Forecaster, name: str, shape: Sequence[int], context: int, batch: int) -> AnalysisRow:
    """Return what ``analyse_complexity`` finds without computing."""
    costs = model_cost(model, model.recipe(), shape, context, batch=batch)
    memory = paper_memory(model, shape, batch)
    parameters, macs = _formulas(model, shape)
    return {
        "formula_parameters": parameters,
        "parameters": costs.parameters,
        "formula_macs": macs,
        "macs": costs.macs,
        "model_bytes": memory.model,
        "optimizer_bytes": memory.optimizer,
        "formula_output_bytes": memory.outputs,
        "formula_bytes": memory.total,
        "saved_bytes": costs.saved_bytes,
        "peak_bytes": costs.peak_bytes,
    }


def _formulas(model: Forecaster, shape: Sequence[int]) -> tuple[int | None, int | None]:
    if not isinstance(model, RecurrentForecaster):
        return None, None
    layers = zip(model.stack.cells, model.stack.scales, strict=True)
    units = [unit_complexity(cell, shape[2] >> scale, shape[3] >> scale) for cell, scale in layers]
    named_units = [unit for unit in units if unit is not None]
    if len(named_units) < len(units):
        return None, None
    return sum(unit.parameters for unit in named_units), (shape[0] - 1) * sum(unit.macs for unit in named_units)


def analyse_receptive(
    models: Sequence[str | Path] = ABLATION,
    *,
    size: int = 128,
    steps: int = 1,
    clips: int = 8,
    seed: int = 0,
    model_options: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
) -> list[AnalysisRow]:
    """Return the receptive field of every layer, by theory and as gradients measure it.

    Args:
        models: names of models, which get random weights, or run folders.
        size: height and width of the frames; a field as large is the whole frame, or cut by it.
        steps: frames seen; with more than one, how far a layer looks into earlier frames too.
        clips: random clips to average gradients over.
        seed: of the weights and the clips.
        model_options: options of the models given by name.
        out: a folder for receptive-fields.svg and .png, the gradients as pictures; None writes nothing.

    Returns:
        Rows with ``model``, ``layer``, ``stride`` of its map in pixels, ``back`` (0 for the last frame, 1 for the one
        before, ...; a one-shot model's frames count as one), ``theory`` and ``measured``, the longer sides of the
        field of the map's central value, and ``effective``, the side of a square of as many pixels as answer with at
        least 4.55 % of the strongest gradient.

    Raises:
        UnknownNameError: no such model or option.
        RunNotFoundError: a folder without weights.
        ValueError: a size the model would pad, or fewer steps than a one-shot model needs.
    """
    check_count("steps", steps)
    check_count("clips", clips)
    rows, pictures = [], {}
    for model_or_run in models:
        model, name = _open_model(model_or_run, seed, model_options)
        generator = torch.Generator().manual_seed(seed)
        frames = torch.rand(clips, steps, model.in_channels, size, size, generator=generator)
        gradients = measure_gradients(model, frames)
        fields = receptive_fields(model, (size, size), steps)
        for field in fields:
            for steps_back, (side, gradient) in enumerate(zip(field.sides, gradients[field.layer], strict=True)):
                reached = gradient[None] > 0
                rows.append(
                    {
                        "model": name, "layer": field.layer, "stride": field.stride, "back": steps_back, "theory": side,
                        "measured": reach(reached.any(2), reached.any(1))[0], "effective": effective_side(gradient),
                    }
                )  # fmt: skip
        pictures[name] = {field.layer: (gradients[field.layer][0].numpy(), field.sides[0]) for field in fields}
    if out is not None:
        write_drawings(Path(out), {"receptive-fields": draw_fields(pictures)})
    return rows


def _open_model(model_or_run: Any, seed: int, options: Mapping[str, Any] | None) -> tuple[Forecaster, str]:
    if not isinstance(model_or_run, str) or Path(model_or_run).exists():
        trained = open_trained(model_or_run)
        return trained.model, trained.name if trained.in_memory else trained.folder.name
    torch.manual_seed(seed)
    return create_model(model_or_run, **(options or {})).eval(), model_or_run


def analyse_layers(
    runs: Sequence[str | Path],
    *,
    clip: int = 0,
    split: Split = "test",
    data: str | Path | ClipData | None = None,
    data_options: Mapping[str, Any] | None = None,
    out: str | Path,
) -> dict[str, dict[str, Tensor]]:
    """Draw what every layer of trained models puts out over time on one clip, as in Figure 5 of the paper.

    Args:
        runs: run folders, such as those of the four ablation models.
        clip: number of the clip.
        split: "train", "validation" or "test".
        data: another data set than the runs were trained on, by name, path or opened.
        data_options: options of the data set; they replace those of the same name that it was trained with.
        out: a folder for layer-outputs.svg and .png, and layer-outputs.npz with the numbers.

    Returns:
        Name of a run -> layer -> its output (1, N, C, h, w) at every step, "input" first: what each step saw.

    Raises:
        RunNotFoundError: no runs, a folder without weights, or one that names no data where none is given.
        DataError: the split has no such clip, or the data is in another unit than the model's.
        ValueError: the clip does not suit a model.
    """
    if not runs:
        raise RunNotFoundError("analyse layers needs at least one run folder")
    outputs_of_runs: dict[str, dict[str, Tensor]] = {}
    for run in runs:
        model, name, _, folder = open_trained(run)
        clips = as_trained(run_data(folder, data, data_options), model)
        check_channels(model, clips)
        if not 0 <= clip < len(clips[split]):
            raise DataError(f"the {split} split of {clips.title} has {len(clips[split])} clips, so there is no {clip}")
        past = clips[split][clip]["frames"][None, : clips.spec.context]
        outputs_of_runs[f"{name} ({folder.name})" if name in outputs_of_runs else name] = _layers(
            model, past, clips.spec.horizon
        )
    arrays = {
        f"{name}/{layer}": maps.numpy() for name, layers in outputs_of_runs.items() for layer, maps in layers.items()
    }
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    write_atomically(Path(out) / "layer-outputs.npz", content.getvalue())
    write_drawings(Path(out), {"layer-outputs": draw_layers(_mean_maps(outputs_of_runs), past.shape[1])})
    return outputs_of_runs


def _layers(model: Forecaster, past: Tensor, horizon: int) -> dict[str, Tensor]:
    """Return the input of every step and the output of every layer: past frames first, then the model's own."""
    outputs = record_layers(model, past, horizon)
    frames = past
    if isinstance(model, RecurrentForecaster):
        height, width = past.shape[-2:]
        frames = torch.cat([past, outputs["head"][:, past.shape[1] - 1 : -1, :, :height, :width]], 1)
    return {"input": frames, **outputs}


def _mean_maps(outputs_of_runs: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, NDArray[Any]]]:
    """Return each layer's mean absolute value over its channels (N, h, w), and what goes in and comes out as it is."""
    return {
        name: {
            layer: (maps[0].mean(1) if layer in ("input", "head") else maps[0].abs().mean(1)).numpy()
            for layer, maps in layers.items()
            if layer != "embed"
        }
        for name, layers in outputs_of_runs.items()
    }
