"""What is missing of a run is noticed, and its parts are shared out."""

import pytest
from scans import ANGLES, as_pages, scan_documents

from tomogan_bluesky.serving.arrivals import Arrivals
from tomogan_bluesky.serving.server import Share


def missing(docs):
    arrivals = Arrivals()
    for name, doc in docs[:-1]:
        arrivals.note(name, doc)
    return arrivals.missing(docs[-1][1])


def test_nothing_is_missing_of_a_whole_run():
    docs = scan_documents()
    assert missing(docs) == ""
    assert missing(as_pages(docs, [5])) == ""
    assert missing(scan_documents(seq_nums=[*range(1, 21), *range(18, 35)], num_events=34)) == ""


def test_lost_points_and_streams_are_named():
    docs = scan_documents()
    assert missing(docs[:-3] + docs[-1:]) == f"2 of {ANGLES} points of stream 'primary'"
    without = [pair for pair in docs if pair[1].get("name") != "flat"]
    assert missing(without) == "2 of 2 points of stream 'flat'"


@pytest.mark.parametrize("n", [1, 2, 5])
def test_each_run_belongs_to_one_share(n):
    shares = [Share(i + 1, n) for i in range(n)]
    uids = [f"run {i}" for i in range(200)]
    assert all(sum(share.has(uid) for share in shares) == 1 for uid in uids)
    assert all(sum(share.has(uid) for uid in uids) > 100 / n for share in shares)
