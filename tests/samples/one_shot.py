"""One-shot models with the weights, the inputs and the outputs of the released ones."""

from __future__ import annotations

import json

from safetensors import safe_open
from safetensors.torch import load_file

import framecast as fc
from framecast.models.forecaster import Forecaster
from samples.paths import REFERENCE

# file: (name, source). The released model forecasts as many frames as its output holds.
ONE_SHOT = {
    "simvp_official": ("simvp", "simvp"),
    "simvp_official_ns2_taxibj": ("simvp", "simvp"),
    "simvp_openstl_incepu": ("simvp", "openstl"),
    "simvp_openstl_gsta": ("simvp-v2", "openstl"),
    "simvp_openstl_gsta_k5": ("simvp-v2", "openstl"),
}


class Case:
    """One reference file: its weights, an input, the released model's output, and a gradient."""

    def __init__(self, file: str) -> None:
        path = REFERENCE / f"{file}.safetensors"
        tensors = load_file(path)
        with safe_open(path, "pt") as handle:
            self.facts = json.loads(handle.metadata()["config"])
        self.weights = {k.removeprefix("param/"): v for k, v in tensors.items() if k.startswith("param/")}
        self.name, self.source = ONE_SHOT[file]
        order = [self.facts["layout"].split().index(axis) for axis in "BTCHW"]
        self.past, self.output, self.probe, self.gradient = (
            tensors[key].permute(order) for key in ("input", "output", "probe", "grad_input")
        )

    def imported(self, **config: object) -> Forecaster:
        model = fc.import_weights(self.name, self.weights, source=self.source, config=self.facts["kwargs"] | config)
        return model.eval()
