"""``python -m homeloop``: the command line."""

import sys

from homeloop.cli import main

if __name__ == "__main__":
    sys.exit(main())
