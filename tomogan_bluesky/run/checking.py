"""What the denoised slices of a scan are checked against.

Enter: the scan, and how it is reconstructed. Leave: `SliceChecks` of some slices, with what was
measured of them.
"""

from ..config import Settings
from ..denoise.refiltered import FilterChange
from ..intake.scan import Scan
from ..models.card import ModelCard
from ..pipeline.checks import SliceChecks, evenly, measure
from ..pipeline.slabs import SlabPipeline
from ..recon.preprocess import Fields, Preprocessing
from ..trust.consistency import Photons


def slice_checks(
    settings: Settings,
    card: ModelCard,
    photons: Photons | None,
    scan: Scan,
    pipeline: SlabPipeline,
    rows: tuple[int, int],
) -> SliceChecks:
    """Checks of some slices of a scan.

    Parameters
    ----------
    settings : Settings
    card : ModelCard
        Of the model that denoises.
    photons : Photons or None
        Of the frames as recorded; None: they are not known.
    scan : Scan
    pipeline : SlabPipeline
    rows : tuple of int
        Of the binned detector, [first, last): those that are reconstructed.
    """
    chosen = evenly(*rows, settings.denoising.check_slices)
    config = settings.reconstruction
    change = FilterChange.between(card, config)
    steps = config.preprocessing
    # Of phase retrieval and of stitched turns, the noise is another.
    if photons is None or steps.phase is not None or steps.full_turn:
        return SliceChecks(card, chosen, change=change)
    # Stripes are removed from whole sinograms.
    steps = steps.model_copy(update={"stripes": None})
    references = scan.references
    fields = Fields(references.dark, references.flats, references.weights_at(scan.times))
    preprocess = Preprocessing(steps, fields, config.minimum_transmission)
    binned = Photons(
        photons.electrons * steps.binning**2, photons.read_noise * steps.binning, photons.n_flats
    )
    measured = measure(
        scan.read,
        lambda frames, row, angles: preprocess(frames, row, row + 1, angles)[0][0],
        lambda row: preprocess.recorded(row, row + 1),
        pipeline.geometry,
        binned,
        chosen,
    )
    return SliceChecks(card, chosen, measured, change)
