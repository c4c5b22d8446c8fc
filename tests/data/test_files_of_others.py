"""Files as other people have them: layouts, pictures, strays, damage, archives that grow, names that YAML bends."""

from __future__ import annotations

import os
import re
import resource
import struct
import zlib
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
import rasterio
import torch
import xarray
import yaml
import zarr
from PIL import Image
from samples.own import video
from samples.radar import knmi_file, knmi_folder, odim_file, seconds

import framecast as fc
from framecast import cli
from framecast.data.catalogue import open_parts
from framecast.data.formats.arrays import guess_axes
from framecast.data.formats.odim import read_odim
from framecast.data.joined import JoinedSource
from framecast.data.sources import ReadOptions
from framecast.errors import DataError, DiskFullError, OptionError, UnknownNameError
from framecast.untrusted import reading

SHORT: dict[str, Any] = {"context": 3, "horizon": 3}
START = seconds("2010-08-26T00:00")


def joined(path: Path, **options: Any) -> JoinedSource:
    return JoinedSource(open_parts(path, ReadOptions(**options)))


def noise(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).random(shape).astype("f4")


# ---- layouts


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((12, 48, 48, 25), "NHWT"), ((12, 20, 48, 32), "NTHW"), ((60, 40, 40, 3), "THWC"), ((60, 3, 40, 40), "TCHW"),
        ((12, 32, 32, 20, 1), "NHWTC"), ((12, 1, 20, 32, 32), "NCTHW"), ((12, 3, 20, 32, 32), "NCTHW"),
        ((12, 20, 1, 32, 32), "NTCHW"), ((12, 20, 32, 32, 3), "NTHWC"), ((60, 40, 40), "THW"), ((40, 40), "HW"),
    ],
)  # fmt: skip
def test_layouts_of_well_known_sets(shape: tuple[int, ...], axes: str) -> None:
    assert guess_axes(shape, None, "the file") == axes


@pytest.mark.parametrize("option", [{"size": (8, 8)}, {"channels": 1}])
def test_options_that_cannot_be_met_are_refused(tmp_path: Path, option: Any) -> None:
    np.save(tmp_path / "a.npy", noise(20, 16, 16, 3))
    xarray.Dataset({"v": (("time", "y", "x", "band"), noise(20, 16, 16, 3))}).to_netcdf(tmp_path / "a.nc")
    for name in ("a.npy", "a.nc"):
        with pytest.raises(DataError, match=r"is read without size=|has 3 channels"):
            joined(tmp_path / name, **option)


# One option that a reader has no use for, beside those of the issue's kinds; sample files of every reader.
USELESS = [
    ("a.npy", {"variable": "v"}), ("a.npy", {"select": {"number": 0}}), ("a.npy", {"y": "rows"}),
    ("a.npy", {"time": "t"}), ("a.npz", {"time": "t"}), ("a.npz", {"channel": "band"}), ("a.h5", {"size": (8, 8)}),
    ("a.h5", {"time": "t"}), ("a.nc", {"axes": "THW"}), ("a.nc", {"reader_options": {"qty": "RATE"}}),
    ("pictures", {"unit": "mm/h"}), ("pictures", {"variable": "v"}), ("a.gif", {"axes": "THW"}),
    ("a.tif", {"axes": "HW"}), ("a.tif", {"channels": 3}), ("a.tif", {"time": "t"}), ("radar", {"nodata": 0.0}),
    ("radar", {"unit": "dBZ"}), ("radar", {"channels": 3}), ("a.mp4", {"select": {"number": 0}}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "option"), USELESS)
def test_an_option_of_no_use_is_refused_by_every_reader(tmp_path: Path, name: str, option: Any) -> None:
    path, frames = tmp_path / name, noise(20, 16, 16)
    pixels = [Image.fromarray((255 * frame).astype("u1")) for frame in frames]
    if name == "a.npy":
        np.save(path, frames)
    elif name == "a.npz":
        np.savez(path, v=frames)
    elif name == "a.h5":
        with h5py.File(path, "w") as file:
            file["v"] = frames
    elif name == "a.nc":
        xarray.Dataset({"v": (("time", "y", "x"), frames)}).to_netcdf(path)
    elif name == "pictures":
        path.mkdir()
        for number, image in enumerate(pixels):
            image.save(path / f"{number}.png")
    elif name == "a.gif":
        pixels[0].save(path, save_all=True, append_images=pixels[1:])
    elif name == "a.tif":
        place = rasterio.Affine(2, 0, 0, 0, -2, 0)
        with rasterio.open(path, "w", "GTiff", 16, 16, 1, None, place, "float32") as raster:
            raster.write(frames[:1])
    elif name == "radar":
        knmi_folder(path, np.zeros((3, 8, 8)), START)
    else:
        video(path, np.arange(20) / 25)
    joined(path)
    with pytest.raises(DataError, match=f"{next(iter(option))}="):
        joined(path, **option)


