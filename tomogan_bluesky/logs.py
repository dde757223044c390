"""Log records for those who read them: as lines of JSON for programs, nothing twice for people.

Enter: log records. Leave: one JSON object a line, with the uid of the raw run that it is about; or
the records that no report repeats.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Any

# How every line about a raw run begins, in all modules.
_ABOUT_RUN = "run %s:"


_OF_REPORTS = f"{__package__}.report"


def without_reports(record: logging.LogRecord) -> bool:
    """Filter that holds back what the report of a run says, for a program that prints reports."""
    return record.name != _OF_REPORTS


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON.

    The keys are ``time`` (ISO 8601, UTC), ``level``, ``logger``, ``message``; ``raw_uid`` in lines
    about a run; and ``exception``, a traceback, where there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if str(record.msg).startswith(_ABOUT_RUN) and isinstance(record.args, tuple):
            line["raw_uid"] = str(record.args[0])
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
