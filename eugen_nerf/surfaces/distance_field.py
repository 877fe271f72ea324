"""A trained signed distance as a function of points: metres, negative inside.

sdf = SignedDistance.load("outputs/room/eugen-isdf/TIMESTAMP/config.yml")
sdf.distance(points)    # [N], metres
sdf.gradient(points)    # [N, 3], away from the nearest surface
sdf.bounds              # [2, 3], the corners of the box that was mapped
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.methods.runs.loading import load_run

CHUNK = 1 << 16
"""Points asked at once."""

Points = TypeVar("Points", Tensor, NDArray[Any])


class DistanceField(Protocol):
    """What is asked of a field."""

    def distance(self, points: Tensor) -> Tensor:
        """Signed distance [...] float32 in metres at points [..., 3] in metres, negative inside."""

    def distance_and_gradient(self, points: Tensor, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """The same with its gradient [..., 3]."""


class SignedDistance:
    """Signed distance of a trained field.

    Points are numpy arrays or tensors [..., 3] in metres, of any real type, on any device; answers are of the same
    kind, float32, on the same device. They are evaluated in chunks, without a graph.

    Args:
        field: in evaluation mode.
        bounds: corners [2, 3] in metres of the box that was mapped; outside it the field was never asked in training.
        device: where the field is.
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
            config_path: its `config.yml`. It can run code when it is loaded: give only runs whose origin you trust.
            device: None takes CUDA where there is a GPU, else the CPU.
            data: where the sequence is, if not where the config says.

        Raises:
            RunError: no run that can be loaded, or one of a method without a signed distance.
        """
        return cls.of_model(load_run(Path(config_path), device=device, test_mode="inference", data=data).model)

    @classmethod
    def of_model(cls, model: Any) -> SignedDistance:
        """The signed distance of a nerfstudio model that has one; raises `RunError` for others."""
        field = getattr(model, "field", None)
        if not (hasattr(field, "distance") and hasattr(field, "distance_and_gradient")):
            raise RunError(
                f"{type(model).__name__} has no signed distance: only runs of eugen-isdf methods can be used here"
            )
        bounds = model.scene_box.aabb.detach().cpu().numpy()
        return cls(cast(DistanceField, field), bounds, next(model.parameters()).device)

    def distance(self, points: Points) -> Points:
        """Signed distances [...] in metres, negative inside, at points [..., 3] in metres."""
        return self._answer(points, lambda chunk: self.field.distance(chunk)[..., None], 1)[..., 0]

    def gradient(self, points: Points) -> Points:
        """Gradients [..., 3] of the signed distance: they point away from the nearest surface, about 1 long."""
        return self._answer(points, lambda chunk: self.field.distance_and_gradient(chunk)[1], 3)

    def distance_and_gradient(self, points: Points) -> tuple[Points, Points]:
        """Both, for little more than the price of the gradient."""

        def ask(chunk: Tensor) -> Tensor:
            distance, gradient = self.field.distance_and_gradient(chunk)
            return torch.cat([distance[..., None], gradient], dim=-1)

        both = self._answer(points, ask, 4)
        return both[..., 0], both[..., 1:]

    def _answer(self, points: Points, ask: Any, width: int) -> Points:
        """`ask` [n, width] at all points, in chunks, as the kind of array that they are."""
        if points.shape[-1:] != (3,):
            raise ConfigError(f"points of shape {list(points.shape)} are given, but [..., 3] is needed (metres)")
        given = torch.as_tensor(points)
        flat = given.reshape(-1, 3).to(self.device, torch.float32)
        with torch.no_grad():
            parts = [ask(chunk).detach() for chunk in flat.split(CHUNK)] if len(flat) else [flat.new_zeros(0, width)]
        answer = torch.cat(parts).reshape(*given.shape[:-1], width)
        if isinstance(points, Tensor):
            return answer.to(points.device)
        return answer.cpu().numpy()
