"""The REST face as this process."""

from __future__ import annotations

import logging
import os
import signal

from vessel.api.serve import serve
from vessel.cli.faults import INTERRUPTED
from vessel.cli.output import emit, say
from vessel.observe.logs import configure_logs
from vessel.settings import load_settings


def serve_rest(host: str | None, port: int | None, *, as_json: bool) -> int:
    """Serve until a signal. Raises SettingsError, NoRedis and Unreachable before anything is served."""
    settings = load_settings(api_host=host, api_port=port)
    configure_logs("json" if as_json else settings.log_format, settings.log_level)
    logging.getLogger("mcp").setLevel(logging.WARNING)  # it tells of every session, with its id, which opens it

    def started(url: str) -> None:
        if as_json:
            emit({"event": "listening", "url": url, "pid": os.getpid()})
        else:
            say(f"Vessel's API on {url}/v1 (openai SDK) and {url} (groq SDK); the console is {url}/")

    asked = serve(settings, started)
    if as_json:
        emit({"event": "stopped", "signal": asked.name})
    return INTERRUPTED if asked is signal.SIGINT else 0
