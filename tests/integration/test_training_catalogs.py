"""Scans of a Databroker or Tiled catalog, to learn from."""

from contextlib import ExitStack
from datetime import datetime, timedelta
from uuid import uuid4

import numpy as np
import pytest
import torch
from paired_doses import scan_at_two_doses
from scans import ANGLES, scan_documents, slice_events
from tiled.profiles import load_profiles
from tiled.queries import Eq

from tomogan_bluesky import TomoGANCallback, replay
from tomogan_bluesky.config import PublishingConfig, ReconstructionConfig, ScanConfig
from tomogan_bluesky.errors import NoScansError
from tomogan_bluesky.publish.query import ScanQuery
from tomogan_bluesky.publish.tiled_publisher import TiledPublisher
from tomogan_bluesky.recon.beam import Beam
from tomogan_bluesky.recon.phantoms import make_phantom
from tomogan_bluesky.sim.beamline import SimBeamline
from tomogan_bluesky.training.catalogs import ScanReader, find_runs, scans
from tomogan_bluesky.training.dose_pairs import paired_scans, training_pairs
from tomogan_bluesky.trust.noise import estimate_noise


@pytest.fixture
def insert(client):
    """Put a small scan, or a run without data, into the catalog; returns its uid."""

    def insert(time=None, empty=False, **faults):
        def dated(name, doc):
            return {**doc, "time": time} if time and name == "start" else doc

        publish = TiledPublisher(client, batch_size=100)
        docs = scan_documents(**faults, edit=dated)
        docs = [docs[0], docs[-1]] if empty else docs
        for name, doc in docs:
            publish(name, doc)
        return docs[0][1]["uid"]

    return insert


