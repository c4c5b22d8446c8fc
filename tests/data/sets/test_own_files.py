"""Folders of one's own files, and files that are damaged or missing."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Literal

import h5py
import numcodecs
import numpy as np
import pytest
import torch
import zarr
from PIL import Image
from samples.kth import moving_bar, video_file
from samples.own import KINDS, SHORT, every_kind, lengths, pixels, png_folder, rain_dataset, save, timed, zarr_of

from framecast.data.clips import ClipData
from framecast.data.formats.pictures import PictureFolder
from framecast.data.past import all_clips, open_past
from framecast.data.sets.own import open_own
from framecast.data.sources import ReadOptions
from framecast.errors import DataError, DatasetNotFoundError


def test_a_folder_of_clips(tmp_path: Path) -> None:
    for number in range(12):
        video_file(tmp_path / f"clip{number}.avi", moving_bar(10, seed=10 * number))
    data = open_own(tmp_path, **SHORT)
    assert lengths(data) == [8 * 7, 2 * 7, 2 * 7], "twelve videos are dealt whole"
    assert data["train"].source.parts[1].where.endswith("clip1.avi")
    assert data["train"].source.parts[10].where.endswith("clip10.avi")
    assert "12 sequences: no clip spans two of them" in data.notes
    for clips in data.splits.values():
        assert (clips.windows // 10 == clips.windows[:, :1] // 10).all()


def test_mixed_folders_and_lengths(tmp_path: Path) -> None:
    png_folder(tmp_path / "a", moving_bar(12))
    save(tmp_path / "b.npy", moving_bar(9))
    video_file(tmp_path / "c.mkv", moving_bar(14))
    (tmp_path / "notes.txt").write_text("not frames")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "empty").mkdir()
    data = open_own(tmp_path, shares=(0.6, 0, 0.4), **SHORT)
    assert lengths(data) == [4 + 2 + 5, 0, 2 + 1 + 3]


def test_folders_named_after_splits(tmp_path: Path) -> None:
    for name, count in (("train", 20), ("val", 6), ("test", 8)):
        (tmp_path / name).mkdir()
        save(tmp_path / name / "a.npy", moving_bar(count))
    assert lengths(open_own(tmp_path, **SHORT)) == [17, 3, 5]
    (tmp_path / "val" / "a.npy").unlink()
    (tmp_path / "val").rmdir()
    data = open_own(tmp_path, **SHORT)
    assert lengths(data) == [15, 0, 5]
    assert any("no folder validation" in note for note in data.notes)
    save(tmp_path / "test" / "a.npy", moving_bar(8, 7, 7))
    with pytest.raises(DataError, match="frames of a data set have one size"):
        open_own(tmp_path, **SHORT)


def test_files_whose_time_goes_on_are_one_sequence(tmp_path: Path) -> None:
    dataset = rain_dataset(40)
    for name, part in (("a", slice(20, 40)), ("b", slice(0, 20))):
        dataset.isel(time=part).to_netcdf(tmp_path / f"{name}.nc", engine="h5netcdf")
    data = open_own(tmp_path, **SHORT)
    assert lengths(data) == [25, 1, 5], "as of one file of 40"
    whole = open_own(zarr_of(tmp_path / "whole.zarr", dataset), **SHORT)
    assert torch.equal(data["train"][18]["frames"], whole["train"][18]["frames"]), "across the border of two files"


def test_natural_order_of_pictures(tmp_path: Path) -> None:
    frames = moving_bar(12)
    data = open_own(png_folder(tmp_path / "p", frames), shares=(1, 0, 0), context=10, horizon=2)
    assert np.array_equal(data["train"][0]["frames"][:, 0].numpy(), frames.astype(np.float32) / 255)
    assert all_clips(open_past(tmp_path / "p", ReadOptions(channels=1)), "p", 1)[0, 10, 0] == pytest.approx(
        frames[10] / 255
    )


def test_pictures_of_16_bits_and_colour(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (5, 6, 8), np.uint16)
    data = open_own(png_folder(tmp_path / "deep", deep), shares=(1, 0, 0), **SHORT)
    np.testing.assert_allclose(data["train"][0]["frames"][:, 0].numpy(), deep[:4] / 65535, atol=1e-6)
    colour = np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3), np.uint8)
    folder = png_folder(tmp_path / "colour", colour)
    data = open_own(folder, shares=(1, 0, 0), **SHORT)
    assert np.array_equal(data["train"][0]["frames"].numpy(), np.moveaxis(colour[:4], -1, 1).astype(np.float32) / 255)
    assert open_own(folder, channels=1, shares=(1, 0, 0), **SHORT).spec.channels == 1
    video_file(tmp_path / "colour.avi", colour)
    assert open_own(tmp_path / "colour.avi", shares=(1, 0, 0), **SHORT).spec.channels == 3
    with pytest.raises(DataError, match="1 or 3 channels"):
        open_own(folder, channels=2, **SHORT)


def test_resizing_pictures_and_videos(tmp_path: Path) -> None:
    Image.new("L", (16, 16), 100).save(tmp_path / "0.png")
    Image.new("L", (9, 17), 100).save(tmp_path / "1.png")
    with pytest.raises(DataError, match=r"pictures of 16x16 .*0\.png\), 17x9 .*1\.png\).*size="):
        open_own(tmp_path, **SHORT)
    for number in range(2, 5):
        Image.new("L", (16, 16), 100).save(tmp_path / f"{number}.png")
    data = open_own(tmp_path, size=(4, 6), shares=(1, 0, 0), **SHORT)
    assert data["train"][0]["frames"].shape == (4, 1, 4, 6)
    np.testing.assert_allclose(data["train"][0]["frames"], 100 / 255, atol=1e-6)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="nothing at"):
        open_own(tmp_path / "nowhere", **SHORT)
    (tmp_path / "readme.txt").write_text("text")
    with pytest.raises(DatasetNotFoundError, match="holds nothing that is read as frames"):
        open_own(tmp_path, **SHORT)
    with pytest.raises(DataError, match=r"ends in \.txt"):
        open_own(tmp_path / "readme.txt", **SHORT)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return every_kind(tmp_path_factory.mktemp("own"), pixels())


def _read_all(data: ClipData) -> None:
    for clips in data.splits.values():
        for index in range(len(clips)):
            clips[index]


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("pictures", "array.zarr")])
def test_damaged_files(kinds: dict[str, Path], tmp_path: Path, name: str) -> None:
    content = kinds[name].read_bytes()
    path = tmp_path / name
    path.write_bytes(b"")
    with pytest.raises(DataError, match="empty file of 0 bytes"):
        open_own(path, **SHORT)
    path.write_bytes(b"\x00\x01 nonsense" * 20)
    with pytest.raises(DataError, match=name):
        open_own(path, **SHORT)
    if name != "video.avi":  # a video that is cut simply ends earlier
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match=name):
            _read_all(open_own(path, **SHORT))


def test_netcdf_3_is_read_too(tmp_path: Path) -> None:
    dataset = rain_dataset()
    dataset.to_netcdf(tmp_path / "new.nc", engine="h5netcdf")
    dataset.to_netcdf(tmp_path / "old.nc", engine="scipy")
    old, new = (open_own(tmp_path / name, **SHORT)["train"] for name in ("old.nc", "new.nc"))
    assert (tmp_path / "old.nc").read_bytes()[:3] == b"CDF"
    assert torch.equal(old[0]["frames"], new[0]["frames"])
    assert torch.equal(old[0]["times"], new[0]["times"])
    (tmp_path / "old.nc").write_bytes(b"CDF\x01" + bytes(100))
    with pytest.raises(DataError, match=r"old\.nc holds no array of frames"):
        open_own(tmp_path / "old.nc", **SHORT)


def test_flipped_bytes_of_chunks_are_found(tmp_path: Path) -> None:
    """HDF5 by fletcher32, Zarr by crc32c: an error that names the file, never other frames."""
    frames = pixels()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("frames", data=frames, chunks=(1, 6, 8), fletcher32=True)
    content = bytearray((tmp_path / "a.h5").read_bytes())
    place = content.find(frames[5].tobytes())
    content[place + 7] ^= 4
    (tmp_path / "a.h5").write_bytes(content)
    codecs = [zarr.codecs.Crc32cCodec()]
    array = zarr.create_array(tmp_path / "a.zarr", shape=frames.shape, chunks=(1, 6, 8), dtype="u1", compressors=codecs)
    array[:] = frames
    chunk = tmp_path / "a.zarr/c/5/0/0"
    content = bytearray(chunk.read_bytes())
    content[7] ^= 4
    chunk.write_bytes(content)
    for name in ("a.h5", "a.zarr"):
        clips = open_own(tmp_path / name, **SHORT)["train"]
        assert clips[0]["frames"].shape == (4, 1, 6, 8)
        with pytest.raises(DataError, match=rf"{name}.*frames from 2 on cannot be read: .*damaged"):
            clips[2]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("named", [False, True])
def test_a_chunk_that_is_cut_short_is_no_data(version: Literal[2, 3], named: bool, tmp_path: Path) -> None:
    """Blosc would unpack the memory behind it."""
    frames, path = np.random.default_rng(0).integers(0, 256, (8, 32, 32), np.uint8), tmp_path / "a.zarr"
    codec: Any = zarr.codecs.BloscCodec() if version == 3 else numcodecs.Blosc()
    array = zarr.create_array(
        path / "frames" if named else path, shape=frames.shape, chunks=(1, 32, 32), dtype="u1", zarr_format=version,
        compressors=codec, dimension_names=("time", "y", "x") if named and version == 3 else None,
        attributes={"_ARRAY_DIMENSIONS": ["time", "y", "x"]} if named and version == 2 else None,
    )  # fmt: skip
    array[:] = frames
    if named:
        zarr.open_group(path, zarr_format=version)
    whole = open_own(path, **SHORT)["train"][2]["frames"]
    assert torch.equal(whole[:, 0] * 255, torch.from_numpy(frames[2:6]).float())
    chunk = next(file for file in path.rglob("*") if str(file).endswith(("/5.0.0", "/c/5/0/0")))
    content = chunk.read_bytes()
    for length in (len(content) * 2 // 3, 20, 16, 3, 0):
        chunk.write_bytes(content[:length])
        with pytest.raises(DataError, match=rf"a\.zarr, chunk .* is truncated: it has {length} bytes"):
            open_own(path, **SHORT)["train"][2]


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    np.save(tmp_path / "a.npy", np.array([Trap()], object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", frames=np.array([Trap()], object), allow_pickle=True)
    (tmp_path / "c.npy").write_bytes(pickle.dumps(Trap()))
    for name in ("a.npy", "a.npz", "c.npy"):
        with pytest.raises(DataError, match="holds objects"):
            open_own(tmp_path / name, **SHORT)
    assert not (tmp_path / "sprung").exists()


def test_mixed_grid_sizes_and_units(tmp_path: Path) -> None:
    save(tmp_path / "a.npy", pixels(10))
    save(tmp_path / "b.npy", pixels(10, 7, 8))
    with pytest.raises(DataError, match=r"a\.npy has frames of 1 x 6x8 and .*b\.npy of 1 x 7x8"):
        open_own(tmp_path, **SHORT)
    (tmp_path / "b.npy").unlink()
    timed(tmp_path / "b.h5", np.arange(20) * 300)
    with pytest.raises(DataError, match=r"has time stamps and .* has none"):
        open_own(tmp_path, **SHORT)


def test_a_video_shorter_than_a_clip(tmp_path: Path) -> None:
    video_file(tmp_path / "a.avi", moving_bar(3))
    with pytest.raises(DataError, match="no clip of 4 frames fits the training part, whose longest run has 2 frames"):
        open_own(tmp_path / "a.avi", **SHORT)


def test_wrong_attributes(tmp_path: Path) -> None:
    for name, value, message in (
        ("scale_factor", 0.0, "must be finite, not zero"),
        ("scale_factor", "much", "must be a number"),
        ("valid_range", [1.0, 2.0, 3.0], "must be two numbers"),
    ):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["frames"] = pixels()
            file["frames"].attrs[name] = value
        with pytest.raises(DataError, match=message):
            open_own(tmp_path / "a.h5", **SHORT)


def test_a_damaged_png_is_an_error_or_the_same_picture(tmp_path: Path) -> None:
    # Smooth, so that a flipped bit still unpacks to as many pixels: only the checksum tells.
    frame = (np.add.outer(np.arange(64), np.arange(64)) * 2).astype(np.uint8)
    path = tmp_path / "frame_1.png"
    Image.fromarray(frame).save(path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            read = PictureFolder([path], ReadOptions()).read(np.array([0]))
        except DataError as error:
            refused += str(path) in str(error)
        else:
            assert np.array_equal(read[0, 0], np.float32(frame / 255))
    assert refused > 50
