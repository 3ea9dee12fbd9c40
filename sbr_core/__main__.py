"""``python -m sbr_core`` is the command ``sbr``."""

import sys

from sbr_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
