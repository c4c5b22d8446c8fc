"""Readers of RADOLAN: literal values of miniature files, the real files, and every kind of damage."""

from __future__ import annotations

import bz2
import gzip
import io
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples.radar import CLUTTER, NODATA, SECONDARY, radolan_bytes, seconds

from framecast.data.formats.radolan import radolan_header, read_radolan, read_radolan_forecasts
from framecast.errors import DataError, MissingExtraError

NAN = np.nan
# Row 0 is in the south: 1.00 and 0.01 mm in 5 minutes, no data; clutter of 0.05 mm, 0.02 mm, flagged secondary, dry.
RAW = [[100, 1, NODATA], [CLUTTER | 5, SECONDARY | 2, 0]]
NORTH_UP = [[NAN, 0.24, 0], [12, 0.12, NAN]]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("pack", [lambda raw: raw, gzip.compress, bz2.compress], ids=["plain", "gz", "bz2"])
def test_radolan_by_hand(tmp_path: Path, pack: Any) -> None:
    path = write(tmp_path / "raa01-ry_10000-1408102050-dwd---bin", pack(radolan_bytes(RAW)))
    frame = read_radolan(path)
    assert frame.values.dtype == np.float32
    np.testing.assert_allclose(frame.values, [NORTH_UP], rtol=1e-6)
    assert (frame.header.time, frame.header.unit) == (seconds("2014-08-10T20:50"), "mm/h")
    assert radolan_header(path).time == frame.header.time
    np.testing.assert_allclose(read_radolan(path, keep_clutter=True).values[0, 0, 0], 0.6, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ({"product": "RW", "precision": 1, "interval": "INT  60"}, 10.0),
        ({"product": "SF", "precision": 1, "interval": "INT1440"}, 10 / 24),
        ({"product": "YW", "interval": "INT   5U0", "extra": "VV 000MF 00000002VR2017.002"}, 12.0),
        ({"product": "W1", "precision": 1, "interval": "INT   1U1"}, 10 / 24),
        ({"product": "RV", "extra": "VV 060MF 00000008", "tail": "MS 25<deasb,deboo,dedrs,deeis>", "version": 5}, 12.0),
        ({"tail": "ST 12<boo 12,ros 3>"}, 12.0),
    ],
    ids=lambda value: str(value)[:30],
)
def test_radolan_products_in_mm_per_hour(tmp_path: Path, options: dict[str, Any], rate: float) -> None:
    frame = read_radolan(write(tmp_path / "file", radolan_bytes(RAW, **options)))
    assert frame.values[0, 1, 0] == pytest.approx(rate, rel=1e-6)
    ahead = 3600 if "VV 060" in options.get("extra", "") else 0
    assert frame.header.time == seconds("2014-08-10T20:50") + ahead


def damaged(kind: str) -> bytes:
    whole = radolan_bytes(RAW)
    packed = gzip.compress(whole)
    return {
        "empty": b"",
        "no end": whole.replace(b"\x03", b" "),
        "cut": whole[:-3],
        "longer": whole + b"\0",
        "declared": radolan_bytes(RAW, by=900),
        "grid": whole.replace(b"GP   2x   3", b"GP   3x   3"),
        "token": whole.replace(b"SW   2.13.1", b"XY   2.13.1"),
        "spaces of Latin-1": whole.replace(b"GP   2x   3", b"GP   2x \x1d 3"),
        "missing": whole.replace(b"INT   5", b""),
        "date": radolan_bytes(RAW, stamp="322050"),
        "other": b"GIF89a" + whole,
        "site": whole.replace(b"10000", b"10001"),
        "minutes": radolan_bytes(RAW, interval="INT   0"),
        "flags": radolan_bytes(RAW, product="QX"),
        "gzip cut": packed[:-9],
        "gzip flipped": packed[:60] + bytes([packed[60] ^ 0xFF]) + packed[61:],
        "gzip head": b"\x1f\x8b\x08" + b"\xff" * 40,
        "bz2 cut": bz2.compress(whole)[:-5],
        "tar": b"x" * 257 + b"ustar" + b"\0" * 300,
    }[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", r"is empty \(0 bytes\)"),
        ("no end", "no end of header"),
        ("cut", "cut or changed on the way"),
        ("longer", "cut or changed on the way"),
        ("declared", r"declares 900 bytes \(BY\).*size is wrong"),
        ("grid", r"3x3 \(GP\).*size is wrong"),
        ("token", "unknown token in its header at 'XY   2.13.1"),
        ("spaces of Latin-1", "unknown token in its header at 'GP   2x"),
        ("missing", "header without INT"),
        ("date", "has the date 322050"),
        ("other", "begins with 'GIF89a"),
        ("minutes", "over 0 minutes"),
        ("site", "radar site 10001"),
        ("flags", "product QX, which is neither rain in mm nor reflectivity"),
        ("gzip cut", "is damaged.*fetch it again"),
        ("gzip flipped", "is damaged|cut or changed|header"),
        ("gzip head", "is damaged.*fetch it again"),
        ("bz2 cut", "is damaged.*fetch it again"),
        ("tar", "tar archive.*read_radolan_forecasts"),
    ],
)
def test_damaged_radolan_files(tmp_path: Path, kind: str, message: str) -> None:
    path = write(tmp_path / "raa01-ry_10000-1408102050-dwd---bin", damaged(kind))
    with pytest.raises(DataError, match=message) as error:
        read_radolan(path)
    assert str(path) in str(error.value)


