"""A scan in files of any kind that is known here.

Enters: the path of a file or folder. Leaves: a `RecordedScan`. What kind it is of is seen from
its content, never from its name.
"""

from pathlib import Path

import h5py

from ..errors import IntakeError, TomoGANError
from . import dataexchange, nxtomo, tiff_folder
from .hdf5 import contents
from .recorded import RecordedScan

_KINDS = f"{dataexchange.EXPECTED}; {nxtomo.EXPECTED}; or {tiff_folder.EXPECTED}"


def read_scan(path: Path) -> RecordedScan:
    """Look at a scan in files.

    Parameters
    ----------
    path : Path
        An HDF5 file (Data Exchange or NXtomo), or a folder of TIFF files.

    Raises
    ------
    IntakeError
        No such file or folder, none of the kinds, or not a whole scan with darks, flats and angles.
    """
    path = path.resolve()
    if path.is_dir():
        if (path / tiff_folder.DESCRIPTION).is_file():
            return tiff_folder.read_tiff_folder(path)
        raise _unknown(path, f"a folder without {tiff_folder.DESCRIPTION}")
    if not path.exists():
        raise _unknown(path, "no such file or folder")
    try:
        with h5py.File(path, "r") as file:
            if nxtomo.nxtomo_groups(file):
                return nxtomo.read_nxtomo(path, file)
            if dataexchange.is_data_exchange(file):
                return dataexchange.read_data_exchange(path, file)
            raise _unknown(path, f"an HDF5 file with {contents(file)}")
    except TomoGANError:
        raise
    # Whatever h5py makes of a damaged file.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise _unknown(path, f"no HDF5 file that can be read ({error})") from error


def _unknown(path: Path, what: str) -> IntakeError:
    return IntakeError(f"{path}: expected one of: {_KINDS}; got: {what}")
