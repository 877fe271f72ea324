"""From the description of a bundle to its field: the kinds that there are."""

from __future__ import annotations

from eugen_nerf.core.bundle_schema import ADVICE, BundleError, Spec, StoredTensors
from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.bundles.bundled_grid import BundledGrid
from eugen_nerf.core.bundles.bundled_network import BundledGraph
from eugen_nerf.core.bundles.bundled_proposals import BundledProposals
from eugen_nerf.core.bundles.bundled_scene import BuildRenderer, BundledScene
from eugen_nerf.core.bundles.bundled_surface import BundledSurface
from eugen_nerf.core.bundles.distance_bundle import DistanceBundle
from eugen_nerf.core.bundles.radiance_bundle import RadianceBundle


def _build_proposals(spec: Spec, tensors: StoredTensors, prefix: str) -> BundledProposals:
    def proposal(spec: Spec, tensors: StoredTensors, prefix: str) -> RadianceBundle:
        spec.text("kind", (RadianceBundle.kind,))
        field = RadianceBundle.build(spec, tensors, prefix)
        spec.close()
        if field.direction is not None or not field.position.takes_frustums or field.deformation is not None:
            raise BundleError(f"{spec.where} is no proposal: one has a density of frustums, and no colour; {ADVICE}")
        return field.eval()

    return BundledProposals.build(spec, tensors, prefix, proposal)


RENDERERS: dict[str, BuildRenderer] = {
    BundledGrid.kind: BundledGrid.build,
    BundledProposals.kind: _build_proposals,
    BundledSurface.kind: BundledSurface.build,
}
"""What reads a renderer, by its kind."""


def build_field(spec: Spec, tensors: StoredTensors, scene: Spec | None = None) -> BundledField:
    """The field that `spec` describes, with its scene where there is one.

    Raises:
        BundleError: they describe none, or tensors are left over.
    """
    kinds: dict[str, type[RadianceBundle] | type[DistanceBundle]] = {
        RadianceBundle.kind: RadianceBundle,
        DistanceBundle.kind: DistanceBundle,
    }
    field: BundledField = kinds[spec.text("kind", kinds)].build(spec, tensors)
    spec.close()
    if scene is not None:
        fitting = {kind: build for kind, build in RENDERERS.items() if kind in field.renderers}
        field.scene = BundledScene.build(scene, tensors, fitting)
        if isinstance(field, RadianceBundle) and field.deformation is not None:
            for view in field.scene.views:
                if view.camera.time is None:
                    raise BundleError(f"the scene moves, but its view {view.name!r} has no time; {ADVICE}")
    tensors.close()
    _check_shares(field)
    return field.eval()


def _check_shares(field: BundledField) -> None:
    """Refuses networks of different shares, and what was measured at others."""
    shares = field.shares
    for name, network in field.named_modules():
        if isinstance(network, BundledGraph) and network.shares not in ((), shares):
            raise BundleError(f"{name} has the shares {list(network.shares)}, others have {list(shares)}; {ADVICE}")
    if field.scene is not None:
        for share in field.scene.share_quality:
            if share not in shares[1:]:
                raise BundleError(
                    f"the scene has a quality at {share:g} of the features, its networks have no such share; {ADVICE}"
                )
