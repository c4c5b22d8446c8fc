"""Put trained weights into the package, in half precision.

Run: python tools/ship_weights.py WEIGHTS_FILE NAME

Beside them belong a card (card.md) and the configuration (config.yaml) that names model and data. That scores do not
change in the digits that the card prints is to be seen by evaluating both.
"""

from __future__ import annotations

import sys
from pathlib import Path

from framecast.weights.saving import load_weights, save_weights

SHIPPED = Path(__file__).parents[1] / "src/framecast/weights/shipped"


def main(source: str, name: str) -> None:
    """Read the weights, round them to half precision, write them."""
    model, header = load_weights(source)
    out = SHIPPED / name / "weights.safetensors"
    save_weights(model.half(), out, clips=header["clips"], **header["facts"])
    print(f"{out.parent.name}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
