"""Commands in processes forked from this one, which has imported what they all import: `python command_server.py`.

A request is a line of JSON on standard input: the words, the environment, and the files that take standard output and
errors. The answers are two lines: the process, which leads a group of its own, and in the end its exit status.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import sys
from importlib.metadata import entry_points
from typing import NoReturn

ANSWERS = os.dup(1)
os.dup2(2, 1)  # what is imported next may print

import nerfstudio.engine.trainer  # noqa: E402
import nerfstudio.scripts.eval  # noqa: E402
import nerfstudio.scripts.exporter  # noqa: E402
import nerfstudio.scripts.render  # noqa: E402
import nerfstudio.scripts.train  # noqa: E402, F401


def run(words: list[str], environment: dict[str, str], output: str, errors: str) -> object:
    """What a console script, or a file of Python, gives in this process."""
    for path, flags, target in ((os.devnull, os.O_RDONLY, 0), (output, os.O_WRONLY, 1), (errors, os.O_WRONLY, 2)):
        os.dup2(os.open(path, flags | os.O_CREAT), target)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(environment.get("RUN_IN", "."))
    if words[0].endswith(".py"):
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
        return None
    (program,) = entry_points(group="console_scripts", name=words[0])
    sys.argv = words
    return program.load()()


def run_and_end(words: list[str], environment: dict[str, str], output: str, errors: str) -> NoReturn:
    """Ends as a console script does, but for what libraries do last: their threads are not in a forked process."""
    status: object = 1
    try:
        status = run(words, environment, output, errors)
    except SystemExit as end:
        status = end.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    if not isinstance(status, int | None):
        print(status, file=sys.stderr)
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)


if __name__ == "__main__":
    gc.freeze()  # a collector of garbage that looked through all that is imported would copy it in every process
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os.setsid()
            run_and_end(*json.loads(line))
        os.write(ANSWERS, f"{child}\n".encode())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(ANSWERS, f"{status}\n".encode())
