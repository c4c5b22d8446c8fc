"""framecast: forecast the next frames of a video or of a gridded sequence.

    import framecast as fc
    model = fc.create_model("ms-lstm", hidden=32)
    future = model(past, horizon=10)          # (B, T, C, H, W) -> (B, 10, C, H, W)

Everything is imported when it is first used, so ``import framecast`` itself costs little. The public names stand in
``__init__.pyi``.
"""

import os
import sys
from types import ModuleType
from typing import Any

import lazy_loader

__version__ = "0.1.0"

# Threads that spin while they wait starve each other as soon as anything else runs (benchmarks/threads.py). Torch reads
# this once, when it is imported; who has imported it already has chosen.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Import a public name, and with the first of them the plugins, which use others."""
    value = _public(name)
    if name in __all__:
        from framecast.plugins import import_plugins

        import_plugins()
    return value


class _Package(ModuleType):
    """This package, in which a public function is never hidden by the submodule of its name, such as ``data``."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
