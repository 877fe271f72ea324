"""Some outputs of a collapsed graph, and nothing that the others alone need."""

from __future__ import annotations

from collections.abc import Sequence

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.graph import CollapsedGraph


def prune_outputs(
    graph: CollapsedGraph, num_inputs: int, outputs: Sequence[int]
) -> tuple[CollapsedGraph, tuple[int, ...]]:
    """The graph of chosen outputs: steps and inputs that they do not need are left out.

    Args:
        graph: its tensors are shared with the result.
        num_inputs: number of its inputs.
        outputs: numbers of the outputs that are kept, in the order in which the result gives them.

    Returns:
        The graph, and the numbers of the inputs that it takes, in their order.

    Raises:
        ConfigError: no outputs, or one that the graph does not have.
    """
    known = range(len(graph.outputs))
    if not outputs or any(o not in known for o in outputs):
        raise ConfigError(f"outputs {list(outputs)} of a graph that has {list(known)}: choose one or more of these")
    needed = {graph.outputs[o][0] for o in outputs}
    for value in reversed(range(num_inputs, num_inputs + len(graph.steps))):
        if value in needed:
            needed.update(graph.steps[value - num_inputs][1])
    place = {value: i for i, value in enumerate(sorted(needed))}
    steps = tuple(
        (stage, tuple(place[v] for v in reads))
        for value, (stage, reads) in enumerate(graph.steps, start=num_inputs)
        if value in needed
    )
    owed = tuple((place[v], affine) for v, affine in (graph.outputs[o] for o in outputs))
    return CollapsedGraph(steps, owed), tuple(v for v in sorted(needed) if v < num_inputs)
