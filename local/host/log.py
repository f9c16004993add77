"""Log to stderr: one line per record, `extra` fields as key=value, then the traceback if any."""

from __future__ import annotations

import json
import logging
import sys
import time

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET = ("azure", "httpx", "httpcore", "uvicorn", "urllib3", "msal", "opentelemetry")


class LineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.gmtime(record.created))
        when = f"{clock}.{int(record.msecs):03d}"
        parts = [when, record.levelname, record.name, record.getMessage().replace("\n", "\\n")]
        parts += [f"{k}={_format_value(v)}" for k, v in vars(record).items() if k not in _STANDARD]
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure_logging(level: str) -> None:
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(LineFormatter())
    logging.basicConfig(level=level.upper(), handlers=[stderr], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _format_value(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and " " not in text else json.dumps(text)
