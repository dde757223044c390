"""The RunEngine of a session, in an IPython profile or in a queueserver.

These files are loaded in the order of their numbers, as the startup folder of an IPython profile
or with ``start-re-manager --startup-dir``.
"""

from bluesky import RunEngine

RE = RunEngine()
