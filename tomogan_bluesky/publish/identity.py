"""What a derived run is called, and how it is told from others.

Enter: a raw run, settings, a model, the number of an attempt. Leave: identifiers that are the same
in any process, and the file that goes with them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

ORIGINAL_RUN = "original_run_uid"
"""Start key of a derived run that holds the uid of the run it comes from; bluesky's own."""

SPEC = {"name": "TomoGANVolume", "version": "1.0"}

# Made up once, so that the same inputs give the same identifiers on every machine.
_NAMESPACE = UUID("fa14d95a-6584-5d9a-a4e8-d1413e4f600a")


def is_derived(start_doc: Mapping[str, Any]) -> bool:
    """Whether a run was made from another run, by us or by any other analysis."""
    return ORIGINAL_RUN in start_doc


def is_ours(start_doc: Mapping[str, Any]) -> bool:
    """Whether a run is a volume that this package derived."""
    return is_derived(start_doc) and SPEC in start_doc.get("tiled_specs", ())


def derivation_of(
    raw_uid: str, config_digest: str, model_sha256: str, references_sha256: str = ""
) -> str:
    """Identifier of "this run with these settings and this model"; the same in any process.

    Parameters
    ----------
    raw_uid, config_digest, model_sha256 : str
    references_sha256 : str
        Of the darks and flats, where they come from files, which may change; "": they do not.
    """
    inputs = [raw_uid, config_digest, model_sha256]
    inputs += [references_sha256] if references_sha256 else []
    return str(uuid5(_NAMESPACE, json.dumps(inputs)))


def derived_uid(derivation: str, attempt: int) -> str:
    """Uid of the run of one attempt at a derivation."""
    return str(uuid5(UUID(derivation), str(attempt)))


def volume_path(directory: Path, uid: str) -> Path:
    """The file that holds the slices of a derived run."""
    return Path(directory).absolute() / f"{uid}.h5"
