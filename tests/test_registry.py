"""Names: helpful errors, aliases, and a cell of one's own."""

from __future__ import annotations

import inspect

import pytest
import torch

import framecast as fc
from framecast.cells.convlstm import column
from framecast.cost.paper import PAPER_SHAPES
from framecast.data.sets.taxibj import open_taxibj
from framecast.registry import CELLS, ONE_SHOT, dataset_builder, frame_reader, model_entry, resolve


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("sms-lstm", "ms-convlstm"),
        ("tms-lstm", "mk-lstm"),
        ("ms-lstm", "ms-mk-lstm"),
        ("MS_LSTM", "ms-mk-lstm"),
    ],
)
def test_aliases(alias: str, name: str) -> None:
    assert model_entry(alias).name == name
    assert fc.create_model(alias, hidden=4).spec.name == name


def test_unknown_names_and_options() -> None:
    with pytest.raises(ValueError, match=r"no model 'ms-lstn'\. Did you mean 'ms-lstm'.*convlstm"):
        fc.create_model("ms-lstn")
    with pytest.raises(ValueError, match=r"'hiden'\. Did you mean 'hidden'"):
        fc.create_model("convlstm", hiden=4)
    with pytest.raises(ValueError, match="'kernel'"):
        fc.create_model("ms-lstm", kernel=5)
    with pytest.raises(ValueError, match="'skip'"):
        fc.create_model("convlstm", skip="none")
    with pytest.raises(ValueError, match="Did you mean 'moving-mnist'"):
        dataset_builder("moving-minst")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, "hidden is 0"),
        ({"layers": 0}, "layers is 0"),
        ({"in_channels": -1}, "in_channels is -1"),
        ({"out_channels": 0}, "out_channels is 0"),
        ({"kernel": 4}, "kernel is 4.*use 3 or 5"),
        ({"kernel": 0}, "kernel is 0.*use 1"),
    ],
)
def test_bad_option_values(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fc.create_model("convlstm", **options)


def test_a_registered_cell_gives_two_models() -> None:
    fc.register_cell("mine", fc.CellEntry(column, "Mine", "me", "none"))
    try:
        assert {"mine", "ms-mine"} <= set(fc.list_models())
        for name in ("mine", "ms-mine"):
            assert fc.create_model(name, hidden=4, kernel=1)(torch.rand(1, 2, 1, 8, 8), 2).shape[1] == 2
        with pytest.raises(ValueError, match="taken"):
            fc.register_cell("mine", CELLS["mine"])
    finally:
        del CELLS["mine"]


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("RAD_NL25_RAP_5min_201008260000.h5", "read_knmi"),
        ("raa01-rw_10000-latest-dwd---bin.hdf5", "read_odim"),
        ("raa01-ry_10000-1408102050-dwd---bin.gz", "read_radolan"),
        ("DE1200_RV2210180700_005", "read_radolan"),
        ("YW2017.002_20160101_0005", "read_radolan"),
        ("DE1200_RV2210180700.tar.bz2", ""),
        ("YW2017.002_20160101.tar.gz", ""),
        ("YW2017.002_201601.tar", ""),
        ("frames.npy", ""),
    ],
)
def test_readers_by_name_and_archives_have_none(name: str, reader: str) -> None:
    found = frame_reader(name)
    assert (found.__name__ if found else "") == reader


@pytest.mark.parametrize("name", [*CELLS, *ONE_SHOT])
def test_the_doi_of_an_entry_stands_in_the_docstring_of_its_module(name: str) -> None:
    entry = model_entry(name)
    module = inspect.getmodule(resolve(entry.cell.column if entry.cell else entry.build))
    assert entry.doi in (module.__doc__ or "")


def test_taxibj_has_the_same_channels_everywhere() -> None:
    assert PAPER_SHAPES["taxibj"][0][1] == 1
    assert inspect.signature(open_taxibj).parameters["channels"].default == "in"
