"""Encodings as one table of plane waves, which the fused kernel evaluates, and the plain-PyTorch twin of it.

A feature is the sine of a phase that is affine in the point, or such a phase itself. Phases are counted in turns: whole
ones are then subtracted exactly in float32, whatever the frequency, and the sine is one short polynomial.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from eugen_nerf.core.encodings.point_encodings import Encoding, FrequencyEncoding, OffAxisEncoding


@dataclass(frozen=True)
class Sinusoids:
    """Feature j of a point x: `t = turns_j . x + shift_j`, or its sine `sin(2 pi t)`."""

    turns: Tensor
    """float32 `[d, n]`, turns for one unit of a coordinate."""
    shift: Tensor
    """float32 `[n]`, turns."""
    sine: Tensor
    """bool `[n]`: whether the feature is the sine."""

    def __call__(self, points: Tensor) -> Tensor:
        """Features `[..., n]`, float32, of points `[..., d]` of any floating point dtype."""
        turns = points[..., :1].float() * self.turns[0]
        for c in range(1, len(self.turns)):
            turns = turns + points[..., c : c + 1].float() * self.turns[c]
        # whole turns are subtracted before the shift is added: a sum with many turns would lose its last digits
        part = turns - torch.floor(turns + 0.5) + self.shift
        return torch.where(self.sine, torch.sin(2 * math.pi * (part - torch.floor(part + 0.5))), turns + self.shift)

    def to(self, device: torch.device) -> Sinusoids:
        """The same table on a device."""
        return Sinusoids(self.turns.to(device), self.shift.to(device), self.sine.to(device))


def as_sinusoids(encoding: Encoding) -> Sinusoids | None:
    """The table of an encoding; None for kinds that are no plane waves of a point, such as grids and Gaussians.

    Affine steps before the sine (a centre, a scale, the directions) are multiplied out, in float64.
    """
    if isinstance(encoding, FrequencyEncoding):
        # rounded where the encoding rounds them: the network was trained with these frequencies
        exponents = torch.linspace(encoding.lowest, encoding.highest, encoding.count, dtype=torch.float32)
        waves = torch.kron(torch.eye(encoding.width, dtype=torch.float64), (2**exponents).double())
        zeros = waves.new_zeros(waves.shape[1])
        linear, offset = torch.eye(encoding.width, dtype=torch.float64), waves.new_zeros(encoding.width)
        return _table([waves, waves, linear], [zeros, zeros + 0.25, offset], [True, True, False])
    if isinstance(encoding, OffAxisEncoding):
        linear = encoding.factor * torch.eye(3, dtype=torch.float64)
        offset = -encoding.factor * encoding.centre.detach().cpu().double()
        phases = encoding.phases.detach().cpu().double() / (2 * math.pi)
        waves, shift = linear @ phases, offset @ phases
        return _table([linear, waves, waves], [offset, shift, shift + 0.25], [False, True, True])
    return None


def _table(turns: list[Tensor], shifts: list[Tensor], sines: list[bool]) -> Sinusoids:
    reduced = [s - s.floor() if wave else s for s, wave in zip(shifts, sines, strict=True)]
    flags = [torch.full((len(s),), wave) for s, wave in zip(shifts, sines, strict=True)]
    return Sinusoids(torch.cat(turns, dim=1).float(), torch.cat(reduced).float(), torch.cat(flags))
