"""Tables of a study say what its records and logs say, and nothing of a paper as if it were ours."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples.studies import BY_HAND, STUDY, rows, write_record, write_study
from scipy import stats

import framecast as fc
from framecast.cost.count import count_memory
from framecast.studies.compare import Difference, adjust, paired_test, spread, student_quantile, student_tail
from framecast.studies.plan import read_plan
from framecast.studies.run import LOG_COLUMNS


def test_tables_by_hand(tmp_path: Path) -> None:
    plan = read_plan(write_study(tmp_path))
    for (label, seed), mse in BY_HAND.items():
        write_record(plan, label, seed, mse)
    fc.study(tmp_path, tables=True)
    page = (tmp_path / "tables.md").read_text()
    assert "| model | seeds | clips trained | MSE | paper: MSE |" in page
    assert "| convlstm | 2 | 24 | 31 ± 1.4 | 90.36 |" in page
    assert "| ms-lstm | 2 | 24 | 28 ± 0 | 52.63 |" in page
    assert "| persistence |  |  | 99 |  |" in page
    assert "| convlstm | 1,234 | 0.005 G | 2.0 | 3.5 | 250 ± 0 | 50 ± 0 |" in page
    # Differences are -2 on every clip of seed 0 and -4 on every clip of seed 1: -3 ± 12.706 · √2 / √2. 52.63 is 41.8 %
    # below 90.36.
    assert "| ms-lstm | convlstm | MSE | -3 | -15.71 to +9.706 | -9.7 % | – | cannot tell | 2 | 5 | -41.8 % |" in page
    assert "| ms-lstm | 27 ± 0 | 29 ± 0 |" in page
    assert "4 of 4 trials are done." in page
    assert str(tmp_path) not in page


def test_published_numbers_never_mix_with_ours(tmp_path: Path) -> None:
    printed = {"mse": {"convlstm": 90.36, "ms-lstm": 52.63}, "lpips": {"ms-lstm": 0.11}, "memory_gb": {"ms-lstm": 5.2}}
    plan = read_plan(write_study(tmp_path, published={"source": "a paper, Table 3", "values": printed}))
    for (label, seed), mse in BY_HAND.items():
        write_record(plan, label, seed, mse)
    fc.study(tmp_path, tables=True)
    table = rows(tmp_path / "tables.csv")
    paper = [row for row in table if row["source"] != "ours"]
    assert {(row["source"], row["model"], row["score"], row["mean"]) for row in paper} == {
        ("paper: a paper, Table 3", "convlstm", "mse", "90.36"),
        ("paper: a paper, Table 3", "ms-lstm", "mse", "52.63"),
        ("paper: a paper, Table 3", "ms-lstm", "lpips", "0.11"),
        ("paper: a paper, Table 3", "ms-lstm", "memory_gb", "5.2"),
    }
    assert not {"90.36", "52.63"} & {row["mean"] for row in table if row["source"] == "ours"}
    page = (tmp_path / "tables.md").read_text()
    # A score that only the paper has is shown where it has it; its costs stand beside ours, in the table of costs.
    assert "| model | seeds | clips trained | MSE | paper: MSE | paper: lpips |" in page
    assert "| convlstm | 2 | 24 | 31 ± 1.4 | 90.36 |  |" in page
    assert "| ms-lstm | 2 | 24 | 28 ± 0 | 52.63 | 0.11 |" in page
    assert "| forecast, ms a clip | paper: memory |" in page
    assert "| convlstm | 1,234 | 0.005 G | 2.0 | 3.5 | 250 ± 0 | 50 ± 0 |  |" in page
    assert "| ms-lstm | 1,234 | 0.005 G | 2.0 | 3.5 | 250 ± 0 | 50 ± 0 | 5.2 GB |" in page
    assert page.count("Table 3, not ours") == 2
    assert page.count("52.63") == 1


def test_costs_are_counted_for_the_training_the_study_describes(tmp_path: Path) -> None:
    plan = read_plan(write_study(tmp_path, training={**STUDY["training"], "loss": "mse", "sampling": "none"}))
    old = {"parameters": 1, "macs": 2, "shape": [4, 1, 16, 16], "context": 2}
    for label, seed in BY_HAND:
        write_record(plan, label, seed, BY_HAND[label, seed], cost=old)
    fc.study(tmp_path, tables=True)
    cost = json.loads(plan.result_file(plan.trial("ms-lstm", 0)).read_text())["cost"]
    assert cost | {"saved_bytes": 0, "peak_bytes": 0} == {**old, "batch": 4, "saved_bytes": 0, "peak_bytes": 0}
    # Without sampling no truth is mixed in, so less is kept than by the model's own recipe.
    own = count_memory("ms-lstm", (4, 1, 16, 16), 2, hidden=4, layers=2)
    assert 0 < cost["saved_bytes"] < own.saved(4)
    assert cost["saved_bytes"] < cost["peak_bytes"] < own.peak(4)
    before = {path: path.read_bytes() for path in (tmp_path / "results").iterdir()}
    tables = (tmp_path / "tables.md").read_bytes()
    fc.study(tmp_path, tables=True)
    assert {path: path.read_bytes() for path in (tmp_path / "results").iterdir()} == before
    assert (tmp_path / "tables.md").read_bytes() == tables


def write_log(folder: Path, *sittings: tuple[str, str, float, float]) -> None:
    with (folder / "log.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, LOG_COLUMNS)
        table.writeheader()
        for trial, outcome, training, evaluation in sittings:
            table.writerow(
                {"trial": trial, "outcome": outcome, "training_seconds": training, "evaluation_seconds": evaluation}
            )


def test_machine_hours_are_the_sum_of_the_logs(tmp_path: Path) -> None:
    first = read_plan(write_study(tmp_path / "first"))
    write_record(first, "convlstm", 0, BY_HAND["convlstm", 0])
    write_log(tmp_path / "first", ("convlstm-seed0", "done", 3600, 360), ("ms-lstm-seed0", "done", 999, 999))
    models = {"plain": {"model": "convlstm"}, "wide": {"model": "ms-lstm"}}
    changes: dict[str, Any] = {"models": models, "reference": "plain", "published": None, "also": ["../first"]}
    second = read_plan(write_study(tmp_path / "second", **changes))
    write_record(second, "plain", 1, BY_HAND["convlstm", 1])
    write_record(second, "wide", 0, BY_HAND["ms-lstm", 0])
    write_log(
        tmp_path / "second",
        ("plain-seed1", "interrupted", 1800, 0),
        ("plain-seed1", "done", 1800, 360),
        ("wide-seed1", "failed", 36, 0),
        ("left-out-seed0", "done", 72, 0),
    )
    fc.study(second.file, tables=True)
    page = (tmp_path / "second/tables.md").read_text()
    assert "| plain | 3 | 2.000 | 0.200 | 2.200 | 0.500 |" in page
    # The sitting in which wide's seed 0 was trained was killed: its record knows of an hour.
    assert "| wide | 1 | 1.010 | 0.000 | 1.010 | 0.010 |" in page
    assert "| trials the study no longer has | 1 | 0.020 | 0.000 | 0.020 | 0.000 |" in page
    assert "| all | 5 | 3.030 | 0.200 | 3.230 | 0.510 |" in page
    assert "Of wide-seed0 the log lacks a sitting" in page
    facts = {row["model"]: row["machine_hours"] for row in rows(tmp_path / "second/tables.csv")}
    assert (facts["plain"], facts["persistence"]) == ("2.2000", "")


def test_no_rank_where_the_interval_crosses_zero(tmp_path: Path) -> None:
    plan = read_plan(write_study(tmp_path))
    for (label, seed), mse in BY_HAND.items():
        write_record(plan, label, seed, [60.0] * 5 if (label, seed) == ("ms-lstm", 1) else mse)
    fc.study(tmp_path, tables=True)
    (found,) = rows(tmp_path / "differences.csv")
    assert float(found["low"]) < 0 < float(found["high"])
    assert found["differs"] == "cannot tell"
    assert "| cannot tell |" in (tmp_path / "tables.md").read_text()


def test_intervals_by_hand() -> None:
    assert paired_test(np.full((1, 7), -2.0))[:2] == pytest.approx((-2, -2))
    # Means 1 and 3: 2 ± 12.706205 · √2 / √2, far beyond the replicates, which end at 1 and 3.
    assert paired_test(np.array([[1.0] * 9, [3.0] * 9]))[:2] == pytest.approx((2 - 12.706205, 2 + 12.706205))
    # Trainings that agree: the clips decide, as many seeds as there may be.
    agreeing = np.tile(np.random.default_rng(1).normal(5, 2, 400), (3, 1))
    by_clips = paired_test(agreeing[:1])[:2]
    assert paired_test(agreeing)[:2] == pytest.approx(by_clips, abs=0.03)
    clips = np.random.default_rng(1).normal(5, 2, (1, 400))
    low, high, _ = paired_test(clips)
    half = 1.96 * clips.std(ddof=1) / 20
    assert (low, high) == pytest.approx((clips.mean() - half, clips.mean() + half), abs=0.04)
    with pytest.raises(ValueError, match="0 clips"):
        paired_test(np.empty((2, 0)))
    assert spread([1, None, 3]) == (2, pytest.approx(2**0.5))


def test_an_interval_seldom_leaves_out_what_is_true() -> None:
    rng = np.random.default_rng(0)
    for seeds in (2, 3, 5):
        wrong = 0
        for _ in range(100):
            low, high, _ = paired_test(rng.normal(0, 1, (seeds, 1)) + rng.normal(0, 1, (seeds, 60)))
            wrong += not low <= 0 <= high
        assert wrong <= 12, f"{seeds} seeds: {wrong} of 100 intervals of 95 % leave zero out"


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 30])
def test_students_t_is_scipys(freedom: int) -> None:
    for t in (0.0, 0.3, 1.0, 2.5, 12.0):
        assert student_tail(t, freedom) == pytest.approx(stats.t.sf(t, freedom), rel=1e-9, abs=1e-12)
    assert student_quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


def test_the_p_value_of_trainings_is_scipys() -> None:
    means = np.array([1.0, 2.5, 0.7, 1.9])
    found = paired_test(np.repeat(means[:, None], 50, 1))
    assert found.p == pytest.approx(stats.ttest_1samp(means, 0).pvalue, rel=1e-9)


def by_p(name: str, p: float, seeds: int = 3) -> Difference:
    return Difference(name, "b", "mse", -1.0, -1.1, -0.9, 5.0, seeds, clips=9, p=p)


def test_verdicts_allow_for_all_differences_and_need_three_seeds() -> None:
    # Holm by hand: 3 · 0.01, 2 · 0.02, then 0.04 as it stands but never below the one before.
    first, second, third = adjust([by_p("c", 0.04), by_p("a", 0.01), by_p("b", 0.02)])
    assert [one.adjusted for one in (first, second, third)] == pytest.approx([0.04, 0.03, 0.04])
    assert {one.differs for one in (first, second, third)} == {"lower"}
    assert [one.differs for one in adjust([by_p("a", 0.02), by_p("b", 0.03), by_p("c", 0.5)])] == ["cannot tell"] * 3
    assert adjust([by_p("a", 1e-6, seeds=2)])[0].differs == "cannot tell"
    assert adjust([by_p("a", 0.03), by_p("b", 0.0, seeds=2)])[0].differs == "lower"


def test_noise_seldom_gets_a_verdict() -> None:
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(100):
        gaps = [rng.normal(0, 1, (3, 1)) + rng.normal(0, 1, (3, 40)) for _ in range(6)]
        wrong += any(one.differs != "cannot tell" for one in adjust([by_p(str(n), paired_test(gap).p)
                                                                      for n, gap in enumerate(gaps)]))  # fmt: skip
    assert wrong <= 12, f"{wrong} of 100 studies of six differences that are none give a verdict"


def test_runs_of_other_sizes_of_training_are_tested_on_the_same_data() -> None:
    small, large = (fc.data("moving-mnist", size=16, context=2, horizon=1, clips=clips) for clips in (40, 80))
    again = fc.data("moving-mnist", size=16, context=2, horizon=1, clips=40)
    again.splits["train"] = large["train"]
    assert small.fingerprint("test") == again.fingerprint("test")
    assert small.fingerprint() != again.fingerprint()


def test_what_is_worse_than_a_blank_frame_is_not_learnt(tmp_path: Path) -> None:
    plan = read_plan(write_study(tmp_path))
    for (label, seed), mse in BY_HAND.items():
        write_record(plan, label, seed, mse, baselines={"blank frame": {"mean": {"mse": 20}, "per_lead": {}}})
    fc.study(tmp_path, tables=True)
    assert "**Not learnt yet:** by MSE every model" in (tmp_path / "tables.md").read_text()
