"""Zarr stores on disk whose chunks are looked at before they are unpacked.

Blosc, the usual compression of Zarr, unpacks a chunk that is cut short from the memory behind it: numbers that were
never in the file, without an error (zarr-developers/numcodecs, issue 228). What its header claims is compared with
what is there.
"""

from __future__ import annotations

from pathlib import Path

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from framecast.errors import DataError

BLOSC_HEADER_BYTES = 16
METADATA = (".zarray", "zarr.json", ".zattrs", ".zgroup", ".zmetadata")


class CheckedStore(LocalStore):
    """A Zarr store to be read.

    Args:
        root: its folder.

    Raises:
        DataError: when a chunk that is read is shorter than it says.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root, read_only=True)
        self._packed_by_blosc: dict[str, bool] = {}

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the bytes of a key, or None where there are none."""
        content = await super().get(key, prototype, byte_range)
        array, _, name = key.rpartition("/")
        if content is not None and name not in METADATA and self._is_packed(array):
            header = content[:BLOSC_HEADER_BYTES].to_bytes()
            # Little-endian: four bytes of versions and flags, bytes unpacked, of a block, and packed with this header.
            if len(content) < max(BLOSC_HEADER_BYTES, int.from_bytes(header[12:], "little")):
                raise DataError(f"{self.root}, chunk {key} is truncated: it has {len(content)} bytes")
        return content

    def _is_packed(self, folder: str) -> bool:
        """Return whether each chunk of the array that this folder is, or lies in, is packed by Blosc."""
        if folder not in self._packed_by_blosc:
            metadata = next((file for name in METADATA[:2] if (file := self.root / folder / name).is_file()), None)
            if metadata is not None:
                text = metadata.read_text()
                # A shard holds many chunks, and an index with a checksum.
                packed = '"blosc"' in text and '"sharding_indexed"' not in text
            else:
                packed = bool(folder) and self._is_packed(folder.rpartition("/")[0])
            self._packed_by_blosc[folder] = packed
        return self._packed_by_blosc[folder]
