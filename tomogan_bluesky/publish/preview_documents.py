"""The documents about previews of a derived run.

Enter: a few slices, and numbers about them. Leave: the descriptor of a stream, and one event for
each preview, which holds the pixels.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import event_model
import numpy as np

STREAM = "preview"


class PreviewDocuments:
    """The stream of previews; all have the slices, and the numbers, of the first."""

    def __init__(self, run: event_model.ComposeRunBundle) -> None:
        self._run = run
        self._descriptor: event_model.ComposeDescriptorBundle | None = None

    def documents(
        self, arrays: Mapping[str, np.ndarray], scalars: Mapping[str, float], units: str
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """What announces one preview.

        Parameters
        ----------
        arrays : mapping of quantity to float32 array, shape (slice, y, x)
        scalars : mapping of name to number
        units : str
            Of all quantities.
        """
        if self._descriptor is None:
            keys: dict[str, Any] = {
                name: {
                    "source": f"tomogan_bluesky:{name}",
                    "dtype": "array",
                    "dtype_numpy": "<f4",
                    "shape": list(array.shape),
                    "dims": ["slice", "y", "x"],
                    "units": units,
                }
                for name, array in arrays.items()
            }
            for name, value in scalars.items():
                whole = isinstance(value, int)
                keys[name] = {
                    "source": f"tomogan_bluesky:{name}",
                    "dtype": "integer" if whole else "number",
                    "dtype_numpy": "<i8" if whole else "<f8",
                    "shape": [],
                }
            self._descriptor = self._run.compose_descriptor(name=STREAM, data_keys=keys)
            yield "descriptor", self._descriptor.descriptor_doc
        now = time.time()
        data = {**arrays, **scalars}
        yield (
            "event",
            self._descriptor.compose_event(
                data=data, timestamps=dict.fromkeys(data, now), time=now
            ),
        )
