#!/usr/bin/env python
"""`make demo`: generates a scene, trains the dense twin and eugen-nerf, distils, compares."""

import sys
from pathlib import Path

from eugen_nerf.cli.bench import main

if __name__ == "__main__":
    sys.argv = ["eugen-bench", str(Path(__file__).parent.parent / "configs" / "demo.yml")]
    main()
