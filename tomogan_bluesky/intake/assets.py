"""Where frames are, as documents say it: files of this machine, if they may be read.

Enter: `stream_resource` and `resource` documents. Leave: `FrameSource` objects, opened when they
are needed and closed together.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..config import ScanConfig
from ..errors import AssetError
from .archive import CatalogFrames
from .frames import FrameSource
from .hdf5_frames import Hdf5Frames
from .tiff_frames import TiffFrames
from .uris import path_of

logger = logging.getLogger(__name__)


class Assets:
    """The files of one run, opened when they are needed and closed together.

    Parameters
    ----------
    config : ScanConfig
        Path map, allowed roots, and how long to wait for files.
    """

    def __init__(self, config: ScanConfig) -> None:
        self._config = config
        self._documents: dict[str, Mapping[str, Any]] = {}
        self._order: dict[str, int] = {}
        self._sources: dict[str, FrameSource] = {}
        self._without_times: set[str] = set()  # files that cannot be read here

    def add(self, doc: Mapping[str, Any]) -> None:
        """Learn of a `stream_resource` or `resource` document."""
        self._documents[doc["uid"]] = doc
        self._order.setdefault(doc["uid"], len(self._order))

    def knows(self, uid: str) -> bool:
        """Whether the document of a resource has come."""
        return uid in self._documents

    def order(self, uid: str) -> int:
        """Number of a resource among all, in the order in which they came."""
        return self._order[uid]

    def data_key(self, uid: str) -> str:
        """The data key that a `stream_resource` belongs to."""
        return str(self._documents[uid]["data_key"])

    def frames_a_point(self, uid: str) -> int:
        """Frames that a datum of a `resource` stands for."""
        return int(self._documents[uid].get("resource_kwargs", {}).get("frame_per_point", 1))

    def frame_times(self, uid: str, indices: slice) -> np.ndarray | None:
        """When frames of a resource were taken, seconds since 1970; None: not said."""
        return self.source(uid).times(indices)

    def times_in_file_of(self, frames: CatalogFrames, indices: slice) -> np.ndarray | None:
        """When frames of a catalog were taken, if the file that they are in says so here."""
        doc = frames.resource
        if doc is None or doc["uri"] in self._without_times:
            return None
        if doc["uid"] not in self._documents:
            self.add(doc)
        try:
            path = allowed_path(path_of(doc["uri"]), doc["uri"], self._config)
            if path.exists():
                return self.frame_times(doc["uid"], indices)
            why = f"{path}: not on this machine, or elsewhere: see scan.path_map"
        except AssetError as error:
            why = str(error)
        logger.warning("the times of frames in a catalog are left out: %s", why)
        self._without_times.add(doc["uri"])
        return None

    def source(self, uid: str) -> FrameSource:
        """The frames of a resource.

        Raises
        ------
        AssetError
            A kind of file that is not known here, or one outside the allowed roots.
        """
        if uid not in self._sources:
            doc = self._documents[uid]
            self._sources[uid] = self._of_stream(doc) if "mimetype" in doc else self._of_spec(doc)
        return self._sources[uid]

    def close(self) -> None:
        """Close all files."""
        for source in self._sources.values():
            source.close()

    def _of_stream(self, doc: Mapping[str, Any]) -> FrameSource:
        parameters, mimetype = doc["parameters"], doc["mimetype"]
        path = allowed_path(path_of(doc["uri"]), doc["uri"], self._config)
        if mimetype == "application/x-hdf5":
            dataset = parameters.get("dataset") or parameters.get("path")
            if dataset:
                return self._hdf5(path, dataset)
        if mimetype == "multipart/related;type=image/tiff" and "template" in parameters:
            return self._tiff(path, doc["uri"].endswith("/"), parameters)
        raise AssetError(
            f"{doc['uri']}: expected frames in application/x-hdf5 with a dataset, or in "
            f"multipart/related;type=image/tiff with a template, got {mimetype} with "
            f"{', '.join(parameters) or 'no parameters'}"
        )

    def _of_spec(self, doc: Mapping[str, Any]) -> FrameSource:
        kwargs = doc["resource_kwargs"]
        where = f"{doc['root'].rstrip('/')}/{doc['resource_path'].lstrip('/')}"
        path = allowed_path(Path(where), where, self._config)
        if doc["spec"].startswith("AD_HDF5"):
            return self._hdf5(path, kwargs.get("dataset", "entry/data/data"))
        if doc["spec"].startswith("AD_TIFF") and "template" in kwargs:
            return self._tiff(path, True, kwargs)
        raise AssetError(
            f"{where}: expected a resource of spec AD_HDF5 or AD_TIFF, got {doc['spec']!r}"
        )

    def _hdf5(self, path: Path, dataset: str) -> Hdf5Frames:
        return Hdf5Frames(path, dataset, self._config.file_wait_s, self._allowed)

    def _tiff(self, path: Path, is_folder: bool, parameters: Mapping[str, Any]) -> TiffFrames:
        """Tiled puts the template behind the URI as it is, folder or not; older documents name a
        folder without the slash behind it."""
        template = parameters["template"].replace("%s", "{:s}", 1).replace("%s", "")
        template = template.replace("{:s}", parameters.get("filename", ""), 1)
        if is_folder or path.is_dir():
            template = f"/{template.lstrip('/')}"
        return TiffFrames(
            str(path),
            template,
            self._config.first_file_number,
            self._config.file_wait_s,
            self._allowed,
        )

    def _allowed(self, path: Path) -> Path:
        return allowed_path(path, str(path), self._config)


def allowed_path(path: Path | None, uri: str, config: ScanConfig) -> Path:
    """A path as this machine sees it, without links, if it may be read.

    Links are followed first: one that leads out of the allowed roots is refused.

    Parameters
    ----------
    path : Path or None
        None: what was found is not a file of this machine.
    uri : str
        What was found, for the message.
    config : ScanConfig
        Path map and allowed roots.

    Raises
    ------
    AssetError
        Not a file of this machine, or outside the allowed roots.
    """
    if path is None:
        raise AssetError(
            f"{uri}: expected the URI of a file on this machine (file://localhost/…), got "
            "another kind"
        )
    resolved = Path(_here(str(path), config.path_map)).resolve()
    roots = config.allowed_roots
    if roots is not None and not any(resolved.is_relative_to(r.resolve()) for r in roots):
        raise AssetError(
            f"{resolved}: expected a file under one of "
            f"{', '.join(map(str, roots)) or 'no roots at all'}; add its folder to "
            "scan.allowed_roots if it holds raw data"
        )
    return resolved


def _here(path: str, path_map: tuple[tuple[str, str], ...]) -> str:
    """A path of another machine as this one sees it; names of folders match whole or not at all."""
    slashed = path.replace("\\", "/")
    for theirs, ours in path_map:
        folder = theirs.replace("\\", "/").rstrip("/")
        if slashed == folder or slashed.startswith(f"{folder}/"):
            return ours.rstrip("/") + slashed[len(folder) :]
    return path
