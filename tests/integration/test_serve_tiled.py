"""`serve` from Tiled: RunEngine, server and Tiled in a process each; both latter are killed."""

import os
import signal

from processes import TESTS, free_ports, light_profile, peers, until


def test_a_server_and_tiled_that_are_killed_in_mid_scan(tmp_path):
    (port,) = free_ports(1)
    folder, log, uri = tmp_path / "catalog", tmp_path / "server.log", f"http://127.0.0.1:{port}"
    folder.mkdir()
    key = "f" * 64
    (folder / "api_key").write_text(key)
    env = {**os.environ, "TILED_API_KEY": key, "OMP_NUM_THREADS": "1"}
    package = ("-m", "tomogan_bluesky", "-v")
    with peers() as start:

        def tiled():
            peer = start(*package, "serve-catalog", folder, "--port", port, "--json")
            peer.hear()
            return peer

        def server():
            return start(
                *(
                    *package,
                    "serve",
                    "--tiled",
                    uri,
                    "--profile",
                    light_profile(tmp_path),
                    "--json",
                ),
                env=env,
                log=log,
            )

        catalog = tiled()
        beamline = start(TESTS / "beamline_process.py", "--tiled", uri, env=env)
        beamline.hear()
        beamline.tell("scan 9")
        first = beamline.hear()

        serving = server()  # what was there before it
        report = serving.hear_json()
        assert (report["raw_uid"], report["exit_status"]) == (first, "success"), report["reason"]

        beamline.tell("scan 9 hold")
        assert beamline.hear() == "held"
        catalog.kill()
        until(lambda: "the connection is lost" in log.read_text())
        tiled()
        until(lambda: log.read_text().count(": connected") == 2)
        beamline.tell("go on")
        second = beamline.hear()
        report = serving.hear_json()
        assert (report["raw_uid"], report["exit_status"]) == (second, "success"), report["reason"]

        beamline.tell("scan 9 hold")
        assert beamline.hear() == "held"
        serving.kill()
        beamline.tell("go on")
        third = beamline.hear()
        serving = server()
        reports = [serving.hear_json() for _ in range(3)]
        assert [report["raw_uid"] for report in reports] == [first, second, third]
        assert [report["already_done"] for report in reports] == [True, True, False]
        assert serving.end(signal.SIGTERM) == 0
    assert "Traceback" not in log.read_text()
    assert key not in log.read_text()
