"""EUGen layers for neural fields: nerfstudio methods, closed-form distillation and evaluation."""

import sys
import warnings
from pathlib import Path

if Path(next(iter(sys.argv), "")).name.startswith(("ns-", "eugen-")):
    # under a command, what torch will drop some day and nerfstudio uses would stand before every message
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch|nerfstudio)\b")
