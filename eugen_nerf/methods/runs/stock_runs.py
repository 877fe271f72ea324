"""Stock runs rendered as ours are: their models make place for copies whose fields are graphs of layers."""

from __future__ import annotations

from nerfstudio.models.base_model import Model

from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.runs.loading import Run
from eugen_nerf.methods.stock.graph_copies import graph_copy


def model_of_graphs(run: Run) -> GraphModel | None:
    """A run's model, where its fields are graphs; of a stock run a copy, which takes the model's place in the run.

    The stock model stays at hand as `run.stock`. The copy renders equally within rounding.

    Args:
        run: of any method.

    Returns:
        None where no copy can be made: the run is unchanged.
    """
    model = run.model
    if isinstance(model, GraphModel):
        return model
    copied = graph_copy(model)
    if copied is not None:
        run.stock = model
        _replace(run, copied)
    return copied


def restore_stock(run: Run) -> None:
    """Puts a stock run's own model back, where a copy has taken its place."""
    if run.stock is not None:
        _replace(run, run.stock)
        run.stock = None


def _replace(run: Run, model: Model) -> None:
    run.pipeline._model = model  # what nerfstudio's property `model` reads
