"""``python -m tomogan_bluesky.worker``: started by its owner, not by people."""

import sys

from .host import main

if __name__ == "__main__":
    sys.exit(main())
