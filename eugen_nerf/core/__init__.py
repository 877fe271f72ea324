"""EUGen layers in plain PyTorch: nothing here knows nerfstudio, and any model can use it.

The public names and their groups are listed in `api.py`. It is imported with the first of them: a command that prints
its help, or an error, imports modules of this package that need no torch, and should not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING
from warnings import warn

from eugen_nerf.core.moved_names import MOVED

if TYPE_CHECKING:
    from eugen_nerf.core.api import *  # noqa: F403


def __getattr__(name: str) -> object:
    """A public name, `__all__`, or with a warning a name that has moved to its module."""
    if name in MOVED:
        module = f"{__name__}.{MOVED[name]}"
        warn(f"{name} is no longer part of {__name__}: import it from {module}", DeprecationWarning, stacklevel=2)
        return getattr(import_module(module), name)
    if not name.startswith("_") or name == "__all__":
        api = import_module(f"{__name__}.api")
        if name == "__all__" or name in api.__all__:
            return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return sorted(import_module(f"{__name__}.api").__all__)
