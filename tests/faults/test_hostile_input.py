"""Input that means harm, or is merely broken: each is an error that says so, never more."""

import hashlib
import pickle

import h5py
import msgpack
import numpy as np
import pytest
from generators import export_untrained
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scans import disc_frames, scan_documents

from tomogan_bluesky import TomoGANCallback
from tomogan_bluesky.config import DEFAULT_MODEL
from tomogan_bluesky.errors import ModelError, PublishError, TomoGANError
from tomogan_bluesky.intake.files import read_scan
from tomogan_bluesky.models.artifact import load_model
from tomogan_bluesky.models.files import ALLOWED_MODELS
from tomogan_bluesky.publish.spool import Spool
from tomogan_bluesky.serving.messages import MessageError, unpack

FEW = settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
HOW = ("cut", "patch", "junk")
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def run_through(docs):
    with TomoGANCallback(lambda *item: None, None, worker="thread") as callback:
        for name, doc in docs:
            callback(name, doc)
        return callback.wait(60)


@FEW
@given(st.data())
def test_hostile_documents_never_raise_and_the_next_scan_is_made(data):
    """A value anywhere in any document is replaced by anything at all, or is gone."""
    docs = scan_documents(frames=disc_frames(7), angles_deg=np.linspace(0, 180, 7))
    index = data.draw(st.integers(0, len(docs) - 1))
    name, doc = docs[index]
    doc = dict(doc)
    key = data.draw(st.sampled_from(sorted(doc)))
    if data.draw(st.booleans()):
        del doc[key]
    else:
        doc[key] = data.draw(JUNK)
    docs[index] = (name, doc)
    good = scan_documents(frames=disc_frames(7), angles_deg=np.linspace(0, 180, 7))
    reports = run_through([*docs, *good])
    assert reports[-1].raw_uid == good[0][1]["uid"]
    assert reports[-1].exit_status == "success", reports[-1].reason


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return export_untrained(tmp_path_factory.mktemp("model") / "model.ts")


@FEW
@given(
    st.floats(0, 1), st.binary(min_size=1, max_size=40), st.sampled_from(["cut", "patch", "junk"])
)
def test_hostile_bytes_in_a_model_file_are_refused_or_change_nothing(model, where, patch, how):
    content = model.read_bytes()
    at = int(where * (len(content) - len(patch)))
    changed = {
        "cut": content[:at],
        "patch": content[:at] + patch + content[at + len(patch) :],
        "junk": patch,
    }[how]
    path = model.with_name("hostile.ts")
    path.write_bytes(changed)
    try:
        module, card = load_model(path)
    except ModelError:
        return
    # Neither weights nor card: in the padding between them, or the same bytes.
    assert card == load_model(model)[1]


class _Harm:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was loaded')",)


def test_no_pickle_is_ever_loaded(tmp_path):
    content = pickle.dumps(_Harm())
    (tmp_path / "model.ts").write_bytes(content)
    with pytest.raises(ModelError):
        load_model(tmp_path / "model.ts")
    with pytest.raises(MessageError):
        unpack(content)


def test_with_a_list_only_models_on_it_are_loaded(model, tmp_path, monkeypatch):
    allowed = tmp_path / "allowed"
    monkeypatch.setenv(ALLOWED_MODELS, str(allowed))
    with pytest.raises(ModelError, match="expected the list"):
        load_model(model)
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    allowed.write_text(f"{'0' * 64}  another.ts\n")
    with pytest.raises(ModelError, match=f"got one with sha256 {sha256}; model files are code"):
        load_model(model)
    load_model(DEFAULT_MODEL)  # of the package
    allowed.write_text(f"{'0' * 64}  another.ts\n\n{sha256}  {model}\n")  # as sha256sum does
    load_model(model)


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    with h5py.File(path, "w") as file:
        file["exchange/data"] = disc_frames(7)
        file["exchange/data_white"] = np.full((2, 3, 32), 10_100, np.uint16)
        file["exchange/data_dark"] = np.full((2, 3, 32), 100, np.uint16)
        file["exchange/theta"] = np.linspace(0, 180, 7)
    return path


@FEW
@given(st.floats(0, 1), st.binary(min_size=1, max_size=60), st.booleans())
def test_hostile_bytes_in_hdf5_are_an_error_or_a_scan(scan_file, where, patch, cut):
    content = scan_file.read_bytes()
    at = int(where * (len(content) - len(patch)))
    path = scan_file.with_name("hostile.h5")
    path.write_bytes(content[:at] if cut else content[:at] + patch + content[at + len(patch) :])
    try:
        scan = read_scan(path)
        run_through(list(scan.documents(1)))
    except (TomoGANError, OSError):
        return


@FEW
@given(st.binary(max_size=200))
def test_hostile_bytes_in_a_spool_are_an_error_or_what_was_before_them(tmp_path, junk):
    spool = Spool(tmp_path / hashlib.sha256(junk).hexdigest(), 1)
    start = {"uid": "u", "derivation": "d", "attempt": 1, "original_run_uid": "raw"}
    run = spool.open("server", start)
    run.append("start", start)
    (file,) = spool.folder.glob("*/documents.msgpack")
    with file.open("ab") as written:
        written.write(junk)
    try:
        assert next(iter(run.documents())) == ("start", start)
        list(run.documents())
    except PublishError:
        pass
    finally:
        run.discard()


@pytest.mark.parametrize("junk", [("rm", {}), ("stop", 7), ("start", {}, {}), "stop", {"stop": {}}])
def test_what_is_no_document_in_a_spool_is_never_sent(tmp_path, junk):
    spool = Spool(tmp_path, 1)
    start = {"uid": "u", "derivation": "d", "attempt": 1, "original_run_uid": "raw"}
    run = spool.open("server", start)
    (file,) = spool.folder.glob("*/documents.msgpack")
    file.write_bytes(msgpack.packb(junk))
    with pytest.raises(PublishError, match="expected documents, got something else"):
        list(run.documents())
    run.discard()