def test_an_importer_of_pysteps_is_given_no_argument_that_it_would_swallow(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"x")
    with pytest.raises(UnknownNameError, match="qty"):
        joined(tmp_path / "a.bin", reader="pysteps:opera_hdf5", reader_options={"qyt": "RATE"})


def test_clips_in_two_arrays_are_refused_with_the_way_to_join_them(tmp_path: Path) -> None:
    clips = noise(12, 8, 1, 16, 16)
    np.savez(tmp_path / "a.npz", X_train=clips[:, :4], Y_train=clips[:, 4:])
    with pytest.raises(DataError, match=r"np\.concatenate\(\[X_train, Y_train\], 1\)"):
        joined(tmp_path / "a.npz")


def test_times_of_arrays_without_named_axes_are_read_from_zarr(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("v", data=noise(5, 8, 8))
    group.create_array("time", data=np.arange(5) * 300).attrs["units"] = "seconds since 2024-01-01"
    start = np.datetime64("2024-01-01", "s").astype(int)
    np.testing.assert_array_equal(joined(tmp_path / "a.zarr").times, start + 300 * np.arange(5))


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_an_unknown_axis_has_to_be_selected(tmp_path: Path, suffix: str) -> None:
    members = noise(20, 3, 6, 8)
    data = xarray.Dataset({"v": (("time", "number", "y", "x"), members)}, {"number": [0, 10, 20]})
    path = tmp_path / f"a.{suffix}"
    data.to_netcdf(path, engine="h5netcdf") if suffix == "nc" else data.to_zarr(path, consolidated=False)
    with pytest.raises(DataError, match=r"'number' of length 3 is neither time.*select=\{'number'"):
        joined(path)
    np.testing.assert_array_equal(joined(path, select={"number": 10}).read(np.arange(20))[:, 0], members[:, 1])
    with pytest.raises(DataError, match=r"number is one of \[0, 10, 20\] and not 5"):
        joined(path, select={"number": 5})


@pytest.mark.parametrize("suffix", ["nc", "h5", "zarr2", "zarr3"])
@pytest.mark.parametrize("variable", [None, "rain", "measurements/rain"])
def test_variables_in_groups(tmp_path: Path, suffix: str, variable: str | None) -> None:
    frames = noise(20, 6, 8)
    data = xarray.Dataset(
        {"rain": (("time", "y", "x"), frames, {"units": "mm h-1"})},
        {"time": ("time", 5 * np.arange(20), {"units": "minutes since 2024-01-01"})},
    )
    path = tmp_path / f"a.{suffix.rstrip('23')}"
    if suffix.startswith("zarr"):
        data.to_zarr(path, group="measurements", zarr_format=int(suffix[-1]), consolidated=False)
    else:
        data.to_netcdf(path, group="measurements", engine="h5netcdf")
    source = joined(path, variable=variable)
    assert source.unit == "mm/h"
    assert source.times is not None
    np.testing.assert_array_equal(source.read(np.arange(20))[:, 0], frames)


def test_groups_see_the_coordinates_above_them(tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        for name, size in (("time", 20), ("lat", 6), ("lon", 8)):
            file.createDimension(name, size)
        time = file.createVariable("time", "i4", ("time",))
        time.units, time[:] = "minutes since 2024-01-01", 5 * np.arange(20)
        file.createGroup("data").createVariable("rain", "f4", ("time", "lat", "lon"))[:] = noise(20, 6, 8)
    source = joined(tmp_path / "a.nc")
    assert source.times is not None
    assert source.shape == (1, 6, 8)


def test_axes_of_hdf5_by_its_dimension_scales(tmp_path: Path) -> None:
    """As IMERG stores it: time, longitude, latitude."""
    rain = noise(1, 40, 30)
    for number in range(8):
        with h5py.File(tmp_path / f"3B-HHR.{number}.HDF5", "w") as file:
            scales = {
                "time": np.array([START + 1800 * number]),
                "lon": np.linspace(5, 9, 40),
                "lat": np.linspace(45, 48, 30),
            }
            for name, values in scales.items():
                file.create_dataset(f"Grid/{name}", data=values).make_scale(name)
            file["Grid/time"].attrs.update(units=np.bytes_("seconds since 1970-01-01 00:00:00 UTC"), calendar="julian")
            data = file.create_dataset("Grid/precipitation", data=rain)
            for axis, name in enumerate(scales):
                data.dims[axis].attach_scale(file[f"Grid/{name}"])
    source = joined(tmp_path)
    assert source.shape == (1, 30, 40)
    assert np.array_equal(source.times, START + 1800 * np.arange(8))
    np.testing.assert_array_equal(source.read(np.array([0]))[0, 0], rain[0].T)


@pytest.mark.parametrize("kind", ["numpy", "masked", "torch", "bfloat16", "xarray"])
def test_arrays_in_memory(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMECAST_CACHE", str(tmp_path / "cache"))
    frames = noise(60, 8, 8)
    given = {
        "numpy": frames, "masked": np.ma.masked_array(frames, frames > 2), "torch": torch.from_numpy(frames),
        "bfloat16": torch.from_numpy(frames).bfloat16(),
        "xarray": xarray.DataArray(frames, dims=("time", "y", "x"), coords={"time": np.arange(60)}),
    }  # fmt: skip
    data = fc.data(given[kind], **SHORT)
    atol = 1e-2 if kind == "bfloat16" else 0
    np.testing.assert_allclose(data["train"][0]["frames"][:, 0].numpy(), frames[:6], atol=atol)
    run = fc.train("convlstm", given[kind], out=tmp_path / "run", steps=1, batch=2, progress=False,
                   model_options={"hidden": 2, "layers": 1}, data_options=SHORT)  # fmt: skip
    assert fc.evaluate(run.path, limit=1, progress=False)["clips"] == 1
    assert fc.predict(run.path, given[kind][:3]).shape == (1, 3, 1, 8, 8)


@pytest.mark.parametrize(
    ("given", "message"), [(["a.nc", "b.nc"], "the folder that holds them"), (3.5, "float"), ({}, "dict")]
)
def test_what_is_neither_path_nor_array(given: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        fc.data(given)


# ---- pictures and videos


def png(path: Path, pixels: Any, kind: int, depth: int) -> None:
    """Write a raw PNG: kind 0 grey, 2 colour, 4 grey with transparency, 6 colour with transparency."""
    content = pixels.astype(">u2" if depth == 16 else "u1")
    rows = b"".join(b"\0" + row.tobytes() for row in content)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", *content.shape[1::-1], depth, kind, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", [0, 2, 4, 6])
@pytest.mark.parametrize("depth", [8, 16])
def test_pictures_keep_their_bits_and_clear_is_black(tmp_path: Path, kind: int, depth: int) -> None:
    top = 2**depth - 1
    grey = np.random.default_rng(kind).integers(0, top, (6, 8))
    channels, clear = 3 if kind in (2, 6) else 1, kind in (4, 6)
    pixels = np.repeat(grey[..., None], channels + clear, 2)
    if clear:
        pixels[..., -1] = np.where(np.arange(8) < 4, top, 0)
    for number in range(3):
        png(tmp_path / f"{number}.PNG", pixels if channels + clear > 1 else grey, kind, depth)
    source = joined(tmp_path)
    expected = np.where(np.arange(8) < 4, grey, 0) if clear else grey
    assert source.shape == (channels, 6, 8)
    np.testing.assert_allclose(source.read(np.array([0]))[0], np.repeat(expected[None] / top, channels, 0), atol=1e-6)
    assert any("laid over black" in note for note in source.notes) == clear


def test_a_gif_s_clear_pixels_hide_no_colour(tmp_path: Path) -> None:
    frames = []
    for number in range(8):
        frame = Image.fromarray((np.arange(8) < number).astype("u1")[None].repeat(8, 0), "P")
        frame.putpalette([255, 0, 255, 0, 0, 255] + [0] * 762)
        frames.append(frame)
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], transparency=0, disposal=2)
    values = joined(tmp_path / "a.gif").read(np.array([3]))[0]
    assert not values[:, :, 3:].any()
    assert (values[2, :, :3] == 1).all()


@pytest.mark.parametrize(("degrees", "corner"), [(90, (0, -1)), (180, (-1, -1)), (270, (-1, 0))])
def test_videos_are_turned_as_they_are_shown(tmp_path: Path, degrees: int, corner: tuple[int, int]) -> None:
    import av

    path, frame = tmp_path / "a.mp4", np.zeros((48, 64, 3), np.uint8)
    frame[:16, :16] = 255
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 48, 64, "yuv420p", 4_000_000
        for _ in range(8):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    one, content = 0x10000, bytearray(path.read_bytes())
    matrix = {90: (0, one, 0, -one, 0, 0), 180: (-one, 0, 0, 0, -one, 0), 270: (0, -one, 0, one, 0, 0)}[degrees]
    place = content.index(b"tkhd") + 44 + (12 if content[content.index(b"tkhd") + 4] == 1 else 0)
    content[place : place + 36] = struct.pack(">9i", *matrix, 0, 0, 0x40000000)
    path.write_bytes(content)
    values = joined(path, channels=1).read(np.array([0]))[0, 0]
    assert values.shape == ((64, 48) if degrees != 180 else (48, 64))
    assert [edge for edge in ((0, 0), (0, -1), (-1, -1), (-1, 0)) if values[edge] > 0.8] == [corner]


def test_jpeg_is_read_and_turned_as_the_camera_says(tmp_path: Path) -> None:
    pixels = np.zeros((8, 16), "u1")
    pixels[:, 8:] = 255
    turned = Image.Exif()
    turned[0x0112] = 6  # the top of the scene is at the right
    Image.fromarray(pixels).save(tmp_path / "0.jpg", quality=95, exif=turned)
    source = joined(tmp_path)
    assert source.shape == (1, 16, 8)
    np.testing.assert_allclose(source.read(np.array([0]))[0, 0], pixels.T / 255, atol=0.02)


# ---- strays and damage


@pytest.mark.parametrize("kind", ["png", "npy", "h5"])
def test_hidden_and_half_downloaded_files_are_skipped(tmp_path: Path, kind: str) -> None:
    for number in range(12):
        if kind == "png":
            Image.fromarray(np.full((8, 8), number, "u1")).save(tmp_path / f"{number}.png")
        elif kind == "npy":
            np.save(tmp_path / f"{number}.npy", noise(10, 8, 8))
        else:
            odim_file(
                tmp_path / f"{number:02}.h5", np.ones((8, 8), np.uint16), quantity="RATE", end=f"20160601 00{number:02}"
            )
        (tmp_path / f"._{number}.{kind}").write_bytes(b"\0\5\x16\7Mac OS X")
        (tmp_path / f"{number}.{kind}.part").write_bytes(b"half")
    assert joined(tmp_path).count == (120 if kind == "npy" else 12)


def test_what_a_mixed_folder_leaves_out_is_told(tmp_path: Path) -> None:
    for number in range(12):
        np.save(tmp_path / f"{number}.npy", noise(10, 8, 8))
    Image.fromarray(np.zeros((8, 8), "u1")).save(tmp_path / "overview.png")
    source = joined(tmp_path)
    assert len(source.sequences) == 12
    assert any("overview.png is left out" in note for note in source.notes)


@pytest.mark.parametrize("kind", ["npy", "mp4", "nc", "h5"])
def test_all_damaged_files_are_named_and_predict_goes_on_without_them(tmp_path: Path, kind: str) -> None:
    for number in range(8):
        path = tmp_path / f"{number}.{kind}"
        if kind == "npy":
            np.save(path, noise(10, 8, 8))
        elif kind == "mp4":
            video(path, np.arange(10) / 25)
        elif kind == "h5":
            odim_file(path, np.ones((8, 8), np.uint16), quantity="RATE", end=f"20160601 00{number:02}")
        else:
            xarray.Dataset({"v": (("time", "y", "x"), noise(10, 8, 8))}).to_netcdf(path, engine="h5netcdf")
    for number in (3, 5):
        content = (tmp_path / f"{number}.{kind}").read_bytes()
        (tmp_path / f"{number}.{kind}").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"3\.{kind}.*nor can 5\.{kind}.*2 of 8 files"):
        joined(tmp_path)
    rest = joined(tmp_path, skip_damaged=True)
    assert rest.count == (6 if kind == "h5" else 60)
    assert any(re.search(rf"3\.{kind} is left out.*so are 5\.{kind}", note) for note in rest.notes)


