"""What the moving frame costs, and that a model in it begins as extrapolation: on the rain that comes with the package.

The untrained model is compared with the extrapolation baseline over all test clips and lead times. A training step with
and one without ``residual`` take turns in one run, on one thread, and the median of their ratios is given; motions are
found in the first round, as in the first pass over the clips of a training.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch.utils.data import default_collate

import framecast as fc
from framecast.compute.placement import arrange
from framecast.models.extrapolation import Extrapolation
from framecast.training.losses import sampled_steps, training_loss

OPTIONS = {"crop": [185, 585, 160, 560], "size": 80, "method": "mean", "interval": 5, "horizon": 12}
ROUNDS, BATCH, HIDDEN, MOST_RATIO = 12, 2, 8, 1.1


def main() -> None:
    """Print the largest difference and the ratio."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = fc.data("knmi-sample", **OPTIONS, blocks=[24, 16, 20])
    spec, rounds = data.spec, []
    models = {
        residual: fc.create_model("ms-lstm", hidden=HIDDEN, residual=residual) for residual in ("none", "extrapolation")
    }
    for model in models.values():
        model.clips = spec
        arrange(model, "auto", torch.device("cpu"))
    clips = default_collate([data["test"][number] for number in range(len(data["test"]))])
    past, valid = clips["frames"][:, : spec.context], clips["valid"][:, : spec.context]
    with torch.no_grad():
        forecast = models["extrapolation"](past.where(valid, torch.nan), spec.horizon)
    difference = (forecast - Extrapolation(spec.scaling)(past, spec.horizon, valid)).abs().max().item()
    print(f"untrained model against extrapolation, {len(past)} clips, {spec.horizon} lead times: {difference:.1e}")

    batch = default_collate([data["train"][number] for number in range(BATCH)])
    frames = batch["frames"]

    def step(residual: str) -> float:
        model, began = models[residual], time.perf_counter()
        conditions = model.conditions(frames[:, : spec.context], spec.horizon)
        recipe = model.recipe()
        loss = training_loss(
            model, recipe, frames, spec.context, sampled_steps(recipe, frames), valid=batch["valid"],
            rows=conditions.rows, known=conditions.known,
        )  # fmt: skip
        loss.backward()
        return time.perf_counter() - began

    for _ in range(ROUNDS):
        took = {residual: step(residual) for residual in models}
        rounds.append(took["extrapolation"] / took["none"])
    ratio = statistics.median(rounds[1:])
    print(f"training step with residual / without, median of {ROUNDS - 1}: {ratio:.3f} (first round {rounds[0]:.2f})")
    print("within the goal" if difference <= 1e-5 and ratio <= MOST_RATIO else "NOT within the goal")


if __name__ == "__main__":
    main()
