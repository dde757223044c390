"""The only place where the version is written; setup.cfg and the package read it here."""

__version__ = "0.1.0"
