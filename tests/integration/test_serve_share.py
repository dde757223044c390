"""Two servers share the runs of one proxy and one Tiled: each run is worked off exactly once."""

import os
import signal

from processes import TESTS, light_profile, peers, until
from test_serve_zmq import PROXY, ports  # noqa: F401

from tomogan_bluesky.publish.catalog import derived_runs
from tomogan_bluesky.serving.server import Share


def test_each_run_is_worked_off_once(catalog, client, ports, tmp_path):  # noqa: F811
    """Live from the proxy; and, when that is dead, by watching Tiled."""
    into, out, _ = ports
    env = {**os.environ, "TILED_API_KEY": catalog.api_key, "OMP_NUM_THREADS": "1"}
    logs = [tmp_path / f"server {n}.log" for n in (1, 2)]
    with peers() as start:
        proxy = start("-c", PROXY, into, out)
        proxy.hear()
        servers = [
            start(
                *("-m", "tomogan_bluesky", "-v", "serve", "--zmq", out, "--tiled", catalog.uri),
                *("--profile", light_profile(tmp_path), "--since-hours", "0"),
                *("--json", "--share", f"{n}/2"),
                env=env,
                log=log,
            )
            for n, log in enumerate(logs, 1)
        ]
        beamline = start(
            *(TESTS / "beamline_process.py", "--tiled", catalog.uri, "--zmq", f"127.0.0.1:{into}"),
            env=env,
        )
        beamline.hear()
        for log in logs:
            until(lambda log=log: log.read_text().count(": connected") == 2)

        def scans():
            """At least one for each server."""
            uids = []
            while len({Share(1, 2).has(uid) for uid in uids}) < 2:
                beamline.tell("scan 9")
                uids.append(beamline.hear())
            return uids

        def check(uids):
            for n, server in enumerate(servers, 1):
                ours = {uid for uid in uids if Share(n, 2).has(uid)}
                reports = [server.hear_json() for _ in ours]
                # From Tiled they may come in another order than they were taken in.
                assert {report["raw_uid"] for report in reports} == ours
                assert {report["exit_status"] for report in reports} == {"success"}
                assert not any(report["already_done"] for report in reports)

        live = scans()
        check(live)
        proxy.kill()
        archived = scans()
        check(archived)
        for server in servers:
            assert server.end(signal.SIGTERM) == 0
            assert server.process.stdout.read() == ""  # nothing was done a second time
    for uid in live + archived:
        assert len(derived_runs(client, {"uid": uid})) == 1
    assert not any("Traceback" in log.read_text() for log in logs)
