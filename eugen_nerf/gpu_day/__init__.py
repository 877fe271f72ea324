"""A day with a GPU: everything that has to be measured on one, in order of worth, within a few minutes.

A *part* (`parts.py`) is a function that measures named *rows*. It runs in a process of its own, which appends each row
to a file as soon as it is there (`rows.py`): a part that is stopped keeps what it has. `supervisor.py` divides the time
among the parts, stops those that take too long, and collects all rows in one JSON file. `scripts/gpu_day.py` is the
command.

A row as it is stored: `{"part": ..., "row": ..., "seconds": ..., "figures": {...}}`, or `"error": ...` with the last
lines of the traceback in place of the figures. Figures of a check hold `"ok"`.
"""
