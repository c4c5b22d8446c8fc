"""Costs: hand-computed literals, the paper's tables, and counts that do not depend on how things are computed."""

from __future__ import annotations

import pytest
import torch
from samples.models import CONTEXT, HORIZON, SMALL_ONE_SHOT, small_model

import framecast as fc
from framecast import cli
from framecast.cells.attention import local_attention
from framecast.cost.count import count_operations
from framecast.cost.paper import PaperRow, paper_rows, published_cost
from framecast.registry import CELLS, ONE_SHOT

SHAPE = (CONTEXT + HORIZON, 1, 16, 16)
PIXELS, STEPS = 16 * 16, CONTEXT + HORIZON - 1
C = 8


def by_hand(name: str, weights: int) -> None:
    """Check a plain model of one layer whose convolutions have so many weights."""
    counted = fc.cost(name, SHAPE, CONTEXT, hidden=C, layers=1)
    assert counted.macs == STEPS * PIXELS * (weights + 2 * C)


def test_convlstm_by_hand() -> None:
    by_hand("convlstm", 8 * C**2 * 9)


def test_mklstm_by_hand() -> None:
    # The output gate's 3x3 kernel is folded into its 5x5 one: 2 C² 9 fewer than published.
    by_hand("mk-lstm", 308 * C**2 - 18 * C**2)


def test_trajgru_by_hand() -> None:
    # Input gates and features, hidden features, flows of 10 links, their reading at 4 each, the projection.
    links = 10
    by_hand("trajgru", 3 * C**2 * 9 + 2 * C**2 * 9 + 2 * links * C * 9 + 4 * links * C + 3 * links * C**2)


def test_preciplstm_by_hand() -> None:
    by_hand("preciplstm", 31 * C**2 * 9 + 7 * C**2 + 2 * 900 * C)


def test_pyramid_by_hand() -> None:
    plain = fc.cost("convlstm", SHAPE, CONTEXT, hidden=C, layers=4).macs - STEPS * PIXELS * 2 * C
    pyramid = fc.cost("ms-convlstm", SHAPE, CONTEXT, hidden=C, layers=4).macs - STEPS * PIXELS * 2 * C
    assert pyramid == plain * (1 + 1 / 4 + 1 / 4 + 1) / 4


def test_attention_of_queries_to_keys_by_hand() -> None:
    # Patches of 1, 4 and 16 parts on a map twice as wide: Σ 2 (2N) (2N / s²) C for N pixels and s² patches.
    with_attention = fc.cost("cms-lstm", SHAPE, CONTEXT, hidden=C, layers=1).macs // STEPS
    convolutions = published_cost("cms-lstm", SHAPE, CONTEXT, hidden=C, layers=1)
    assert convolutions is not None
    n = PIXELS
    softmax = sum(2 * n * (3 * (2 * n // s**2) - 1) for s in (1, 2, 4))
    attention = sum(2 * (2 * n) * (2 * n // s**2) * C for s in (1, 2, 4))
    assert with_attention == convolutions.macs // STEPS - softmax + attention


@pytest.mark.parametrize("name", fc.list_models())
def test_counts_do_not_depend_on_the_device_that_computes(name: str) -> None:
    real = small_model(name).eval()
    without_memory = small_model(name).eval().to("meta")
    assert count_operations(real, SHAPE, CONTEXT) == count_operations(without_memory, SHAPE, CONTEXT)


def test_counts_do_not_depend_on_tiles() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from framecast.cost.count import _formulas

    maps = [torch.rand(1, 4, 20, 20) for _ in range(3)]
    counts = []
    for tile in (3, 12, 64):
        with FlopCounterMode(display=False, custom_mapping=_formulas()) as counter:
            local_attention(*maps, tile=tile)
        counts.append(counter.get_total_flops() // 2)
    assert counts == [2 * 900 * 4 * 400] * 3


def test_the_tables_of_the_paper() -> None:
    rows = list(paper_rows())
    assert len(rows) == 21
    assert all(f"{row.published().parameters / 1e6:.1f}" == row.parameters for row in rows)
    different = [(row.table, row.name) for row in rows if f"{row.published().macs / 1e9:.1f}" != row.macs]
    assert different == [(10, "ms-lstm")]
    at_212 = published_cost("ms-lstm", (8, 1, 212, 212), 4)
    assert at_212 is not None
    assert f"{at_212.macs / 1e9:.1f}" == "260.6"


# Rows of the reference cost table: parameters and 10⁹ operations at 64², 32², 128² and 180².
TABLE = {
    "predrnn-v2": (901_441, 70.771, 6.518, 283.085, 206.246),
    "preciplstm": (1_763_425, 136.756, 12.596, 547.024, 398.544),
    "modernn": (1_465_057, 232.864, 21.448, 931.457, 678.629),
    "cms-lstm": (1_123_489, 147.273, 11.484, 950.572, 1035.820),
    "ms-predrnn++": (1_403_425, 40.955, 3.772, 163.821, 119.355),
    "ms-mim": (1_843_681, 62.622, 5.768, 250.486, 182.496),
    "ms-trajgru": (497_113, 16.905, 1.557, 67.621, 49.266),
    "motionrnn": (1_899_859, 146.200, 13.466, 584.800, 426.066),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_published_convention(name: str) -> None:
    parameters, *printed = TABLE[name]
    for (frames, size), giga in zip(((20, 64), (8, 32), (20, 128), (8, 180)), printed, strict=True):
        found = published_cost(name, (frames, 1, size, size), frames // 2)
        assert found is not None
        assert found.parameters == parameters
        assert found.macs / 1e9 == pytest.approx(giga, abs=6e-4)


def test_every_cell_has_a_published_cost_and_one_shot_models_none() -> None:
    for name in CELLS:
        assert published_cost(name, SHAPE, CONTEXT) is not None
    for name in ONE_SHOT:
        assert published_cost(name, SHAPE, CONTEXT) is None


@pytest.mark.parametrize("shape", [(4, 1, 8), (0, 1, 8, 8), (4, 1, 8, 0)])
def test_impossible_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="give frames, channels, height, width"):
        fc.cost("convlstm", shape, 2)


def test_impossible_contexts() -> None:
    with pytest.raises(ValueError, match="context below the number of frames"):
        fc.cost("convlstm", (4, 1, 8, 8), 4)


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cost", "ms-lstm", "--shape", "8", "1", "32", "32", "--context", "4"]) == 0
    shown = capsys.readouterr().out
    assert "1,893,985" in shown
    assert "5.938 G" in shown
    assert cli.main(["cost", "simvp", "--shape", "4", "1", "16", "16"]) == 0
    assert "published" not in capsys.readouterr().out
    assert cli.main(["cost"]) == 1
    assert "--shape T C H W" in capsys.readouterr().err
    # Counting all rows takes half a minute; what is counted is tested elsewhere.
    monkeypatch.setattr(PaperRow, "count_operations", PaperRow.published)
    assert cli.main(["cost", "--paper"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("differs") == 1
    assert "212x212" in shown


def test_small_one_shot_options_cover_the_registry() -> None:
    assert set(SMALL_ONE_SHOT) <= set(ONE_SHOT)
