"""``python -m tomogan_bluesky.worker``: started by its owner, not by people."""

from .host import main

if __name__ == "__main__":
    main()
