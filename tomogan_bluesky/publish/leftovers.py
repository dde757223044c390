"""What attempts without success leave behind, once there is a final version.

Enter: a catalog, a derivation with a final version, the folder of the files. Leaves: nothing of
the other attempts, as far as these are ours, have ended or died, and did not succeed.
"""

import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiled.client.base import BaseClient

from .catalog import unsuccessful
from .identity import derived_uid, volume_path
from .removal import remove_derived_run
from .volume_file import beginning_of, owner_of

logger = logging.getLogger(__name__)


def remove_unsuccessful(client: BaseClient, derivation: str, directory: Path | None) -> None:
    """Remove the attempts at a derivation that failed or were cut off, files included.

    Parameters
    ----------
    client : Tiled client
    derivation : str
        Which has a final version by now.
    directory : Path or None
        Where the files are, if we hold the claim there: then no attempt with a file in it can have
        a living writer. Others are taken for dead if they were made on this machine, by a process
        that is there no more.

    Raises
    ------
    PublishError
        The catalog can't be asked, or lets us remove nothing.
    """
    for start_doc, has_ended in unsuccessful(client, derivation):
        uid = start_doc["uid"]
        if has_ended or _is_dead(start_doc, directory):
            path = remove_derived_run(client, uid)
            logger.info(
                "derived run %s: had no success, is removed%s", uid, f", {path}" * bool(path)
            )
        else:
            logger.warning(
                "derived run %s is not at its end and may still have a writer, on %s; if not, "
                "remove it: tomogan-bluesky replay --remove",
                uid,
                start_doc.get("writer", {}).get("host", "another machine"),
            )


def remove_files(derivation: str, n_attempts: int, directory: Path, keep: set[str]) -> None:
    """Remove the files of attempts that no catalog knows.

    Parameters
    ----------
    derivation : str
    n_attempts : int
        How many there were.
    directory : Path
        In which we hold the claim of the derivation.
    keep : set of str
        Uids of the derived runs whose files stay.
    """
    for number in range(1, n_attempts + 1):
        uid = derived_uid(derivation, number)
        path = volume_path(directory, uid)
        beginning_of(path).unlink(missing_ok=True)
        if uid in keep or not path.exists():
            continue
        if owner_of(path) == uid:
            path.unlink()
            logger.info("derived run %s: was cut off, %s is removed", uid, path)
        else:
            logger.warning(
                "%s is no file that was written for run %s, and is left alone", path, uid
            )


def _is_dead(start_doc: Mapping[str, Any], directory: Path | None) -> bool:
    if directory is not None and volume_path(directory, start_doc["uid"]).exists():
        return True
    author = start_doc.get("writer", {})
    if author.get("host") != socket.gethostname():
        return False
    if author["pid"] == os.getpid():
        return True  # we hold the claim, and are at another attempt
    try:
        os.kill(author["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
