"""The one place where the version is written; setup.cfg and `tomogan_bluesky.__version__` read it."""

__version__ = "0.1.0"
