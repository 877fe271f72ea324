"""A trained signed distance as a function of points, in metres, negative inside.

sdf = SignedDistance.load("outputs/room/eugen-isdf/TIMESTAMP/config.yml")
sdf.distance(points)    # [N], metres
sdf.gradient(points)    # [N, 3], away from the nearest surface
sdf.bounds              # [2, 3], the corners of the mapped box
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.methods.runs.loading import load_run

CHUNK_POINTS = 1 << 16
"""Points evaluated at once."""

Points = TypeVar("Points", Tensor, NDArray[Any])


class DistanceField(Protocol):
    """A field with a signed distance."""

    def distance(self, points: Tensor) -> Tensor:
        """Signed distance [...] float32 in metres at points [..., 3] in metres, negative inside."""

    def distance_and_gradient(self, points: Tensor, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """Signed distance [...] and its gradient [..., 3]."""


class SignedDistance:
    """Signed distance of a trained field.

    Points are numpy arrays or tensors [..., 3] in metres, of any real type, on any device. Outputs are of the same
    kind, float32, on the same device. Evaluation is in chunks, without gradients.

    Args:
        field: in evaluation mode.
        bounds: corners [2, 3] of the mapped box in metres; outside it the field was not trained.
        device: of the field.
    """

    def __init__(self, field: DistanceField, bounds: NDArray[Any], device: torch.device | str = "cpu") -> None:
        self.field = field
        self.bounds: NDArray[np.float32] = np.asarray(bounds, dtype=np.float32)
        self.device = torch.device(device)

    @classmethod
    def load(
        cls, config_path: Path | str, device: torch.device | str | None = None, data: Path | None = None
    ) -> SignedDistance:
        """Loads a run of `eugen-isdf`.

        Args:
            config_path: its `config.yml`.
            device: None uses CUDA if there is a GPU, else the CPU.
            data: directory of the sequence, if it differs from the config.

        Raises:
            RunError: the run cannot be loaded, or its method has no signed distance.
        """
        return cls.of_model(load_run(Path(config_path), device=device, test_mode="inference", data=data).model)

    @classmethod
    def of_model(cls, model: Any) -> SignedDistance:
        """The signed distance of a nerfstudio model; raises `RunError` if it has none."""
        field = getattr(model, "field", None)
        if not (hasattr(field, "distance") and hasattr(field, "distance_and_gradient")):
            raise RunError(
                f"{type(model).__name__} has no signed distance: only runs of eugen-isdf methods can be used here"
            )
        bounds = model.scene_box.aabb.detach().cpu().numpy()
        return cls(cast(DistanceField, field), bounds, next(model.parameters()).device)

    def distance(self, points: Points) -> Points:
        """Signed distances [...] in metres, negative inside, at points [..., 3] in metres."""
        return self._evaluate(points, lambda chunk: self.field.distance(chunk)[..., None], 1)[..., 0]

    def gradient(self, points: Points) -> Points:
        """Gradients [..., 3], about 1 long; they point away from the nearest surface."""
        return self._evaluate(points, lambda chunk: self.field.distance_and_gradient(chunk)[1], 3)

    def distance_and_gradient(self, points: Points) -> tuple[Points, Points]:
        """Signed distances [...] and gradients [..., 3], at about the cost of the gradient alone."""

        def evaluate(chunk: Tensor) -> Tensor:
            distance, gradient = self.field.distance_and_gradient(chunk)
            return torch.cat([distance[..., None], gradient], dim=-1)

        both = self._evaluate(points, evaluate, 4)
        return both[..., 0], both[..., 1:]

    def _evaluate(self, points: Points, evaluate: Any, width: int) -> Points:
        """Applies `evaluate` (points [n, 3] to [n, width]) in chunks; returns the same kind of array as `points`."""
        if points.shape[-1:] != (3,):
            raise ConfigError(f"points of shape {list(points.shape)} are given, but [..., 3] is needed (metres)")
        given = torch.as_tensor(points)
        flat = given.reshape(-1, 3).to(self.device, torch.float32)
        with torch.no_grad():
            chunks: Sequence[Tensor] = flat.split(CHUNK_POINTS) if len(flat) else ()
            parts = [flat.new_zeros(0, width), *(evaluate(chunk).detach() for chunk in chunks)]
        output = torch.cat(parts).reshape(*given.shape[:-1], width)
        if isinstance(points, Tensor):
            return output.to(points.device)
        return output.cpu().numpy()
