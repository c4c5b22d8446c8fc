"""What cells use of the native code, where there is any."""

from __future__ import annotations

from typing import NamedTuple

from framecast.compute.native.conv_same import ConvSame
from framecast.compute.native.gates import Gates
from framecast.compute.native.library import find_library


class Native(NamedTuple):
    """The native parts of a cell."""

    convolution: ConvSame
    gates: Gates


def find_native() -> Native | None:
    """Return the native parts, compiled now where they have not been, or None where there can be none."""
    library = find_library()
    return None if library is None else Native(ConvSame(library), Gates(library))
