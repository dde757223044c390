"""What publishing to a catalog takes is imported at once, and to a callable not at all."""

import sys

import tomogan_bluesky.publish
from tomogan_bluesky.publish.publishers import Publishers

MODULE = "tomogan_bluesky.publish.tiled_publisher"


def test_writing_to_tiled_is_loaded_where_somebody_does_and_before_the_first_run(monkeypatch):
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.delattr(tomogan_bluesky.publish, "tiled_publisher", raising=False)
    Publishers([print, print]).close()
    assert MODULE not in sys.modules
    Publishers([print, "http://127.0.0.1:9"]).close()
    assert MODULE in sys.modules
