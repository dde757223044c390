"""The catalog in a folder: how its server starts, is shared, ends, and whom it lets in."""

import json
import signal
import socket
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import event_model
import h5py
import httpx
import numpy as np
import pyarrow as pa
import pytest
import stamina
from processes import free_ports
from tiled.client import from_uri

from tomogan_bluesky.cli import main
from tomogan_bluesky.errors import ConfigurationError, PublishError
from tomogan_bluesky.publish.server import array_address, serve_catalog
from tomogan_bluesky.publish.tiled_publisher import TiledPublisher


def publish_raw(client):
    run = event_model.compose_run(metadata={"plan_name": "tomo_scan"})
    publish = TiledPublisher(client)
    publish("start", run.start_doc)
    publish("stop", run.compose_stop())
    return run.start_doc["uid"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A catalog that was served and is not any more; making one takes Tiled seconds."""
    folder = tmp_path_factory.mktemp("catalog")
    with serve_catalog(folder) as server:
        (folder / "uid").write_text(publish_raw(server.client()))
    return folder


def test_a_catalog_survives_its_server(folder):
    uid = (folder / "uid").read_text()
    # What a process that was killed leaves behind; nobody holds the lock.
    (folder / "server.json").write_text(json.dumps({"uri": "http://127.0.0.1:9", "pid": 1}))
    with serve_catalog(folder) as server:
        assert server.is_ours
        assert "tomogan-catalog" in {thread.name for thread in threading.enumerate()}
        told = json.loads((folder / "server.json").read_text())
        assert told["uri"] == server.uri
        assert server.client()[uid].metadata["stop"]["exit_status"] == "success"
        with serve_catalog(folder) as found:  # as any other process would find it
            assert not found.is_ours
            assert found.uri == server.uri
        assert uid in server.client()
    assert not (folder / "server.json").exists()
    assert "tomogan-catalog" not in {thread.name for thread in threading.enumerate()}


def test_only_the_owner_reads_the_key(folder):
    assert stat.S_IMODE((folder / "api_key").stat().st_mode) == 0o600
    with serve_catalog(folder) as server:
        assert server.api_key not in server.uri
        assert server.api_key not in (folder / "server.json").read_text()
    (folder / "api_key").write_text("")  # of a process that was killed while it made the key
    with serve_catalog(folder) as server:
        assert len(server.api_key) == 64
        publish_raw(server.client())


def test_everybody_reads_and_nobody_writes_without_the_key(catalog):
    assert httpx.get(f"{catalog.uri}/api/v1/metadata/").status_code == 200
    for path, body in {
        "/api/v1/metadata/": {"structure_family": "container", "metadata": {}, "data_sources": []},
        "/custom/readable": {"folder": "/"},
    }.items():
        assert httpx.post(catalog.uri + path, json=body).status_code == 401, path


def test_reading_may_need_the_key(folder):
    with serve_catalog(folder, anonymous=False) as server:
        assert httpx.get(f"{server.uri}/api/v1/metadata/").status_code == 401
        assert (folder / "uid").read_text() in server.client()


def test_a_folder_made_readable_by_another_process_is_remembered(folder, tmp_path):
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["frames"] = np.arange(24, dtype="f4").reshape(2, 3, 4)
    with serve_catalog(folder) as server:
        with serve_catalog(folder, readable=[tmp_path]) as found:
            assert not found.is_ours
        uid = register(server.client(), tmp_path / "raw.h5")
        assert server.client()[uid]["primary"]["image"].read().sum() == 276
    with serve_catalog(folder) as server:
        assert server.client()[uid]["primary"]["image"].read().sum() == 276


def register(client, path):
    """A raw run whose frames are in a file."""
    run = event_model.compose_run()
    key = {"source": "", "dtype": "array", "dtype_numpy": "<f4", "shape": [3, 4]}
    stream = run.compose_descriptor(
        name="primary", data_keys={"image": {**key, "external": "STREAM:"}}
    )
    resource = run.compose_stream_resource(
        mimetype="application/x-hdf5",
        uri=f"file://localhost{path}",
        data_key="image",
        parameters={"dataset": "frames", "swmr": False},
    )
    datum = resource.compose_stream_datum(
        indices={"start": 0, "stop": 2},
        seq_nums={"start": 1, "stop": 3},
        descriptor=stream.descriptor_doc,
    )
    publish = TiledPublisher(client)
    publish("start", run.start_doc)
    publish("descriptor", stream.descriptor_doc)
    publish("stream_resource", resource.stream_resource_doc)
    publish("stream_datum", datum)
    publish("stop", run.compose_stop())
    return run.start_doc["uid"]


def test_only_folders_can_be_made_readable(catalog, tmp_path):
    with pytest.raises(PublishError, match="expected the absolute path of a folder, got .*nothing"):
        catalog.make_readable(tmp_path / "nothing")


def test_a_port_that_is_taken_is_told(folder):
    (port,) = free_ports(1)
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with (
            pytest.raises(PublishError, match=f"127.0.0.1:{port}, got: Address already in use"),
            serve_catalog(folder, port=port),
        ):
            pass
    with serve_catalog(folder, port=port) as server:
        assert server.uri == f"http://127.0.0.1:{port}"


def test_a_folder_that_can_be_no_catalog_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(PublishError, match="expected a folder for a catalog"),
        serve_catalog(tmp_path / "file"),
    ):
        pass
    with pytest.raises(ConfigurationError, match="got #"), serve_catalog(tmp_path / "#1"):
        pass


def test_a_server_that_goes_down_in_mid_run_is_told(folder):
    run = event_model.compose_run()
    with serve_catalog(folder) as server:
        client = from_uri(server.uri, api_key=server.api_key)
        publish = TiledPublisher(client)
        publish("start", run.start_doc)
    with (
        stamina.set_testing(True, attempts=1),  # Tiled's client would try for 45 s
        pytest.raises(PublishError, match=r"'stop' document.*see that the server runs"),
    ):
        publish("stop", run.compose_stop())
    client.context.close()


def test_the_address_of_an_array_is_a_page(catalog):
    address = array_address(catalog.uri, "uid", "denoised")
    assert address == f"{catalog.uri}/ui/browse/uid/primary/denoised"
    assert array_address(f"{catalog.uri}/api/v1/", "uid", "denoised") == address
    page = httpx.get(address)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")


def test_the_command_serves_until_ctrl_c(folder, capsys):
    process = subprocess.Popen(
        [sys.executable, "-m", "tomogan_bluesky", "serve-catalog", str(folder), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        told = json.loads(process.stdout.readline())
        assert httpx.get(f"{told['uri']}/healthz").status_code == 200
        with serve_catalog(folder) as server:
            assert server.uri == told["uri"]
        assert main(["serve-catalog", str(folder)]) == 1
        assert f"serves it already, at {told['uri']}" in capsys.readouterr().err
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
        assert "Traceback" not in process.stderr.read()


def test_requests_at_the_same_time_do_not_find_the_tables_locked(catalog):
    table = pa.table({"a": [1.0, 2.0]})

    def write_and_read(client):
        stored = client.create_appendable_table(schema=table.schema)
        for _ in range(8):
            stored.append_partition(0, table)
            rows = stored.read()
        stored.delete(external_only=False)
        return len(rows)

    with ThreadPoolExecutor(8) as threads:
        clients = [catalog.client() for _ in range(8)]
        assert set(threads.map(write_and_read, clients)) == {16}
