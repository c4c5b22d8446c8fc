"""Archives write nothing outside their folder, and files lead to no others."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from samples.formats import RADOLAN, RAW
from samples.radar import radolan_bytes

from framecast.data.archives import find_work, frames_of
from framecast.data.sets.own import open_own
from framecast.data.sources import ReadOptions
from framecast.errors import DataError
from framecast.untrusted import SMALL_BYTES

MIB = 1024**2


# ---- archives


def _members() -> list[tuple[tarfile.TarInfo, bytes]]:
    """Return members that would leave the folder, beside one that is whole."""

    def member(
        name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b""
    ) -> tuple[tarfile.TarInfo, bytes]:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, len(content)
        return info, content

    whole = radolan_bytes(RAW)
    return [
        member(RADOLAN, content=whole),
        member(f"../{RADOLAN}", content=b"x"),
        member(f"../../escaped/{RADOLAN}", content=b"x"),
        member(f"/tmp/framecast-escaped/{RADOLAN}", content=b"x"),
        member("..", content=b"x"),
        member("link-bin", tarfile.SYMTYPE, "/etc/passwd"),
        member("hard-bin", tarfile.LNKTYPE, "/etc/passwd"),
        member("folder-bin", tarfile.SYMTYPE, ".."),
        member("folder-bin/escaped-bin", content=b"x"),
        member("device-bin", tarfile.CHRTYPE),
        member("fifo-bin", tarfile.FIFOTYPE),
        member("C:\\escaped-bin", content=b"x"),
        member("..\\escaped-bin", content=b"x"),
        member("../unpacked-as-well/escaped-bin", content=b"x"),
        member("none\0/escaped-bin", content=b"x"),
    ]


@pytest.mark.parametrize("cut", [False, True])
def test_archives_write_nothing_outside_their_folder(
    cut: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked = tmp_path / "a" / "b" / "unpacked"
    unpacked.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(unpacked))
    evil = tmp_path / "evil.tar"
    with tarfile.open(evil, "w") as archive:
        for info, content in _members():
            archive.addfile(info, io.BytesIO(content))
    if cut:
        evil.write_bytes(evil.read_bytes()[: -evil.stat().st_size // 2])
    before = set(tmp_path.rglob("*"))
    items = []
    for item in (item for work in find_work(evil, ReadOptions()) for item in frames_of(work)):
        items.append(item)
        inside = [path for path in tmp_path.rglob("*") if path not in before]
        # While a piece is read, there is one folder of ours with one plain file at most.
        assert all(path.parent == unpacked or path.parent.parent == unpacked for path in inside)
        assert not any(path.is_symlink() for path in inside)
    assert [item.frame is not None for item in items].count(True) == 1
    assert len(items) == 7 or cut, "each plain file of that name is an item, links and devices are none"
    assert set(tmp_path.rglob("*")) == before
    assert not Path("/tmp/framecast-escaped").exists()


@pytest.mark.parametrize("kind", ["w:gz", "w:bz2", "w:xz"])
def test_archives_that_are_bombs_are_refused(kind: str, tmp_path: Path) -> None:
    suffix = kind.replace("w:", ".tar.")
    info = tarfile.TarInfo(RADOLAN)
    info.size = SMALL_BYTES + MIB
    with tarfile.open(tmp_path / f"a{suffix}", kind) as archive:  # type: ignore[call-overload]
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    (item,) = [item for work in find_work(tmp_path / f"a{suffix}", ReadOptions()) for item in frames_of(work)]
    if kind == "w:gz" and (tmp_path / f"a{suffix}").stat().st_size * 1000 > info.size:
        assert "unpacks to more than" in item.problem  # deflate shrinks by 1032 at most: the file itself is refused
    else:
        assert "would unpack to over" in item.problem
    assert item.frame is None


# ---- files that lead elsewhere


@pytest.mark.parametrize("way", ["external storage", "external link", "virtual"])
@pytest.mark.parametrize("suffix", [".h5", ".nc"])
def test_hdf5_takes_nothing_from_other_files(way: str, suffix: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["frames"] = np.arange(64, dtype="u1").reshape(4, 4, 4)
    path = tmp_path / f"a{suffix}"
    with h5py.File(path, "w") as file:
        if way == "external storage":
            file.create_dataset("frames", (4, 4, 4), "u1", external=[(str(secret), 0, 64)])
        elif way == "external link":
            file["frames"] = h5py.ExternalLink(str(secret), "/frames")
        else:
            layout = h5py.VirtualLayout((4, 4, 4), "u1")
            layout[:] = h5py.VirtualSource(str(secret), "frames", (4, 4, 4))
            file.create_virtual_dataset("frames", layout)
    with pytest.raises(DataError, match=rf"a{suffix}.*(from other files|to another file)"):
        open_own(path, context=1, horizon=1)


def test_pictures_are_png_whatever_their_name(tmp_path: Path) -> None:
    """Pillow would hand EPS to another program."""
    (tmp_path / "0.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match=r"0\.png cannot be read as a picture"):
        open_own(tmp_path, context=1, horizon=1)