def test_every_flipped_header_byte_is_an_error_or_the_same_values(tmp_path: Path) -> None:
    whole = radolan_bytes(RAW)
    expected = read_radolan(write(tmp_path / "file", whole)).values
    for position in range(whole.index(b"\x03") + 1):
        flipped = whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]
        try:
            values = read_radolan(write(tmp_path / "file", flipped)).values
        except DataError:
            continue
        # Precision and interval are numbers of the format: another digit is another product, of the same shape.
        assert values.shape == expected.shape


def test_radolan_forecast_archives(tmp_path: Path) -> None:
    def archive(*members: bytes) -> Path:
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w:bz2") as file:
            for number, member in enumerate(members):
                facts = tarfile.TarInfo(f"DE1200_RV_{number:03}")
                facts.size = len(member)
                file.addfile(facts, io.BytesIO(member))
        return write(tmp_path / "DE1200_RV.tar.bz2", content.getvalue())

    steps = [radolan_bytes(RAW, product="RV", extra=f"VV {minutes:03}MF 00000008") for minutes in (10, 0, 5)]
    frames = read_radolan_forecasts(archive(*steps))
    assert [frame.header.time - frames[0].header.time for frame in frames] == [0, 300, 600]
    np.testing.assert_allclose(frames[0].values, [NORTH_UP], rtol=1e-6)
    with pytest.raises(DataError, match=r"DE1200_RV.tar.bz2:DE1200_RV_001.*cut or changed"):
        read_radolan_forecasts(archive(steps[0], steps[1][:-2]))
    with pytest.raises(DataError, match="holds no file"):
        read_radolan_forecasts(archive())
    with pytest.raises(DataError, match="cannot be read as a tar archive"):
        read_radolan_forecasts(write(tmp_path / "no.tar.bz2", bz2.compress(b"nothing" * 99)))


def test_radolan_without_wradlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wradlib.io.radolan", None)
    with pytest.raises(MissingExtraError, match=r"wradlib.*pip install 'framecast\[radar\]'"):
        read_radolan(write(tmp_path / "file", radolan_bytes(RAW)))


def test_the_real_radolan_files(shared: Path) -> None:
    path = shared / "data/dwd/raa01-ry_10000-1408102050-dwd---bin.gz"
    frame = read_radolan(path)
    # By the format's description alone: header to byte 3, twelve bits, row 0 in the south.
    content = gzip.decompress(path.read_bytes())
    raw = np.frombuffer(content, "<u2", offset=content.index(b"\x03") + 1).reshape(900, 900)[::-1]
    expected = np.where(raw & 0x2000, np.nan, (raw & 0xFFF) * 0.12)
    np.testing.assert_allclose(frame.values[0], expected, rtol=1e-6)
    assert np.nanmax(frame.values) == pytest.approx(129.48, abs=1e-3)
    frames = read_radolan_forecasts(shared / "data/dwd/DE1200_RV2210180700.tar.bz2")
    assert len(frames) == 25
    assert (frames[0].header.time, frames[-1].header.time) == (seconds("2022-10-18T07:00"), seconds("2022-10-18T09:00"))
    assert frames[0].values.shape == (1, 1200, 1100)
