"""Sizes of images by a clock that only their costs move: quick while something moves, fine at rest."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from eugen_viewer.frame_budget import SMALLEST, FrameBudget

ASPECT = 1.6
FULL = (320, 512)
FASTEST = 1 / 30
"""Seconds between two images of a tab at least."""
COSTS = {
    "a GPU": (0.004, 1e-7),
    "fast": (0.01, 3e-6),
    "planned": (0.02, 1e-5),
    "exact": (0.02, 6e-5),
    "slow": (0.005, 8e-5),
}
"""Seconds of an image whatever its size, and a ray."""


def drag(budget: FrameBudget, seconds: float, image_seconds: Callable[[int], float]) -> list[tuple[int, float]]:
    """Rays and seconds of each image that is finished within some seconds of dragging."""
    clock, images = 0.0, list[tuple[int, float]]()
    while True:
        height, width = budget.moving_size(["a"], ASPECT)
        spent = image_seconds(height * width)
        clock += max(spent, FASTEST)
        if clock > seconds:
            return images
        budget.record_moving(["a"], height * width, spent)
        images.append((height * width, spent))


@pytest.mark.parametrize("model", COSTS)
def test_a_drag_of_two_seconds_gives_twenty_images_as_large_as_can_be(model: str) -> None:
    fixed, per_ray = COSTS[model]
    images = drag(FrameBudget(), 2.0, lambda rays: fixed + rays * per_ray)
    assert len(images) >= 20
    affordable = min((FrameBudget().moving_seconds - fixed) / per_ray, FULL[0] * FULL[1])
    for rays, spent in images[-5:]:
        assert spent <= 0.1
        assert rays >= 0.8 * affordable


def test_a_model_that_gets_slower_while_it_moves_is_followed() -> None:
    budget = FrameBudget()
    drag(budget, 2.0, lambda rays: 0.01 + rays * 1e-5)
    images = drag(budget, 1.0, lambda rays: 0.02 + rays * 6e-5)  # another program takes the cores
    assert images[0][1] > 0.1
    assert all(spent <= 0.1 for _, spent in images[3:])
    images = drag(budget, 1.0, lambda rays: 0.01 + rays * 1e-5)
    assert images[-1][0] > 3 * images[0][0]


def test_what_is_too_slow_for_ten_images_a_second_is_as_small_as_it_gets() -> None:
    images = drag(FrameBudget(), 20.0, lambda rays: rays * 1e-3)
    assert {rays for rays, _ in images[5:]} == {SMALLEST * round(SMALLEST * ASPECT)}


def rest(budget: FrameBudget, per_ray: float) -> list[tuple[tuple[int, int], float]]:
    """Sizes of the images at rest, and when each is there."""
    clock, images = 0.0, list[tuple[tuple[int, int], float]]()
    size = budget.size(["a"], ASPECT, budget.first_seconds)
    while True:
        spent = size[0] * size[1] * per_ray
        clock += spent
        budget.record_speed("a", size[0] * size[1], spent)
        images.append((size, clock))
        if size == budget.full_size(ASPECT):
            return images
        size = budget.next_size(["a"], ASPECT, size[0])


@pytest.mark.parametrize("model", COSTS)
def test_at_rest_a_first_image_is_there_at_once_and_the_last_is_the_full_one(model: str) -> None:
    _, per_ray = COSTS[model]
    images = rest(FrameBudget(), per_ray)
    assert images[0][1] <= 0.5
    sizes = [size for size, _ in images]
    assert sizes[-1] == FULL
    assert all(b[0] >= 1.3 * a[0] for a, b in itertools.pairwise(sizes))
    # what comes before the full image takes a third of its time at most, and less than a second in all
    assert images[-1][1] <= 1.34 * FULL[0] * FULL[1] * per_ray + 1


def test_a_model_known_to_be_fast_is_rendered_in_full_without_steps() -> None:
    budget = FrameBudget()
    rest(budget, 5e-6)
    assert budget.next_size(["a"], ASPECT, 40) == FULL
    rest(budget, 5e-5)
    assert budget.next_size(["a"], ASPECT, 40) != FULL


def test_speeds_are_of_all_models_and_small_pieces_count_little() -> None:
    budget = FrameBudget(max_size=256)
    for _ in range(20):
        budget.record_speed("a", 1000, 0.1)  # 10,000 rays a second
        budget.record_speed("b", 1000, 0.3)
    height, width = budget.size(["a"], 1.0, 0.1)
    assert height * width == pytest.approx(1000, rel=0.1)
    height, width = budget.size(["a", "b"], 1.0, 0.4)
    assert height * width == pytest.approx(1000, rel=0.1)
    budget.record_speed("a", 3, 0.01)  # the last rays of an image
    assert budget.seconds_per_ray(["a"]) == pytest.approx(1e-4, rel=0.1)
    for _ in range(20):
        budget.record_speed("a", 1000, 0.2)
    assert budget.seconds_per_ray(["a"]) == pytest.approx(2e-4, rel=0.01)


def test_half_of_a_split_is_rendered_by_each_model_at_first() -> None:
    budget = FrameBudget()
    for name in ("a", "b"):
        budget.record_speed(name, 10_000, 0.1)
    whole, half = (budget.moving_size(["a", "b"], 1.0, share) for share in (1.0, 0.5))
    assert half[0] * half[1] == pytest.approx(2 * whole[0] * whole[1], rel=0.1)


SHARES = (1.0, 0.5, 0.25)


def steps_of(per_ray: Callable[[int], float], images: int, budget: FrameBudget) -> list[int]:
    """Widths below the chosen one of each image, where a ray takes a time that depends on them."""
    found = []
    for _ in range(images):
        step = min(budget.narrower(["a"]), len(SHARES) - 1)
        found.append(step)
        height, width = budget.moving_size(["a"], ASPECT)
        rays = height * width
        budget.record_moving(["a"], rays, 0.002 + rays * per_ray(step), full=FULL[0] * FULL[1], costs=SHARES)
    return found


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("ray", [1e-6, 5e-6, 8e-6, 1.2e-5, 1.6e-5, 2.4e-5, 5e-5, 2e-4])
def test_a_moving_image_of_few_pixels_has_fewer_features_and_one_width_at_last(ray: float, power: float) -> None:
    """Whatever a share of the features takes of a ray's time, from as much to its square."""
    budget = FrameBudget()
    last = steps_of(lambda step: ray * SHARES[step] ** power, 120, budget)[-60:]
    assert len(set(last)) == 1
    affordable = 0.078 / (ray * SHARES[last[0]] ** power) / (FULL[0] * FULL[1])
    assert (affordable > 1 / 17) or last[0] == len(SHARES) - 1
    if last[0] > 0:
        wider = 0.078 / (ray * SHARES[last[0] - 1] ** power) / (FULL[0] * FULL[1])
        assert wider < 1 / 7
    fast = steps_of(lambda step: 1e-6, 120, budget)
    assert fast[-60:] == [0] * 60, "with time for all features they come back"
