"""Build the wheel and prove that it works without the tree: types, digits, page template and native code are inside.

Run: python tools/check_wheel.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

PROOF = """
import sys
from importlib.resources import files
sys.path.insert(0, sys.argv[1])
import framecast
assert framecast.__file__.startswith(sys.argv[1]), framecast.__file__
assert files("framecast").joinpath("py.typed").is_file()
assert files("framecast.reporting").joinpath("page.html.j2").is_file()
for name in ("conv_same.cpp", "gates.cpp", "vectors.h"):
    assert files("framecast.compute.native").joinpath(name).is_file(), name
clip = framecast.data("moving-mnist", size=16, context=2, horizon=2)["test"][0]["frames"]
assert len(framecast.data("knmi-sample")["test"]) and framecast.load("ms-lstm-moving-mnist").clips.height == 64
model = framecast.create_model("ms-lstm", hidden=4, layers=2)
print("wheel: a forecast of", tuple(model(clip[None, :2], 3).shape))
"""


def main() -> None:
    """Build, unpack elsewhere, import, forecast."""
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, str(ROOT)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        (wheel,) = Path(folder).glob("*.whl")
        inside = Path(folder) / "inside"
        subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(inside)], check=True)
        subprocess.run([sys.executable, "-I", "-c", PROOF, str(inside)], check=True, cwd=folder)


if __name__ == "__main__":
    main()
