"""Compare trained runs: the same as the command ``eugen-eval``."""

from eugen_nerf.cli.eval import main

if __name__ == "__main__":
    main()
