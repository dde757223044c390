"""Addresses that our embedded server adds to those of Tiled; its clients know them, too."""

READABLE_PATH = "/custom/readable"
"""Where a folder is made readable by a POST of ``{"folder": …}``, with the key."""
