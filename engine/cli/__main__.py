"""`python -m dragnoise.engine.cli`: the same as the command `dragnoise`."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())
