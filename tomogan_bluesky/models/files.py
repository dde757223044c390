"""Which file a model's name means, and whether it may be loaded.

Enters: a name, a path, or "registry:FOLDER". Leaves: the content of the model's file.

Model files are executable code. So a name only ever means a file of this package, which must have
the sha256 that is recorded beside it, and any other file is loaded only where its path is given;
and where a machine has a list of the models that it allows, only if its sha256 is on that.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from ..errors import ModelError, ModelNotFoundError

SUFFIXES = (".ts", ".pt2")

ALLOWED_MODELS = "TOMOGAN_ALLOWED_MODELS"
"""Environment variable with the path of the list of models that this machine allows."""

_REGISTRY = "registry:"  # how the folder of a registry is written where a model is named


def registry_folder(model: object) -> Path | None:
    """The folder of the registry that a model is taken from; None: from none."""
    if isinstance(model, str) and model.startswith(_REGISTRY):
        return Path(model.removeprefix(_REGISTRY))
    return None


def model_sha256(path_or_name: Path | str) -> str:
    """Hexadecimal sha256 of a model's file. Raises as `read_file`."""
    return hashlib.sha256(read_file(path_or_name)).hexdigest()


def read_file(path_or_name: Path | str) -> bytes:
    """The content of a model's file.

    Parameters
    ----------
    path_or_name : path or str
        A string without a folder and without the suffix ``.ts`` or ``.pt2`` is the name of a model
        that ships with the package.

    Raises
    ------
    ModelNotFoundError
        No such name or file.
    ModelError
        A file that can't be read, or one of the package that is not what it was.
    """
    known = shipped_models()
    if isinstance(path_or_name, str) and _is_name(path_or_name):
        return _read_shipped(path_or_name, known)
    try:
        return Path(path_or_name).read_bytes()
    except FileNotFoundError as error:
        raise ModelNotFoundError(
            f"no model file at {path_or_name}; the models that come with the package are: "
            f"{', '.join(known)}"
        ) from error
    except OSError as error:
        raise ModelError(f"{path_or_name}: this model file can't be read: {error}") from error


def shipped_models() -> dict[str, str]:
    """Names of the models in the package, with the sha256 of their files."""
    return dict(json.loads((_shipped() / "sha256.json").read_text()))


def suffix(path_or_name: Path | str) -> str:
    """The format of a model's file, one of `SUFFIXES`: those of the package are TorchScript."""
    return Path(path_or_name).suffix or SUFFIXES[0]


def check_allowed(path_or_name: Path | str, sha256: str) -> None:
    """Refuse a model that is not on the list of this machine, if it has one.

    The list is the file that the environment variable ``TOMOGAN_ALLOWED_MODELS`` names, with a
    sha256 at the beginning of each line, as ``sha256sum`` writes it. Shipped models are on it.

    Raises
    ------
    ModelError
        It is not on the list, or the list can't be read.
    """
    listed = os.environ.get(ALLOWED_MODELS)
    if listed is None or sha256 in shipped_models().values():
        return
    try:
        lines = Path(listed).read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{listed}: expected the list of the models that may be loaded, as {ALLOWED_MODELS} "
            f"says, got: {error}; without it none is loaded but those of the package"
        ) from error
    if sha256 not in {line.split()[0].lower() for line in lines if line.split()}:
        raise ModelError(
            f"{path_or_name}: expected a model that is on the list of {listed}, got one with "
            f"sha256 {sha256}; model files are code: if you trust it, add it: sha256sum "
            f"{path_or_name} >> {listed}"
        )


def _shipped() -> Traversable:
    return resources.files(__package__) / "shipped"


def _is_name(text: str) -> bool:
    return Path(text).name == text and not text.endswith(SUFFIXES)


def _read_shipped(name: str, known: Mapping[str, str]) -> bytes:
    if name not in known:
        raise ModelNotFoundError(
            f"no model is called {name!r}; expected one of: {', '.join(known)}, or the path of a "
            f"model file (*{', *'.join(SUFFIXES)})"
        )
    content = (_shipped() / f"{name}{SUFFIXES[0]}").read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != known[name]:
        raise ModelError(
            f"model {name!r}: expected the file with sha256 {known[name]}, got {found}; the "
            "installation is damaged: install the package again"
        )
    return content
