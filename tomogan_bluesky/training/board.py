"""Curves of a training for TensorBoard, which is an extra.

Enter: entries of a training's history. Leave: event files in a folder; `tensorboard --logdir` shows
them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..errors import BackendUnavailableError

Entry = Mapping[str, float]


@contextmanager
def curves(folder: Path | None) -> Iterator[Callable[[Entry], None]]:
    """What takes entries while the context lasts; where there is no folder, it keeps none.

    Raises
    ------
    BackendUnavailableError
        TensorBoard is not installed.
    """
    if folder is None:
        yield lambda entry: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise BackendUnavailableError(
            "curves for TensorBoard need it: pip install 'tomogan_bluesky[tensorboard]'"
        ) from error
    with SummaryWriter(str(folder)) as writer:

        def add(entry: Entry) -> None:
            for name, value in entry.items():
                if name != "step":
                    writer.add_scalar(name, value, int(entry["step"]))
            writer.flush()

        yield add
