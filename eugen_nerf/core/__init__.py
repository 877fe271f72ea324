"""EUGen layers in plain PyTorch: nothing here knows nerfstudio, and any model can use it.

What `eugen_nerf.core` exports stands in `api.py`. It is loaded by the first of these names: a command that only prints
its help, or an error, takes modules of this package that need no torch, and should not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eugen_nerf.core.api import *  # noqa: F403


def __getattr__(name: str) -> object:
    """What `api.py` exports, and its `__all__`."""
    if name.startswith("_") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.api"), name)


def __dir__() -> list[str]:
    """The names that are exported."""
    return sorted(import_module(f"{__name__}.api").__all__)
