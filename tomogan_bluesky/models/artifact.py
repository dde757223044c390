"""Model files: a network and its card, in one file.

Enters and leaves: files ``*.ts`` or ``*.pt2`` (see `formats`), with the card as JSON inside, by
path, or by name for those that ship with the package.

Both formats are executable code: `files` says which may be loaded.
"""

import hashlib
import logging
from copy import deepcopy
from pathlib import Path

import torch

from ..errors import ConfigurationError, ModelError
from .card import ModelCard, read_card
from .files import check_allowed, read_file
from .formats import for_inference, read, to_exported, to_torchscript
from .generator import Generator, build_generator, parse_generator
from .uncertainty import without_uncertainty

logger = logging.getLogger(__name__)

# Sizes at which an exported network is compared with the one that it was made of: with and without
# extension to a multiple of 16, along either axis, and tiny.
_PARITY_SIZES = ((48, 64), (33, 80), (64, 47), (21, 35), (5, 3))
_PARITY = 1e-5  # of the result's range


def export_model(generator: Generator, card: ModelCard, path: Path | str) -> ModelCard:
    """Write a network with its card, and see that what was written gives what it gives.

    Parameters
    ----------
    generator : Generator
        It is left as it is; the file is in evaluation mode, on the CPU.
    card : ModelCard
    path : path
        The file to write, ``*.pt2`` for torch.export, else TorchScript; replaced if there.

    Returns
    -------
    ModelCard
        As written, with the weights' sha256.

    Raises
    ------
    ModelError
        The file that was written gives other results; nothing is replaced then.
    """
    path = Path(path)
    card = card.model_copy(update={"weights_sha256": _weights_sha256(generator)})
    write = to_exported if path.suffix == ".pt2" else to_torchscript
    partial = path.with_suffix(".partial")
    partial.write_bytes(write(generator, card.model_dump_json(indent=1)))
    try:
        _check_parity(generator, partial)
    except ModelError:
        partial.unlink()
        raise
    partial.replace(path)
    return card


@torch.no_grad()
def _check_parity(generator: Generator, path: Path) -> None:
    module, _ = load_model(path)
    eager = deepcopy(generator).cpu().eval()
    random = torch.Generator().manual_seed(0)
    for height, width in _PARITY_SIZES:
        x = 0.01 * torch.rand(1, eager.depth, height, width, generator=random)
        noise = torch.tensor([1e-3])
        expected = eager(x, noise)
        error = (module(x, noise) - expected).abs().max() / expected.abs().max()
        if not error <= _PARITY:
            raise ModelError(
                f"{path}: expected the results of the network that was exported, but at {height} x "
                f"{width} pixels they differ by {error:.2g} of their range; nothing was replaced"
            )


def load_model(
    path_or_name: Path | str, device: str | torch.device = "cpu", sha256: str | None = None
) -> tuple[torch.nn.Module, ModelCard]:
    """Load a model by name, if it ships with the package, or by path.

    Parameters
    ----------
    path_or_name : path or str
        A string without a folder and without the suffix ``.ts`` or ``.pt2`` is a name.
    device : str or torch.device
    sha256 : str, optional
        Of the only file that may be loaded; None: any.

    Returns
    -------
    module : torch.nn.Module
        For inference only.
    card : ModelCard

    Raises
    ------
    ModelNotFoundError
        No such name or file.
    ModelError
        A file that is not a model, of another format version, or not what it was.
    """
    module, card = _load(path_or_name, device, sha256)
    return for_inference(module), card


def load_generator(path_or_name: Path | str) -> tuple[Generator, ModelCard]:
    """Load a model as the network that it was exported from, to train it further.

    Without its uncertainty: that is of the network as it is, and has to be learned again.

    Raises
    ------
    ModelNotFoundError, ModelError
        As `load_model`, and for a model whose network this version does not know.
    """
    module, card = _load(path_or_name, "cpu")
    try:
        name, options = parse_generator(card.network)
        generator = build_generator(name, **options)
        generator.load_state_dict(without_uncertainty(module.state_dict()))
    except (ConfigurationError, RuntimeError) as error:
        raise ModelError(
            f"{path_or_name}: expected a network of this version, got {card.network}: {error}"
        ) from error
    return generator, card


def _load(
    path_or_name: Path | str, device: str | torch.device, sha256: str | None = None
) -> tuple[torch.nn.Module, ModelCard]:
    content = read_file(path_or_name)
    sha256_of_file = hashlib.sha256(content).hexdigest()
    check_allowed(path_or_name, sha256_of_file)
    if sha256 is not None and sha256_of_file != sha256:
        raise ModelError(
            f"{path_or_name}: expected the file with sha256 {sha256}, got {sha256_of_file}; it was "
            "altered, and was not loaded: promote the right one again"
        )
    try:
        module, text = read(content, device)
        card = read_card(text)
    except ModelError as error:
        raise ModelError(f"{path_or_name}: {error}") from error
    if (found := _weights_sha256(module)) != card.weights_sha256:
        raise ModelError(
            f"{path_or_name}: expected weights with sha256 {card.weights_sha256}, as its card "
            f"says, got {found}; the file was altered: fetch it again"
        )
    logger.info("model %s, sha256 %s", card.name, sha256_of_file)
    return module, card


def _weights_sha256(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
