"""Log records as JSON."""

import json
import logging

from tomogan_bluesky.logs import JsonFormatter


def line(message, *args, **options):
    record = logging.LogRecord("tomogan_bluesky.x", logging.ERROR, "x.py", 1, message, args, None)
    for name, value in options.items():
        setattr(record, name, value)
    return json.loads(JsonFormatter().format(record))


def test_a_line_about_a_run_names_it():
    found = line("run %s: %s", "3f2a", 'intake: "no\nangles"')
    assert found["raw_uid"] == "3f2a"
    assert found["message"] == 'run 3f2a: intake: "no\nangles"'
    assert (found["level"], found["logger"]) == ("ERROR", "tomogan_bluesky.x")
    assert found["time"].endswith("+00:00")


def test_other_lines_name_none_and_errors_have_their_traceback():
    assert "raw_uid" not in line("connected")
    try:
        raise ValueError("seven")
    except ValueError as error:
        info = (ValueError, error, error.__traceback__)
    assert "ValueError: seven" in line("failed", exc_info=info)["exception"]
