"""Declared sizes are checked before anything is allocated."""

from __future__ import annotations

import bz2
import gzip
import json
import struct
import warnings
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray
from PIL import Image
from samples.formats import RADOLAN, RAW, digest, tiny_model
from samples.mutations import run_apart
from samples.radar import radolan_bytes
from samples.sizes import CLAIMS, MIB, MOST_GROWTH

import framecast as fc
from framecast.data.formats.hdf5 import check_small
from framecast.data.formats.radolan import read_radolan
from framecast.data.sets.moving_mnist import read_idx
from framecast.data.sets.own import open_own
from framecast.errors import DataError, DatasetNotFoundError, WeightsError
from framecast.reporting.results import read_examples
from framecast.untrusted import SMALL_BYTES, asked_by, check_frames, check_size, most_bytes, reading
from framecast.weights.importing import read_tensors
from framecast.weights.saving import save_weights


def _open(path: Path) -> str:
    data = open_own(path, context=1, horizon=1)
    return digest(*[clips[0]["frames"] for clips in data.splits.values() if len(clips)])


@pytest.mark.parametrize("name", CLAIMS)
def test_what_a_file_only_claims_is_not_allocated(name: str, tmp_path: Path) -> None:
    path = tmp_path / CLAIMS[name][0]
    CLAIMS[name][1](path)
    assert name in ("PNG", "Zarr", "Zarr of one chunk") or path.stat().st_size < 128 * 1024
    before = run_apart(lambda number: number, 1, 0, path)
    result = run_apart(lambda number: _open(path), 1, None, path)
    assert result.outcomes == {"refused": 1}, result
    assert result.peak - before.peak < MOST_GROWTH


def test_sizes_in_radolan_and_idx_headers(tmp_path: Path) -> None:
    whole = radolan_bytes(RAW)
    path = tmp_path / RADOLAN
    path.write_bytes(whole.replace(b"GP   6x   8", b"GP9999x9999"))
    with pytest.raises(DataError, match=r"declares .* bytes"):
        read_radolan(path)
    for pack, suffix in ((gzip.compress, ".gz"), (bz2.compress, ".bz2")):
        bomb = tmp_path / f"{RADOLAN}{suffix}"
        bomb.write_bytes(pack(whole + bytes(65 * MIB)))
        with pytest.raises(DataError, match="unpacks to more than"):
            read_radolan(bomb)
    (tmp_path / "digits").write_bytes(struct.pack(">IIII", 0x803, 2**31, 2**15, 2**15))
    with pytest.raises(DataError, match="declares"):
        read_idx(tmp_path / "digits")


@pytest.mark.parametrize("length", [2**63, 2**40, 10**9])
def test_sizes_in_safetensors_headers(tmp_path: Path, length: int) -> None:
    facts = json.dumps({"a": {"dtype": "F64", "shape": [length, 8], "data_offsets": [0, length * 64]}}).encode()
    path = tmp_path / "a.safetensors"
    for head in (struct.pack("<Q", len(facts)), struct.pack("<Q", min(length, 2**63))):
        path.write_bytes(head + facts + bytes(64))
        for load in (fc.load, read_tensors):
            with pytest.raises(WeightsError, match=r"a\.safetensors"):
                load(path)


def test_packed_members_in_torch_files_are_refused(tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.pt", tmp_path / "b.pt"
    torch.save({"a": torch.zeros(MIB)}, plain)
    assert set(read_tensors(plain)) == {"a"}
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert packed.stat().st_size < plain.stat().st_size / 100
    with pytest.raises(WeightsError, match=r"b\.pt.*are packed"):
        read_tensors(packed)


def test_examples_that_unpack_to_far_too_much_are_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "examples.npz", truth=np.zeros(SMALL_BYTES, np.uint8))
    with pytest.raises(DataError, match=r"examples\.npz would unpack"):
        read_examples(tmp_path)


