"""The mode in which a network or a field is evaluated: with a graph for the backward pass, or as fast as possible.

Whoever renders or trains decides it once and hands it down. A network or a signed distance that is called without one
takes that of PyTorch's gradient switch; `tests/test_structure.py` lists all files that look at the switch.
"""

from __future__ import annotations

from enum import Enum

import torch


class EvaluationMode(Enum):
    """How networks and fields compute their outputs.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import EvaluationMode, NeRFShape, build_nerf
        >>> network, x = build_nerf(NeRFShape(27, trunk_width=16, head_width=0)), torch.rand(5, 27)
        >>> [network(x, mode=mode)[0].requires_grad for mode in EvaluationMode]
        [True, False]
    """

    DIFFERENTIABLE = "differentiable"
    """Outputs carry gradients, of all weights: training, and the gradients that a conversion takes."""
    INFERENCE = "inference"
    """Outputs carry none: the collapsed network runs, or the inference plan in its place, in parts where set so."""

    @staticmethod
    def current() -> EvaluationMode:
        """The mode that PyTorch's gradient switch stands for.

        For the outermost calls alone: nerfstudio trains and evaluates by the same methods, and the switch is all that
        tells one from the other (`Model.training` does not: a conversion takes gradients of models in evaluation mode).
        """
        return EvaluationMode.DIFFERENTIABLE if torch.is_grad_enabled() else EvaluationMode.INFERENCE
