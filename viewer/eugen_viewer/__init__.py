"""The interactive web viewer (`eugen-view`): compares runs side by side and compresses them live.

A frame is rendered in this order: `session.py` (one browser tab; decides when) calls `run_comparison.py` (which runs,
    and
how they are displayed), which calls `frame_rendering.py` (evaluates a model, in interruptible pieces), then
`image_composition.py` (one image of two). `panels/` hold the tabs of the control panel; they know `context.py` only."""
