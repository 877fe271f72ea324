"""The interactive web viewer (`eugen-view`): compares runs side by side and compresses them live.

Where a frame is rendered, from the outside in:

* `session.py`: one browser tab; `Session._render` decides when and at which size;
* `run_comparison.py`: the chosen runs; `RunComparison.render_frame` renders each of them from one viewpoint;
* `frame_rendering.py`: one model; `Renderer.render` evaluates its rays, in pieces that can be cancelled;
* `image_composition.py`: `compose` makes the displayed image of two.

`panels/` hold the tabs of the control panel. They know the viewer only by the protocol in `context.py`.
"""
