"""Tables: every name that exists; one line registers a cell, a data set, a score, a baseline or a reader.

One entry in ``CELLS`` gives two models, the plain column and the mirrored pyramid ``ms-<name>``; both then appear
on the command line, in the tests and in the docs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from framecast.registry.entries import BaselineEntry, CellEntry, ModelEntry, Training

CELLS: dict[str, CellEntry] = {
    "convlstm": CellEntry(
        "framecast.cells.convlstm:column",
        "framecast.cells.convlstm:published",
        "ConvLSTM",
        "Shi et al., NeurIPS 2015",
        "10.48550/arXiv.1506.04214",
    ),
    "trajgru": CellEntry(
        "framecast.cells.trajgru:column",
        "framecast.cells.trajgru:published",
        "TrajGRU",
        "Shi et al., NeurIPS 2017",
        "10.48550/arXiv.1706.03458",
    ),
    "predrnn": CellEntry(
        "framecast.cells.predrnn:column",
        "framecast.cells.predrnn:published",
        "PredRNN",
        "Wang et al., NeurIPS 2017",
        "10.1109/TPAMI.2022.3165153",
        upsampled=2,
    ),
    "predrnn-v2": CellEntry(
        "framecast.cells.predrnn:column_v2",
        "framecast.cells.predrnn:published_v2",
        "PredRNN-V2",
        "Wang et al., IEEE TPAMI 2023",
        "10.1109/TPAMI.2022.3165153",
        Training(sampling="reverse-scheduled", penalty_weight=0.01),
        upsampled=2,
        penalty_option="decoupling",
    ),
    "predrnn++": CellEntry(
        "framecast.cells.predrnnpp:column",
        "framecast.cells.predrnnpp:published",
        "PredRNN++",
        "Wang et al., ICML 2018",
        "10.48550/arXiv.1804.06300",
        upsampled=2,
    ),
    "mim": CellEntry(
        "framecast.cells.mim:column",
        "framecast.cells.mim:published",
        "MIM",
        "Wang et al., CVPR 2019",
        "10.48550/arXiv.1811.07490",
        upsampled=2,
    ),
    "motionrnn": CellEntry(
        "framecast.cells.motionrnn:column",
        "framecast.cells.motionrnn:published",
        "MotionRNN",
        "Wu et al., CVPR 2021",
        "10.48550/arXiv.2103.02243",
        upsampled=2,
    ),
    "mk-lstm": CellEntry(
        "framecast.cells.mklstm:column",
        "framecast.cells.mklstm:published",
        "MK-LSTM",
        "Ma et al., MS-LSTM, Applied Soft Computing 2023",
        "10.1016/j.asoc.2023.110731",
    ),
    "preciplstm": CellEntry(
        "framecast.cells.preciplstm:column",
        "framecast.cells.preciplstm:published",
        "PrecipLSTM",
        "Ma, Zhang and Liu, IEEE TGRS 2022",
        "10.1109/TGRS.2022.3198222",
        upsampled=2,
    ),
    "cms-lstm": CellEntry(
        "framecast.cells.cmslstm:column",
        "framecast.cells.cmslstm:published",
        "CMS-LSTM",
        "Chai et al., ICME 2022",
        "10.48550/arXiv.2102.03586",
    ),
    "modernn": CellEntry(
        "framecast.cells.modernn:column",
        "framecast.cells.modernn:published",
        "MoDeRNN",
        "Chai et al., ICASSP 2022",
        "10.48550/arXiv.2110.12978",
    ),
}

ONE_SHOT: dict[str, ModelEntry] = {
    "earthformer": ModelEntry(
        "earthformer",
        "framecast.models.earthformer:build",
        "Earthformer",
        "Gao et al., NeurIPS 2022",
        "10.48550/arXiv.2207.05833",
        training=Training(
            optimizer="adamw",
            lr=1e-3,
            weight_decay=1e-5,
            schedule="warmup-cosine",
            loss="mse",
            sampling="none",
            clip_norm=1.0,
        ),
    ),
    "simvp": ModelEntry(
        "simvp",
        "framecast.models.simvp:build_simvp",
        "SimVP",
        "Gao et al., CVPR 2022",
        "10.1109/CVPR52688.2022.00317",
        training=Training(lr=1e-3, schedule="one-cycle", loss="mse", sampling="none"),
    ),
    "simvp-v2": ModelEntry(
        "simvp-v2",
        "framecast.models.simvp:simvp_v2",
        "SimVPv2",
        "Tan et al., 2022",
        "10.48550/arXiv.2211.12509",
        training=Training(lr=1e-3, schedule="one-cycle", loss="mse", sampling="none"),
    ),
}

ALIASES = {"sms-lstm": "ms-convlstm", "tms-lstm": "mk-lstm", "ms-lstm": "ms-mk-lstm"}

DATASETS: dict[str, str | Callable[..., Any]] = {
    "moving-mnist": "framecast.datasets.moving_mnist:open_moving_mnist",
    "taxibj": "framecast.datasets.taxibj:open_taxibj",
    "kth": "framecast.datasets.kth:open_kth",
    "own": "framecast.datasets.own:open_own",
    "german-radar": "framecast.datasets.german:german_radar",
    "knmi": "framecast.datasets.dutch:dutch_radar",
}

# The unit of rain rates, as every reader spells it.
RAIN_RATE = "mm/h"

# Families of scores, classes that derive from framecast.scores.family.ScoreFamily.
SCORES: dict[str, str | Callable[..., Any]] = {
    "rain": "framecast.scores.rain:RainScores",
    "image": "framecast.scores.image:ImageScores",
    "sharpness": "framecast.scores.sharpness:Sharpness",
}

BASELINES: dict[str, BaselineEntry] = {
    "persistence": BaselineEntry("framecast.models.baselines:persistence"),
    "mean frame": BaselineEntry("framecast.models.baselines:mean_frame"),
    "blank frame": BaselineEntry("framecast.models.baselines:blank"),
    "extrapolation": BaselineEntry("framecast.models.extrapolation:Extrapolation", RAIN_RATE, package="pysteps"),
}

# Readers of files that hold one frame, ``(path) -> framecast.datasets.windows.Frame``, by the file's name in
# lower case; the first pattern that matches counts.
FRAME_READERS: dict[str, str | Callable[..., Any]] = {
    "rad_nl*.h5": "framecast.datasets.radar.knmi:read_knmi",
    "*.h5": "framecast.datasets.radar.odim:read_odim",
    "*.hdf5": "framecast.datasets.radar.odim:read_odim",
    "*.hdf": "framecast.datasets.radar.odim:read_odim",
    "*-bin": "framecast.datasets.radar.radolan:read_radolan",
    "*-bin.gz": "framecast.datasets.radar.radolan:read_radolan",
    "*-bin.bz2": "framecast.datasets.radar.radolan:read_radolan",
    "yw2017.002_*_[0-9][0-9][0-9][0-9]": "framecast.datasets.radar.radolan:read_radolan",
    "de1200_*_[0-9][0-9][0-9]": "framecast.datasets.radar.radolan:read_radolan",
}
