"""Documents that travel together say what they said alone."""

import event_model
import numpy as np
import pytest

from tomogan_bluesky.config import PublishingConfig
from tomogan_bluesky.publish.documents import DerivedRun
from tomogan_bluesky.publish.merging import MOST_BYTES, merged, size_of

SHAPE = (6, 4, 3)
VOLUME = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


def documents(directory=None, slab_rows=2):
    """A derived run of one volume and a preview in the middle of it."""
    docs = []
    run = DerivedRun(
        lambda name, doc: docs.append((name, doc)),
        {"uid": "raw"},
        derivation="fa14d95a-6584-5d9a-a4e8-d1413e4f600a",
        attempt=1,
        metadata={},
        config=PublishingConfig(directory=directory),
    )
    run.start()
    run.open_volume(SHAPE, ("reconstruction",), ("detector_row",))
    for first in range(0, SHAPE[0], slab_rows):
        rows = [first + 10, first + 11][:slab_rows]
        run.write_slab(
            first, {"reconstruction": VOLUME[first : first + slab_rows]}, {"detector_row": rows}
        )
        if first == 2:
            run.preview({"reconstruction": VOLUME[:1]}, {"n_projections": 3})
    run.stop("success", "", {})
    return docs


def table(docs):
    """Of each stream, what its events say, in their order."""
    streams = {}
    for name, doc in docs:
        pages = {"event": [doc], "event_page": event_model.unpack_event_page(doc)}
        for event in pages.get(name, ()):
            streams.setdefault(event["descriptor"], []).append(event)
    return streams


def check_same(docs, again):
    mine, theirs = table(docs), table(again)
    assert mine.keys() == theirs.keys()
    for stream, events in mine.items():
        for event, other in zip(events, theirs[stream], strict=True):
            assert event.keys() - {"filled"} == other.keys() - {"filled"}
            for key in ("uid", "seq_num", "time", "timestamps"):
                assert event[key] == other[key]
            for key, value in event["data"].items():
                np.testing.assert_array_equal(value, other["data"][key])


@pytest.mark.parametrize("where", ["file", "events"])
def test_what_is_merged_says_the_same_in_fewer_documents(where, tmp_path):
    docs = documents(tmp_path if where == "file" else None)
    few = list(merged(docs))
    check_same(docs, few)
    names = [name for name, _ in few]
    assert names[0] == "start"
    assert names[-1] == "stop"
    # The descriptor of the preview, which came in between, is passed by nothing.
    before, after = names[: names.index("event")], names[names.index("event") :]
    for part in (before, after):
        assert part.count("event_page") == 1
        assert part.count("stream_datum") == (where == "file")
    for name, doc in few:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)


def test_ranges_of_a_file_stay_whole(tmp_path):
    few = list(merged(d for d in documents(tmp_path) if d[0] == "stream_datum"))
    ((_, doc),) = few
    assert doc["indices"] == {"start": 0, "stop": 6}
    assert doc["seq_nums"] == {"start": 1, "stop": 7}


def test_a_gap_in_a_file_is_left_open(tmp_path):
    first, _, last = (d for d in documents(tmp_path) if d[0] == "stream_datum")
    assert list(merged([first, last])) == [first, last]


def test_pixels_are_merged_within_bounds():
    docs = documents()
    events = [d for d in docs if d[0] == "event" and "slice_index" in d[1]["data"]]
    at_most = 2 * size_of(events[0][1])
    few = list(merged(docs, at_most))
    check_same(docs, few)
    sizes = [len(doc["seq_num"]) for name, doc in few if name == "event_page"]
    assert set(sizes) == {2}
    assert size_of({"data": {"a": [np.zeros(MOST_BYTES // 8)]}}) > MOST_BYTES
