"""The documents about the volume of a derived run.

Enter: slabs of slices with numbers about each slice. Leave: the pixels, into a file or the events;
descriptor, stream_resource, stream_datum and event documents that announce them.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import event_model
import numpy as np

from ..errors import PublishError
from .volume_file import VolumeFile, check_slab, dataset_path

STREAM = "primary"


class VolumeDocuments:
    """The volume of a derived run: its pixels, and the documents about them."""

    def __init__(
        self,
        run: event_model.ComposeRunBundle,
        shape: tuple[int, int, int],
        quantities: tuple[str, ...],
        units: str,
        scalars: tuple[str, ...],
        file: VolumeFile | None,
        uri: str,
        swmr: bool,
    ) -> None:
        self.file = file
        self._uri = uri
        self._swmr = swmr
        self._run = run
        self._shape = shape
        self._quantities = quantities
        self._units = units
        self._scalars = scalars
        self._n_written = 0
        self._descriptor: event_model.ComposeDescriptorBundle | None = None
        self._resources: list[event_model.ComposeStreamResourceBundle] = []
        self._waiting: list[tuple[int, dict[str, np.ndarray], dict[str, list[Any]]]] = []

    def write(
        self,
        first: int,
        arrays: Mapping[str, np.ndarray],
        scalars: Mapping[str, Sequence[float]],
    ) -> None:
        n_slices = check_slab(self._shape, self._quantities, self._n_written, first, arrays)
        columns = {"slice_index": list(range(first, first + n_slices))}
        for name in self._scalars:
            columns[name] = np.asarray(scalars.get(name, ())).tolist()
        if set(scalars) != set(self._scalars) or {n_slices} != set(map(len, columns.values())):
            raise PublishError(
                f"expected {n_slices} values of each of {', '.join(self._scalars) or 'no scalar'}, "
                f"got { ({name: len(values) for name, values in scalars.items()}) }"
            )
        pixels = {}
        if self.file is not None:
            self.file.write(first, arrays)
        else:
            pixels = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        self._n_written += n_slices
        self._waiting.append((first, pixels, columns))

    def close(self) -> None:
        if self.file is not None:
            self.file.close()

    def documents(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The documents of everything that was written since the last call."""
        while self._waiting:
            first, pixels, columns = self._waiting.pop(0)
            if self._descriptor is None:
                yield from self._opening(columns)
            assert self._descriptor is not None
            now = time.time()
            if self.file is None:
                yield from self._events(pixels, columns, now)
                continue
            stop = first + len(columns["slice_index"])
            for resource in self._resources:
                yield (
                    "stream_datum",
                    resource.compose_stream_datum(
                        indices={"start": first, "stop": stop},
                        seq_nums={"start": first + 1, "stop": stop + 1},
                        descriptor=self._descriptor.descriptor_doc,
                    ),
                )
            times = [now] * (stop - first)
            yield (
                "event_page",
                self._descriptor.compose_event_page(
                    data=columns, timestamps=dict.fromkeys(columns, times), time=times
                ),
            )

    def _opening(self, columns: Mapping[str, list[Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The descriptor, and where the pixels are."""
        data_keys = {name: self._array_key(name) for name in self._quantities}
        data_keys |= {name: _scalar_key(name, values) for name, values in columns.items()}
        self._descriptor = self._run.compose_descriptor(name=STREAM, data_keys=data_keys)
        yield "descriptor", self._descriptor.descriptor_doc
        if self.file is None:
            return
        compose_resource = self._run.compose_stream_resource
        assert compose_resource is not None  # it is for bundles of older versions only
        for quantity in self._quantities:
            resource = compose_resource(
                mimetype="application/x-hdf5",
                uri=self._uri,
                data_key=quantity,
                parameters={
                    "dataset": dataset_path(quantity),
                    "chunk_shape": [1, *self._shape[1:]],
                    "join_method": "stack",
                    "swmr": self._swmr,
                },
            )
            self._resources.append(resource)
            yield "stream_resource", resource.stream_resource_doc

    def _array_key(self, quantity: str) -> dict[str, Any]:
        key = {
            "source": f"tomogan_bluesky:{quantity}",
            "dtype": "array",
            "dtype_numpy": "<f4",
            "shape": list(self._shape[1:]),
            "dims": ["y", "x"],
            "units": self._units,
        }
        return key if self.file is None else {**key, "external": "STREAM:"}

    def _events(
        self, pixels: Mapping[str, np.ndarray], columns: Mapping[str, list[Any]], now: float
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        assert self._descriptor is not None
        for i in range(len(columns["slice_index"])):
            data = {name: array[i] for name, array in pixels.items()}
            data |= {name: values[i] for name, values in columns.items()}
            yield (
                "event",
                self._descriptor.compose_event(
                    data=data, timestamps=dict.fromkeys(data, now), time=now
                ),
            )


def _scalar_key(name: str, values: Sequence[Any]) -> dict[str, Any]:
    whole = all(isinstance(value, int) for value in values)
    return {
        "source": f"tomogan_bluesky:{name}",
        "dtype": "integer" if whole else "number",
        "dtype_numpy": "<i8" if whole else "<f8",
        "shape": [],
    }
