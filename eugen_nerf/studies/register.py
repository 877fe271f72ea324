"""The studies by the names that suites give them."""

from __future__ import annotations

from typing import Any

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.studies.layer_fit import LayerFit
from eugen_nerf.studies.siren import SirenFit
from eugen_nerf.studies.study_run import Study
from eugen_nerf.studies.variance import Variance

STUDIES: dict[str, type[Study]] = {"layer_fit": LayerFit, "variance": Variance, "siren": SirenFit}


def make_study(name: str, settings: Any, where: str = "settings") -> Study:
    """The study called `name`, with settings of a file, whose errors begin with `where`.

    Raises:
        ConfigError: no such study, settings that it does not have, or values that they cannot have.
    """
    if name not in STUDIES:
        raise ConfigError(f"study {name!r} is unknown; choose one of {', '.join(STUDIES)}")
    return STUDIES[name].of_settings(settings, where)