def test_predict_names_a_cut_file_and_its_times(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = knmi_folder(tmp_path / "knmi", np.random.default_rng(0).integers(0, 300, (40, 8, 8)), START)
    options = {**SHORT, "interval": 5, "blocks": (0.5, 0.25, 0.25)}
    fc.train("convlstm", "knmi", out=tmp_path / "run", steps=1, batch=2, progress=False,
             model_options={"hidden": 2, "layers": 1}, data_options={"root": str(folder), **options})  # fmt: skip
    first = sorted(folder.iterdir())[0]
    first.write_bytes(first.read_bytes()[:500])
    assert cli.main(["predict", str(tmp_path / "run"), str(folder), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "base time 2010-08-26 03:15 UTC, valid times 2010-08-26 03:20 UTC to 2010-08-26 03:30 UTC" in printed.out
    assert f"{first.name} is left out" in caplog.text + printed.err


def test_failures_of_the_system_are_no_damage(tmp_path: Path) -> None:
    for number, words in (
        (24, "too many files open"),
        (13, "you may not read it"),
        (11, "locked"),
    ):
        with pytest.raises(DataError, match=words), reading(tmp_path / "a.npy"):
            raise OSError(number, os.strerror(number))
    with pytest.raises(DiskFullError, match=r"a\.npy \(there\): free some"), reading(tmp_path / "a.npy"):
        raise OSError(28, os.strerror(28), "there")
    with pytest.raises(DataError, match="locked"), reading(tmp_path / "a.h5"):
        raise OSError("unable to lock file, errno = 11, error message = 'Resource temporarily unavailable'")


@pytest.mark.parametrize("kind", ["npy", "nc"])
def test_more_files_than_a_process_may_open(tmp_path: Path, kind: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    here = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(150):
        if kind == "npy":
            np.save(tmp_path / f"{number:03}.npy", noise(6, 4, 4))
        else:
            with h5py.File(tmp_path / f"{number:03}.nc", "w") as file:
                file["v"] = noise(1, 4, 4)
    resource.setrlimit(resource.RLIMIT_NOFILE, (here + 100, hard))
    try:
        source = joined(tmp_path)
        assert np.isfinite(source.read(np.arange(0, source.count, max(1, source.count // 150)))).all()
        source.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- products


def test_polar_volumes_are_no_maps(tmp_path: Path) -> None:
    for kind in ("PVOL", "SCAN", "XSEC", "VP"):
        path = odim_file(tmp_path / f"{kind}.h5", np.ones((36, 50), np.uint16))
        with h5py.File(path, "a") as file:
            file.require_group("what").attrs["object"] = np.bytes_(kind)
        with pytest.raises(DataError, match=f"is an ODIM {kind}, not a map"):
            read_odim(path)
        with pytest.raises(DataError, match=f"is an ODIM {kind}|is one radar frame"):
            joined(path)


def test_products_do_not_mix_in_folders_conversions_and_pasts(tmp_path: Path) -> None:
    folder = tmp_path / "both"
    folder.mkdir()
    for number in range(6):
        odim_file(folder / f"rate{number}.h5", np.ones((8, 8), np.uint16), quantity="RATE", end=f"20160601 00{number}0")
        end = f"20160601 00{number}5"
        odim_file(folder / f"sum{number}.h5", np.ones((8, 8), np.uint16), start=f"20160531 23{number}5", end=end)
    with pytest.raises(DataError, match="2 products, which do not mix"):
        joined(folder)
    assert joined(folder, product="RATE").count == 6
    with pytest.raises(DataError, match="2 products, which do not mix"):
        fc.convert(folder, tmp_path / "a.zarr", workers=1, progress=False)


# ---- archives that grow


def test_a_second_delivery_is_appended(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 300, (40, 6, 8))
    first, second = (knmi_folder(tmp_path / name, pixels[part], START + 300 * part.start)
                     for name, part in (("a", slice(0, 25)), ("b", slice(20, 40))))  # fmt: skip
    target = tmp_path / "rain.zarr"
    quiet = {"workers": 1, "progress": False}
    with pytest.raises(DataError, match="is no archive to append to"):
        fc.convert(second, target, append=True, **quiet)
    fc.convert(first, target, **quiet)
    report = fc.convert(second, target, append=True, **quiet)
    assert (report.frames, len(report.doubled), report.unreadable) == (40, 5, [])
    assert fc.convert(second, target, append=True, **quiet).frames == 40, "done before, so nothing is done"
    source = joined(target)
    assert np.array_equal(source.times, START + 300 * np.arange(40))
    np.testing.assert_allclose(source.read(np.arange(40))[:, 0], pixels * 0.12, atol=1e-5)
    assert source.product == "KNMI 300 s"
    # What does not fit leaves the archive as it was.
    other = knmi_folder(tmp_path / "small", np.ones((4, 5, 5)), START + 90_000)
    with pytest.raises(DataError, match="does not fit"):
        fc.convert(other, target, append=True, **quiet)
    slow = tmp_path / "slow"
    slow.mkdir()
    for number in range(4):
        knmi_file(slow, pixels[0], START + 90_000 + 900 * number)
    with pytest.raises(DataError, match="steps of 300 s and what is to be appended 900 s"):
        fc.convert(slow, target, append=True, **quiet)
    assert joined(target).count == 40


def test_an_archive_killed_while_it_is_replaced_comes_back(tmp_path: Path) -> None:
    folder = knmi_folder(tmp_path / "a", np.ones((4, 6, 8)), START)
    target = tmp_path / "rain.zarr"
    fc.convert(folder, target, workers=1, progress=False)
    part = tmp_path / "rain.zarr.part"
    part.mkdir()
    target.rename(part / "replaced.zarr")
    assert fc.convert(folder, target, workers=1, progress=False).frames == 4
    assert joined(target).count == 4


def test_convert_says_by_its_code_that_files_were_left_out(tmp_path: Path) -> None:
    folder = knmi_folder(tmp_path / "a", np.ones((4, 6, 8)), START)
    first = sorted(folder.iterdir())[0]
    first.write_bytes(first.read_bytes()[:500])
    command = ["data", "convert", str(folder), str(tmp_path / "a.zarr"), "--workers", "1", "--progress", "false"]
    assert cli.main(command) == 1


# ---- words


@pytest.mark.parametrize("name", ["no", "off", "y1", "1e3", "yes", "2024"])
@pytest.mark.parametrize("way", ["command line", "recipe"])
def test_text_stays_text(tmp_path: Path, name: str, way: str, capsys: pytest.CaptureFixture[str]) -> None:
    variables = {key: (("time", "y", "x"), noise(80, 8, 8)) for key in (name, "other")}
    xarray.Dataset(variables).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    command = ["data", "check", str(tmp_path / "a.nc"), "--data_options.context", "3", "--data_options.horizon", "3"]
    if way == "command line":
        command += ["--data_options.variable", name]
    else:
        quoted = name if name in ("no", "off", "y1", "yes") else f'"{name}"'
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(
            f"data: {tmp_path / 'a.nc'}\ndata_options: {{variable: {quoted}, context: 3, horizon: 3}}\n"
            "model: convlstm\nmodel_options: {hidden: 2, layers: 1}\nsteps: 1\nprogress: false\n"
        )
        command = ["train", "--config", str(recipe), "--out", str(tmp_path / "run")]
    assert cli.main(command) == 0, capsys.readouterr().err
    if way == "recipe":
        assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["data_options"]["variable"] == name


def test_what_should_be_text_and_is_none_is_refused(tmp_path: Path) -> None:
    xarray.Dataset({"no": (("time", "y", "x"), noise(40, 8, 8))}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(OptionError, match="variable is False and must be text: write it in quotes"):
        fc.data(tmp_path / "a.nc", variable=False, **SHORT)
