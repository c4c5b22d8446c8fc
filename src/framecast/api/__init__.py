"""What a user calls: each verb one function, each kind of verb one file."""

from framecast.api.analysing import analyse_complexity, analyse_layers, analyse_receptive
from framecast.api.given import data, load
from framecast.api.running import train
from framecast.api.scoring import evaluate
from framecast.api.showing import predict, report

__all__ = [
    "analyse_complexity",
    "analyse_layers",
    "analyse_receptive",
    "data",
    "evaluate",
    "load",
    "predict",
    "report",
    "train",
]
