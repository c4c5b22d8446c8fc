"""NaN and infinity put into a training: they never reach the weights, and the run says where they came from."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

import framecast as fc
from framecast.cli import NON_FINITE
from framecast.errors import NonFiniteError
from framecast.registry import model_entry
from framecast.training.loop import run_training
from framecast.training.options import TrainingOptions
from framecast.training.run_folder import RunFolder
from torture.promise import Figure, Promise
from torture.runs import TRAIN, finish, printed, torchrun_this

DATA: dict[str, Any] = {"size": 16, "context": 2, "horizon": 2, "clips": 60}
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("convlstm", {"hidden": 4, "layers": 2}),
    # Its running means would keep a NaN for ever.
    ("simvp-v2", {"context": 2, "horizon": 2, "hid_S": 4, "hid_T": 8, "N_S": 2, "N_T": 3, "mlp_ratio": 2.0}),
]
STEPS = 12


class Poison(lightning.Callback):
    """Puts a number into the frames, or into the gradient, of some steps, in one process of several."""

    def __init__(self, steps: set[int], value: float, into: str, rank: int = 0) -> None:
        self.steps, self.value, self.into, self.rank = steps, value, into, rank
        self.seen: dict[int, list[int]] = {}
        self.weights: dict[int, dict[str, torch.Tensor]] = {}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.step, self.process = batch_idx + 1, trainer.global_rank
        self.seen[self.step] = batch["index"].tolist()
        self.weights[self.step] = {name: value.clone() for name, value in pl_module.model.state_dict().items()}
        if self.into == "frames" and self._now(trainer):
            batch["frames"][0, 0, 0, 0, 0] = self.value

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if self.into == "gradient" and self._now(trainer):
            next(weight for weight in pl_module.parameters() if weight.grad is not None).grad.view(-1)[0] = self.value

    def _now(self, trainer: Any) -> bool:
        return self.step in self.steps and trainer.global_rank == self.rank


def trained(folder: Path, poison: Poison, trial: int, **options: Any) -> Any:
    """Train a small model with poison in it."""
    name, arguments = MODELS[trial % 2]
    torch.manual_seed(0)
    settings = {"steps": STEPS, "batch": 4, "save_every": 2, "validate_every": 6, "validate_clips": 4, "log_every": 5}
    chosen = TrainingOptions(accelerator="cpu", progress=False, trainer={"callbacks": [poison]}, **settings, **options)
    return run_training(fc.create_model(name, **arguments), fc.data("moving-mnist", **DATA), RunFolder(folder), chosen,
               model_entry(name).training, {})  # fmt: skip


def raising(folder: Path, times: int) -> Figure:
    """Poison one step each time; the run must end there, its weights and states finite and those before the step."""
    rng, broken = np.random.default_rng(2), []
    for trial in range(times):
        step = int(rng.integers(1, STEPS + 1))
        value, into = [np.nan, np.inf][trial % 2], ["frames", "gradient"][trial // 2 % 2]
        poison, where = Poison({step}, value, into), f"{value} in the {into} of step {step}"
        try:
            trained(folder / str(trial), poison, trial // 4)
        except NonFiniteError as error:
            clips = f"training clips {', '.join(map(str, sorted(poison.seen[step])))},"
            said = str(error)
            if f"step {step} " not in said or clips not in said:
                broken.append(f"{where}: {said}")
        else:
            broken.append(f"{where}: nothing was said")
        last = max(poison.weights)
        if last > step + 1:
            broken.append(f"{where}: it went on to step {last}")
        # Seen from the step after, where there was one, the weights are those before the poison.
        if last == step + 1 and any(
            not torch.equal(before, poison.weights[last][name])
            for name, before in poison.weights[step].items()
            if not name.endswith("num_batches_tracked")
        ):
            broken.append(f"{where}: it reached the weights")
        states = sorted((folder / str(trial) / "checkpoints").glob("batch-*.ckpt"))
        if states and int(states[-1].stem.split("-")[1]) >= step:
            broken.append(f"{where}: {states[-1].name} was saved")
    held = times - len({line.split(":")[0] for line in broken})
    return Figure(held, times, "the message names step and clips", tuple(broken))


def skipping(folder: Path, times: int) -> Figure:
    """Poison two steps in a row, of at most two; then three, which is one too many."""
    rng, broken = np.random.default_rng(4), []
    logging.getLogger("framecast.training.nonfinite").setLevel(logging.ERROR)
    try:
        for trial in range(times):
            first = int(rng.integers(1, STEPS - 3))
            value, into = [np.nan, np.inf][trial % 2], ["frames", "gradient"][trial // 2 % 2]
            where = f"{value} in the {into} from step {first} on"
            poison = Poison({first, first + 1, first + 3}, value, into)
            run = trained(folder / f"two-{trial}", poison, trial // 2, on_nonfinite="skip", skip_limit=2)
            weights = fc.load(run.path).state_dict()
            if not run.finished or not all(value.isfinite().all() for value in weights.values()):
                broken.append(f"{where}: not finished with finite weights")
            after = poison.weights[first + 2]
            if not all(torch.equal(poison.weights[first][n], after[n]) for n, v in after.items() if v.ndim):
                broken.append(f"{where}: a step that was left out changed the weights")
            if all(torch.equal(poison.weights[first + 3][n], after[n]) for n, v in after.items() if v.ndim):
                broken.append(f"{where}: the step after it did not learn")
            poison = Poison({first, first + 1, first + 2}, value, into)
            try:
                trained(folder / f"three-{trial}", poison, trial // 2, on_nonfinite="skip", skip_limit=2)
            except NonFiniteError as error:
                if f"step {first + 2} " not in str(error) or "number 3 in a row" not in str(error):
                    broken.append(f"{where}: {error}")
            else:
                broken.append(f"{where}: three in a row were left out")
    finally:
        logging.getLogger("framecast.training.nonfinite").setLevel(logging.NOTSET)
    held = times - len({line.split(":")[0] for line in broken})
    return Figure(held, times, "running means of batch normalisation included", tuple(broken))


def command_line(folder: Path, times: int) -> Figure:
    """Let the command line diverge, in one process and in two: one message, the exit code, a run that can be loaded."""
    broken = []
    for trial in range(times):
        out = folder / str(trial)
        diverging = ["--lr", "1e37", "--schedule", "constant", "--devices", str(1 + trial % 2)]
        code = finish(out, [*TRAIN, *diverging])
        said = printed(out)
        if code != NON_FINITE or said.count("has a loss of") != 1 or "Traceback" in said:
            broken.append(f"{1 + trial % 2} processes, exit code {code}: {said}")
    return Figure(times - len(broken), times, f"exit code {NON_FINITE}", tuple(broken))


def in_one_rank(folder: Path, times: int) -> Figure:
    """Poison one of two processes: both must end at the same step and name the clips of both."""
    broken = []
    for trial in range(times):
        step = 3 + trial
        out = folder / str(trial)
        code = torchrun_this(__file__, out, str(step))
        said = [(out / f"said-{rank}.txt").read_text() for rank in range(2)] if not code else ["", printed(out)]
        if code or said[0] != said[1] or f"step {step} " not in said[0]:
            broken.append(f"exit code {code}: {said}")
    return Figure(
        times - len(broken), times, "both processes end at the same step with the same message", tuple(broken)
    )


def poisoned_rank(out: Path, step: int) -> None:
    """Train in two processes of which the second one is poisoned, and write down what was said."""
    poison = Poison({step}, np.nan, "frames", rank=1)
    try:
        trained(out / "run", poison, 0)
    except NonFiniteError as error:
        (out / f"said-{poison.process}.txt").write_text(str(error))


PROMISES = [
    Promise("R7", "NaN or infinity in a loss or gradient ends the training before the weights, running means and "
            "states; the message names step and clips", raising, long=10, short=5),
    Promise("R7", "`--on_nonfinite skip` leaves out such steps without a trace, and ends after too many in a row",
            skipping, long=10, short=2),
    Promise("R7", "The command line ends with its exit code and one message, of one process or two", command_line,
            long=2, short=1),
    Promise("R7", "NaN in one of two processes ends both at the same step", in_one_rank, long=2, short=0),
]  # fmt: skip

if __name__ == "__main__":
    poisoned_rank(Path(sys.argv[1]), int(sys.argv[2]))
