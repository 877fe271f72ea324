"""From the description of an encoding in a bundle to the encoding: the kinds that there are."""

from __future__ import annotations

from eugen_nerf.core.bundle_schema import Spec, StoredTensors
from eugen_nerf.core.encodings.cube_encodings import CubeEncoding, SphericalEncoding
from eugen_nerf.core.encodings.point_encodings import (
    BoxEncoding,
    ContractedEncoding,
    Encoding,
    FrequencyEncoding,
    OffAxisEncoding,
    PyramidEncoding,
)

ENCODINGS: dict[str, type[Encoding]] = {
    e.kind: e
    for e in (
        FrequencyEncoding,
        OffAxisEncoding,
        ContractedEncoding,
        PyramidEncoding,
        BoxEncoding,
        CubeEncoding,
        SphericalEncoding,
    )
}
"""Kinds by the names that bundles use."""


def build_encoding(spec: Spec, tensors: StoredTensors, prefix: str, width: int, kinds: tuple[str, ...]) -> Encoding:
    """The encoding that `spec` describes, one of `kinds`, of points of `width` coordinates.

    Raises:
        BundleError: it describes no such encoding.
    """
    encoding = ENCODINGS[spec.text("kind", kinds)].build(spec, tensors, prefix, width)
    spec.close()
    return encoding