def test_a_chunk_above_the_limit_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("date", (4,), "f4", chunks=(2**31 // 4 - 1,), maxshape=(None,))
        assert check_small(data, "a.h5") is data
        big = file.create_dataset("more", (4,), "f8", chunks=(2**32 // 8 - 1,), maxshape=(None,))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FRAMECAST_MOST_BYTES", str(2**31))
            with pytest.raises(DataError, match="declares"):
                check_small(big, "a.h5")


@pytest.mark.parametrize("options", [{"hidden": 10**6}, {"layers": 10**9}, {"hidden": 512}, {"hidden": "2"}, {"no": 1}])
def test_weights_that_ask_for_a_larger_model_are_refused(tmp_path: Path, options: dict[str, object]) -> None:
    model = tiny_model()
    assert model.spec is not None
    model.spec = type(model.spec)(model.spec.name, {**model.spec.options, **options})
    save_weights(model, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"a\.safetensors"):
        fc.load(tmp_path / "a.safetensors")


def test_the_limit_can_be_raised_and_lowered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 8, 8)))
    monkeypatch.setenv("FRAMECAST_MOST_BYTES", "1000")
    with pytest.raises(DataError, match=r"a\.npy.*raise the limit with FRAMECAST_MOST_BYTES"):
        open_own(tmp_path / "a.npy", context=1, horizon=1)
    monkeypatch.setenv("FRAMECAST_MOST_BYTES", "4000")
    assert len(open_own(tmp_path / "a.npy", context=1, horizon=1)["train"])
    for wrong in ("4GB", "0", ""):
        monkeypatch.setenv("FRAMECAST_MOST_BYTES", wrong)
        with pytest.raises(DataError, match="must be a number of bytes"):
            most_bytes()
    monkeypatch.delenv("FRAMECAST_MOST_BYTES")
    check_size("x", 4 * 1024**3)
    with pytest.raises(DataError, match="x declares"):
        check_size("x", 4 * 1024**3 + 1)
    with pytest.raises(DataError, match="x declares"):
        check_size("x", -1)
    with pytest.raises(DataError, match="the list of whose frames"):
        check_frames("x", 11 * 10**6, (1, 1, 1))


def test_the_boundary_tells_what_it_was_not_told() -> None:
    with (
        pytest.raises(WeightsError, match=r"^a cannot be read: KeyError: mend it$") as told,
        reading("a", remedy="mend it", kind=WeightsError),
    ):
        raise KeyError
    assert isinstance(told.value.__cause__, KeyError)
    with pytest.raises(DataError, match=r"^as it is$"), reading("a", kind=WeightsError):
        raise DataError("as it is")
    for passing in (NameError("a mistake"), KeyboardInterrupt()):
        with pytest.raises(type(passing)), reading("a"):
            raise passing
    for kind in (DataError, DatasetNotFoundError):
        with pytest.raises(kind, match=r"^a\.yaml asks for data that cannot be opened: too few$"), asked_by("a.yaml"):
            raise kind("too few")
    with pytest.raises(DataError, match=r"^a\.yaml is damaged$"), asked_by("a.yaml"):
        raise DataError("a.yaml is damaged")


def test_a_heap_that_never_ends_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rain.h5"
    with h5py.File(path, "w") as file:
        file.attrs["words"] = np.array(["one", "another"], h5py.string_dtype())
        file["rain"] = np.ones((12, 8, 8), np.float32)
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    assert content.count(b"GCOL") == 1
    place = heap + 16
    while number := int.from_bytes(content[place : place + 2], "little"):
        place += 16 + (int.from_bytes(content[place + 8 : place + 16], "little") + 7) // 8 * 8
    assert not number
    assert fc.data(path, context=2, horizon=2).spec.length == 4
    # Object 0 is the free space; the library steps over it by its size, for ever where that is none.
    content[place + 8 : place + 16] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"rain\.h5 .*the free space of its heap at byte \d+ has no size"):
        fc.data(path, context=2, horizon=2)


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5", "a.nc", "a.zarr", "a.tif", "a"])
def test_all_copies_of_what_is_read_count(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame is refused when the limit is one byte below what all its copies take."""
    side, frames = 40, np.random.default_rng(0).integers(0, 255, (4, 40, 40), np.uint8)
    path = tmp_path / name
    if name.endswith((".npy", ".npz")):
        (np.save if name.endswith("y") else np.savez)(path, frames)
    elif name.endswith(".h5"):
        with h5py.File(path, "w") as file:
            file["rain"] = frames
    elif name.endswith((".nc", ".zarr")):
        dataset = xarray.Dataset({"rain": (("time", "y", "x"), frames.astype("f4"))})
        dataset.to_netcdf(path, engine="h5netcdf") if name.endswith("c") else dataset.to_zarr(path, zarr_format=2)
    elif name.endswith(".tif"):
        rasterio = pytest.importorskip("rasterio")
        with warnings.catch_warnings(), rasterio.open(path, "w", "GTiff", side, side, 4, dtype="uint8") as file:
            file.write(frames)
    else:
        path.mkdir()
        for number, frame in enumerate(frames):
            Image.fromarray(np.repeat(frame[..., None], 3, -1)).save(path / f"{number}.png")
    numbers = side * side * (3 if name == "a" else 4 if name == "a.tif" else 1)
    monkeypatch.setenv("FRAMECAST_MOST_BYTES", str(16 * numbers - 1))
    with pytest.raises(DataError, match=r"to read .* numbers takes|declares"):
        open_own(path, context=1, horizon=1)["train"][0]
    with pytest.raises(DataError, match=rf"{name}.*FRAMECAST_MOST_BYTES"):
        fc.predict("persistence", path, horizon=1)


def test_many_clips_are_refused_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", np.zeros((6, 4, 8, 8), np.uint8))
    monkeypatch.setenv("FRAMECAST_MOST_BYTES", str(16 * 6 * 4 * 64 - 1))
    with pytest.raises(DataError, match=r"a\.npy, its 6 clips together: to read 6 x 4 x 1 x 8 x 8 numbers takes"):
        fc.predict("persistence", tmp_path / "a.npy", horizon=1, data_options={"axes": "NTHW"})
    monkeypatch.setenv("FRAMECAST_MOST_BYTES", str(16 * 6 * 4 * 64))
    assert fc.predict("persistence", tmp_path / "a.npy", horizon=1, data_options={"axes": "NTHW"}).shape[0] == 6
