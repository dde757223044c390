"""What is said of a raw run: in the reasons of its derived run and in its report.

Enter: its documents, its frames, its rotation centre. Leave: how it ended, how many projections it
promised, and remarks that a reader of the slices must know.
"""

import numpy as np

from ..intake.documents import ScanDocuments
from ..intake.scan import Scan
from ..recon.centre import CentreEstimate
from ..report import ExitStatus


def promised_projections(documents: ScanDocuments) -> int | None:
    """How many projections there should be: of a finished run those that it counted."""
    counted = documents.stop_doc.get("num_events", {}).get(documents.projection_stream)
    if documents.stop_doc.get("exit_status") == "success" and counted is not None:
        return int(counted)
    return documents.declared_projections


def exit_status(documents: ScanDocuments, failure: str | None) -> ExitStatus:
    """How the derived run ends, if that was the first error of the work on it."""
    if failure is not None:
        return "fail"
    return "success" if documents.stop_doc.get("exit_status") == "success" else "abort"


def remarks_on_frames(scan: Scan, raw_status: str | None) -> list[str]:
    """Which projections a volume was made without, and why.

    Parameters
    ----------
    scan : Scan
    raw_status : str or None
        Exit status of the raw run.
    """
    account, remarks = scan.account, []
    coverage = np.rad2deg(scan.theta.max() - scan.theta.min())
    if raw_status != "success":
        remarks.append(
            f"the raw run ended as {raw_status!r} after {account.used} of {account.expected} "
            f"projections, which cover {coverage:.1f} degrees; the volume is partial: "
            "expect missing-wedge artefacts, or repeat the scan"
        )
    elif account.missing:
        remarks.append(
            f"expected {account.expected} projections, got {account.used}: {account.missing} "
            "missing; the volume was made without them"
        )
    return remarks + [
        f"{number} of {account.expected} projections rejected: {why}; the volume was made "
        "without them, look at the detector"
        for why, number in account.rejected.items()
    ]


def remark_on_centre(estimate: CentreEstimate) -> str:
    """What is to be done about a rotation centre that not all methods agree on."""
    return (
        f"the rotation centre, {estimate.centre:.2f}, is uncertain (confidence "
        f"{estimate.confidence:.2f}): {estimate.reason}; look at the slices, and where "
        "edges are doubled give reconstruction.rotation_centre and replay the run"
    )
