"""Frames of one's own: every format gives the same clips, for training and for predicting."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from samples.own import KINDS, SHORT, every_kind, lengths, pixels

import framecast as fc
from framecast.data.past import all_clips, open_past
from framecast.data.sources import ReadOptions


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return every_kind(tmp_path_factory.mktemp("own"), pixels())


@pytest.mark.parametrize("name", KINDS)
def test_every_format_gives_the_same_clips(kinds: dict[str, Path], name: str) -> None:
    assert set(kinds) == set(KINDS)
    data = fc.data(kinds[name], **SHORT)
    assert lengths(data) == [25, 1, 5]
    sample = data["test"][1]
    expected = pixels()[33:37, None].astype(np.float32) / 255
    assert np.array_equal(sample["frames"].numpy(), expected)
    assert "valid" not in sample, "whole numbers without a nodata value need no mask"
    assert (data.spec.unit, data.spec.scaling.limits) == ("1", (0, 1))
    assert data.spec.interval == (0.04 if name == "video.avi" else None)
    again = pickle.loads(pickle.dumps(data))  # noqa: S301  # our own
    assert again.fingerprint() == data.fingerprint()


@pytest.mark.parametrize("name", KINDS)
def test_workers_read_the_same(kinds: dict[str, Path], name: str) -> None:
    clips = fc.data(kinds[name], **SHORT)["train"]
    alone = torch.stack([clips[i]["frames"] for i in range(6)])  # opened here, before the workers are forked
    subset = torch.utils.data.Subset(clips, range(6))
    for workers in (2,):
        loader = torch.utils.data.DataLoader(subset, batch_size=3, num_workers=workers)
        assert torch.equal(torch.cat([batch["frames"] for batch in loader]), alone)


@pytest.mark.parametrize("name", KINDS)
def test_predict_reads_what_data_reads(kinds: dict[str, Path], name: str) -> None:
    frames = all_clips(open_past(kinds[name], ReadOptions(channels=1)), name, 1)
    assert frames.shape == (1, 40, 1, 6, 8)
    scale = 255 if frames.dtype == np.uint8 else 1
    np.testing.assert_allclose(frames[0, :, 0] / scale, pixels() / 255, atol=1e-6)


def test_by_path_by_name_and_again_from_the_saved_options(
    kinds: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(kinds["array.npy"].parent)
    data = fc.data("array.npy", **SHORT)
    assert data.name == "own"
    assert data.options == {"path": str(kinds["array.npy"].resolve()), **SHORT}
    monkeypatch.chdir("/")
    assert fc.data(data.name, **data.options).fingerprint() == data.fingerprint()
    with pytest.raises(ValueError, match=r"'movign-mnist'\. Did you mean 'moving-mnist'.*no file or folder"):
        fc.data("movign-mnist")
    with pytest.raises(ValueError, match="own without a path"):
        fc.data("own")
    with pytest.raises(ValueError, match=r"'contxt'\. Did you mean 'context'"):
        fc.data(kinds["array.npy"], contxt=3)


def test_training_on_a_path(kinds: dict[str, Path], tmp_path: Path) -> None:
    run = fc.train("convlstm", kinds["array.zarr"], out=tmp_path / "run", model_options={"hidden": 2, "layers": 1},
                   data_options=SHORT, steps=2, batch=2, progress=False)  # fmt: skip
    assert fc.evaluate(run.path, progress=False)["clips"] == 5
    assert fc.predict(run.path, kinds["video.avi"], horizon=3).shape == (1, 3, 1, 6, 8)
