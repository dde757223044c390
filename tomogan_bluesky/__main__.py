"""`python -m tomogan_bluesky` is `tomogan-bluesky`."""

import sys

from .cli import main

if __name__ == "__main__":  # the processes of a cluster import this module, too
    sys.exit(main())
