"""What can go wrong, by stage. Each error is also the builtin that a caller would expect.

A message says what was expected, what came, why, and what to do.
"""


class TomoGANError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigurationError(TomoGANError, ValueError):
    """A setting is unknown, contradictory, or of the wrong kind."""


class IntakeError(TomoGANError, ValueError):
    """The documents of a run do not describe a tomography scan that can be reconstructed."""


class MissingFramesError(IntakeError):
    """A kind of frame (projection, dark, flat) that the reconstruction needs is absent."""


class AnglesError(IntakeError):
    """The rotation angles are absent, ambiguous, or without units."""


class AssetError(IntakeError, OSError):
    """A file that the documents refer to is absent, unreadable, or not to be read."""

    __str__ = Exception.__str__  # OSError would print an errno instead


class ReconstructionError(TomoGANError, ValueError):
    """A slab cannot be reconstructed: wrong shapes, values that are not finite, bad geometry."""


class RotationCentreError(ReconstructionError):
    """The rotation centre is outside the detector, or could not be found."""


class BackendUnavailableError(TomoGANError, ImportError):
    """An optional backend was asked for and is not installed."""


class ModelError(TomoGANError, ValueError):
    """A model file is corrupt, of another format, or does not fit the data."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """There is no such model, by name or by path."""

    __str__ = Exception.__str__  # FileNotFoundError would print errno and file name instead


class PublishError(TomoGANError, OSError):
    """A derived run could not be written, sent, found or removed."""

    __str__ = Exception.__str__


class ServerAwayError(PublishError):
    """A server does not answer, is overloaded, or does not let us in: later it may."""


class InUseError(PublishError):
    """Another process makes the same derived run now."""


class TrainingError(TomoGANError, RuntimeError):
    """A training diverged, or its checkpoint does not fit."""


class CollapseError(TrainingError):
    """A gan stage has gone wrong; what was good before it did is kept."""


class NoScansError(TomoGANError, LookupError):
    """No scan of a catalog answers a query."""
