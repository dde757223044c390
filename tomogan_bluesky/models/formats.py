"""Two formats of model files: TorchScript (``*.ts``) and torch.export (``*.pt2``).

Enter: a network and the text of its card. Leave: the content of a file; and back. The formats hold
the same weights under the same names and give the same bits. TorchScript is quicker on a CPU (it
can be frozen); torch has announced that it will go, and torch.export takes its place.
"""

import io
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch

from ..errors import ModelError
from .base import channels_last
from .generator import Generator

_CARD = "card.json"  # the card's name inside the file
_SOURCE_FILES = ".debug_pkl"  # in which TorchScript names the files of its code


def to_torchscript(generator: Generator, card: str) -> bytes:
    """A network in evaluation mode as TorchScript."""
    buffer = io.BytesIO()
    with without_deprecation():
        scripted = torch.jit.script(_plain(generator))
        torch.jit.save(scripted, buffer, _extra_files={_CARD: card})
    return _without_source_files(buffer)


def _without_source_files(archive: io.BytesIO) -> bytes:
    """The same archive, without the names of the files that its code was compiled from.

    They are of the machine that exported it, and nobody else's business; without them the same
    network and card are the same bytes wherever they were exported.
    """
    kept = io.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(kept, "w") as target:
        for item in source.infolist():
            if not item.filename.endswith(_SOURCE_FILES):
                target.writestr(zipfile.ZipInfo(item.filename), source.read(item))
    return kept.getvalue()


def to_exported(generator: Generator, card: str) -> bytes:
    """A network in evaluation mode as a graph of torch.export, for images of any size."""
    any_size = torch.export.Dim.DYNAMIC
    # Traced where the image has to be extended: extending it by nothing is a case of that.
    x = torch.rand(2, generator.depth, 3 * generator.multiple - 1, 2 * generator.multiple + 3)
    graph = torch.export.export(
        _plain(generator),
        (0.01 * x, torch.full((2,), 1e-3)),
        dynamic_shapes={"x": {0: any_size, 2: any_size, 3: any_size}, "noise": {0: any_size}},
    )
    buffer = io.BytesIO()
    torch.export.save(graph, buffer, extra_files={_CARD: card})
    return buffer.getvalue()


def _plain(generator: Generator) -> Generator:
    return deepcopy(generator).cpu().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]


def read(content: bytes, device: str | torch.device) -> tuple[torch.nn.Module, str]:
    """The network and the text of its card, empty where there is none. It is not frozen.

    Raises
    ------
    ModelError
        A file of neither format.
    """
    try:
        if _is_exported(content):
            return _read_exported(content, torch.device(device))
        extra = {_CARD: ""}
        with without_deprecation():
            module = torch.jit.load(io.BytesIO(content), map_location=device, _extra_files=extra)
        return module, extra[_CARD]
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise ModelError(
            "expected a TorchScript or torch.export file, written by export_model; torch can't "
            f"read this one ({reason}); fetch it again or export it again"
        ) from error


def _is_exported(content: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return any(name.endswith("/archive_format") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _read_exported(content: bytes, device: torch.device) -> tuple[torch.nn.Module, str]:
    extra = {_CARD: ""}
    graph = torch.export.load(io.BytesIO(content), extra_files=extra)
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass  # it takes a second to import

        graph = move_to_device_pass(graph, device)
    # Its guards hold to the case that was traced, an image that had to be extended, but the graph
    # is right for all: `export_model` sees to that.
    return graph.module(check_guards=False), extra[_CARD]


def for_inference(module: torch.nn.Module) -> torch.nn.Module:
    """The same network, as quick as its format allows."""
    channels_last(module)
    if not isinstance(module, torch.jit.ScriptModule):
        return module
    with without_deprecation():
        return torch.jit.freeze(module.eval())


@contextmanager
def without_deprecation() -> Iterator[None]:
    """Silence torch's notice that TorchScript is deprecated, and nothing else."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is", category)
        yield