@pytest.fixture
def closing():
    """Closes in the end what a test opens."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def sample():
    """A name that no other test uses: they share the catalog."""
    return f"walnut {uuid4()}"


@pytest.fixture
def doses(client, sample):
    """A sample at full dose and a quarter of it, by the plan; uids by dose."""
    angles = np.linspace(0, 180, 37)
    phantom = make_phantom("foam", 64, np.random.default_rng(0), 2)
    beamline = SimBeamline(phantom, angles, Beam(1e3, 1.0, seed=1), rotation_centre=17.0)
    return scan_at_two_doses(beamline, angles, client, {"sample": {"name": sample}})


def replayed(client, uid, centre):
    """Slices of a run, as the callback publishes them."""
    documents = []
    with TomoGANCallback(
        lambda name, doc: documents.append((name, doc)),
        None,
        reconstruction=ReconstructionConfig(rotation_centre=centre),
        worker="thread",
    ) as callback:
        replay(client[uid], callback)
    images = [doc["data"]["reconstruction"] for doc in slice_events(documents)]
    for name, doc in documents:
        if name == "event_page":
            images += doc["data"]["reconstruction"]
    return np.concatenate(
        [np.asarray(image).reshape(-1, *np.shape(image)[-2:]) for image in images]
    )


def test_low_and_full_dose_are_matched_through_databroker(
    catalog, client, closing, doses, sample, insert, tmp_path, monkeypatch, request
):
    import databroker

    monkeypatch.setattr("tiled.profiles.paths", [tmp_path])  # read from TILED_PROFILES at import
    load_profiles.cache_clear()  # another test may have looked for profiles elsewhere
    request.addfinalizer(load_profiles.cache_clear)
    (tmp_path / "lab.yml").write_text(f"lab:\n  uri: {catalog.uri}\n")
    lonely = insert(md={"sample": sample, "paired_scan": "another", "dose": 0.25}, empty=True)
    query = ScanQuery(sample=sample)
    for broker in (databroker.catalog["lab"], databroker.from_profile("lab")):
        closing.callback(broker.context.close)
        paired = paired_scans(ScanReader(broker), query)
        (unmatched,) = paired.unmatched
        assert unmatched.uid == lonely
        assert "no full-dose scan (dose 1)" in unmatched.reason
    ((low, full),) = paired
    assert (low.start["uid"], low.start["dose"]) == (doses[0.25], 0.25)
    assert (full.start["uid"], full.start["dose"]) == (doses[1.0], 1.0)
    assert low.rotation_centre == full.rotation_centre == pytest.approx(17.0, abs=0.5)
    assert estimate_noise(low.slices).mean() > 1.3 * estimate_noise(full.slices).mean()
    expected = replayed(client, low.start["uid"], full.rotation_centre)
    np.testing.assert_array_equal(low.slices, expected)
    (pairs,) = training_pairs(paired)
    torch.testing.assert_close(pairs.noisy[:, 0], low.slices, rtol=0, atol=0)
    torch.testing.assert_close(pairs.target, full.slices, rtol=0, atol=0)
    torch.testing.assert_close(pairs.dose, torch.full((2, 1), 0.25))


def test_runs_are_found_by_what_their_start_says(client, sample, insert, tmp_path):
    md = {"sample": {"name": sample}, "dose": 0.5, "technique": "tomography", "plan_name": "a plan"}
    first = insert(md=md, time=1e9)
    second = insert(md={**md, "dose": 0.1, "sample": sample}, time=1.1e9, empty=True)
    insert(md={"sample": {"name": "another"}}, empty=True)
    then = datetime.fromtimestamp(1.1e9)

    def found(**query):
        return [r.metadata["start"]["uid"] for r in find_runs(client, ScanQuery(**query))]

    assert found(sample=sample) == [first, second]
    assert found(sample=sample, dose=0.5) == [first]
    assert found(sample=sample, since=then) == [second]
    assert found(sample=sample, until=then) == [first]
    assert found(plan_name="a plan", where={"technique": "tomography"}) == [first, second]
    # A derived run bears the name of the sample, too, and is no scan.
    with TomoGANCallback(client, None, publishing=PublishingConfig(), worker="thread") as callback:
        (report,) = replay(client[first], callback)
    assert client[report.derived_uid].metadata["start"]["sample"] == {"name": sample}
    assert found(sample=sample) == [first, second]


def test_a_query_that_nothing_answers_says_what_there_is(client, sample, insert):
    insert(md={"sample": {"name": sample}, "dose": 0.125}, empty=True)
    for query, message in (
        (ScanQuery(), "got an empty one; the catalog's newest"),
        (ScanQuery(sample="x", dose=0.3), "expected raw runs of sample 'x', dose 0.3, got none"),
    ):
        with pytest.raises(NoScansError, match=message) as caught:
            find_runs(client, query)
        assert sample in str(caught.value)
        assert "0.125" in str(caught.value)
        assert "tomo_scan" in str(caught.value)


def test_a_catalog_that_is_empty_says_so(client):
    empty = client.search(Eq("start.uid", "none"))
    with pytest.raises(NoScansError, match="the catalog holds no raw runs"):
        find_runs(empty, ScanQuery(sample="x"))


def test_scans_that_cannot_be_used_are_listed(client, sample, insert):
    md = {"sample": {"name": sample}}
    aborted = insert(md=md, exit_status="abort", empty=True)
    without_flats = insert(md=md, flats=0)
    no_scan = insert(md=md, empty=True)
    found = scans(ScanReader(client), ScanQuery(sample=sample))
    for _ in range(2):  # a second pass counts nothing twice
        assert list(found) == []
        reasons = {rejection.uid: rejection.reason for rejection in found.rejected}
        assert set(reasons) == {aborted, without_flats, no_scan}
        assert "got one of 'abort'" in reasons[aborted]
        assert "at least one flat frame" in reasons[without_flats]
        assert "a run that is none" in reasons[no_scan]
        assert len(found.rejected) == 3


def test_runs_without_a_partner_are_listed(client, sample, insert):
    md = {"sample": {"name": sample}, "paired_scan": sample}
    older = insert(md={**md, "dose": 0.25}, time=1e9, empty=True)
    low = insert(md={**md, "dose": 0.25})
    tenth = insert(md={**md, "dose": 0.1}, empty=True)
    full = insert(md={**md, "dose": 1})
    unlinked = insert(md={"sample": {"name": sample}, "dose": 0.25}, empty=True)
    alone = insert(md={**md, "paired_scan": "alone", "dose": 1.0}, empty=True)
    broken = insert(md={**md, "paired_scan": "broken", "dose": 1.0}, empty=True)
    useless = insert(md={**md, "paired_scan": "broken", "dose": 0.1}, empty=True)
    paired = paired_scans(ScanReader(client), ScanQuery(sample=sample))
    assert len(paired) == 3
    assert [(a.start["uid"], b.start["uid"]) for a, b in paired] == [(low, full)]
    reasons = {rejection.uid: rejection.reason for rejection in paired.unmatched}
    none = "expected a tomography scan, got a run that is none"
    assert reasons == {
        older: f"run {low} is of the same dose and newer",
        tenth: none,
        unlinked: "it has no start keys 'paired_scan' and 'dose'",
        alone: "there is no low-dose scan to pair it with",
        broken: none,
        useless: f"its full-dose scan {broken} cannot be used",
    }


def test_no_pair_at_all_says_why_of_each(client, sample, insert):
    uid = insert(md={"sample": {"name": sample}}, empty=True)
    with pytest.raises(NoScansError, match=f"got none: {uid}: it has no start keys"):
        paired_scans(ScanReader(client), ScanQuery(sample=sample))


def test_references_of_another_run_are_found_in_the_catalog(client, sample, insert):
    whole = insert(md={"sample": {"name": sample}})
    references = insert(frames=[], angles_deg=[])
    md = {"sample": {"name": sample}, "dark_flat": references}
    insert(md=md, darks=0, flats=0)
    config = ScanConfig(references_run_key="dark_flat")
    first, second = scans(ScanReader(client, config), ScanQuery(sample=sample))
    assert first.start["uid"] == whole
    np.testing.assert_array_equal(first.slices, second.slices)


def test_a_catalog_on_mongodb_gives_the_same_bits(client, closing, sample):
    pytest.importorskip("mongomock", reason="a catalog on MongoDB needs databroker[server]")
    from databroker.mongo_normalized import MongoAdapter
    from tiled.client import from_uri
    from tiled.config import Authentication
    from tiled.server.app import build_app

    from tomogan_bluesky.publish.server_app import serving

    adapter = MongoAdapter.from_mongomock()
    insert, publish = adapter.get_serializer(), TiledPublisher(client)
    # Paused and rewound: two points were taken twice, and the later ones count.
    numbers = [*range(1, 21), 19, 20, *range(21, ANGLES + 1)]
    angles = np.linspace(0, 180, ANGLES)
    frames = np.random.default_rng(0).integers(3000, 9000, (len(numbers), 3, 32), dtype=np.uint16)
    docs = scan_documents(
        frames=frames,
        angles_deg=[angles[n - 1] for n in numbers],
        seq_nums=numbers,
        num_events=ANGLES,
        md={"sample": {"name": sample}, "dose": 0.25},
    )
    for name, doc in docs:
        insert(name, doc)
        publish(name, doc)
    query = ScanQuery(sample=sample, dose=0.25, since=datetime.now() - timedelta(days=1))
    config = ReconstructionConfig(rotation_centre=15.5)
    app = build_app(adapter, Authentication(allow_anonymous_access=True))
    mongo = from_uri(closing.enter_context(serving(app, "127.0.0.1", 0)), trust_env=False)
    closing.callback(mongo.context.close)
    (scan,) = scans(ScanReader(mongo, reconstruction=config), query)
    with pytest.raises(NoScansError, match=f"got none; .* samples: {sample}; plans: tomo_scan"):
        find_runs(mongo, ScanQuery(sample="x"))
    (expected,) = scans(ScanReader(client, reconstruction=config), query)
    assert scan.start == expected.start
    np.testing.assert_array_equal(scan.slices, expected.slices)
