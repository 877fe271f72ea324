"""From the description of a bundle to its field: the kinds that there are."""

from __future__ import annotations

from eugen_nerf.core.bundle_schema import ADVICE, BundleError, Spec, StoredTensors
from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.bundles.bundled_scene import BundledScene
from eugen_nerf.core.bundles.distance_bundle import DistanceBundle
from eugen_nerf.core.bundles.radiance_bundle import RadianceBundle


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
        field.scene = BundledScene.build(scene, tensors, field.renderers)
        if isinstance(field, RadianceBundle) and field.deformation is not None:
            for view in field.scene.views:
                if view.camera.time is None:
                    raise BundleError(f"the scene moves, but its view {view.name!r} has no time; {ADVICE}")
    tensors.close()
    return field.eval()
