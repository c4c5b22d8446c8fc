"""Pack KNMI composites of consecutive times into the one small file that comes with the package.

Run: python tools/make_knmi_sample.py FOLDER_OF_RAD_NL25_FILES

The pixels are those of the files, bit for bit. What a file says of calibration and place is that of the first one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np

from framecast.data.formats.knmi import knmi_header
from framecast.data.sets.knmi_sample import SAMPLE

# Blocks of all times, but of few pixels: rain lies where it lay before, so they are packed to a half of single maps.
BLOCK = 48, 44


def main(folder: Path) -> None:
    """Read the files in the order of their names and write the sample."""
    files = sorted(folder.glob("RAD_NL25_RAP_5min_*.h5"))
    if not files:
        raise SystemExit(f"{folder} holds no RAD_NL25_RAP_5min_*.h5")
    times = np.array([knmi_header(file).time for file in files])
    with h5py.File(SAMPLE, "w") as sample:
        pixels = None
        for number, path in enumerate(files):
            with h5py.File(path) as file:
                image = file["image1/image_data"][()]
                if pixels is None:
                    for group in ("geographic", "image1/calibration", "overview"):
                        file.copy(group, sample, name=group)
                    pixels = np.empty((len(files), *image.shape), image.dtype)
                pixels[number] = image
        sample.create_dataset(
            "image1/image_data", data=pixels, chunks=(len(files), *BLOCK), compression="gzip", compression_opts=9,
            shuffle=True, fletcher32=True,
        )  # fmt: skip
        sample["times"] = times
    print(f"{SAMPLE.name}: {len(files)} composites, {SAMPLE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
