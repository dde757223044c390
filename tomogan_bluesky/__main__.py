"""`python -m tomogan_bluesky` is `tomogan-bluesky`."""

import sys

from .cli import main

sys.exit(main())
