"""What a bundle's own images score on a run's test views: another renderer than the run's, the same photographs."""

from __future__ import annotations

from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.evaluation.images.ground_truth import ground_truth
from eugen_nerf.evaluation.images.view_rendering import eval_dataset
from eugen_nerf.methods.runs.image_metrics import psnr, quantise
from eugen_nerf.methods.runs.loading import Run


def bundle_scores(run: Run, field: BundledField, count: int) -> list[float]:
    """PSNR to the photographs, dB, of a bundle's first test views.

    Args:
        run: that the bundle was made of, with its test views.
        field: the bundle; it renders where it is.
        count: views at most.

    Returns:
        A number for each view; none where the bundle's views are not those of the photographs: other lenses, or a
        signed distance, which has no colours.
    """
    if field.kind != "radiance" or not field.cameras:
        return []
    dataset = eval_dataset(run)
    lenses = dataset.cameras.distortion_params
    if len(dataset) != len(field.cameras) or (lenses is not None and bool(lenses.any())):
        return []
    views = range(min(count, len(field.cameras)))
    return [psnr(quantise(field.render(field.cameras[i]).colour), ground_truth(run, [i])[0]) for i in views]
