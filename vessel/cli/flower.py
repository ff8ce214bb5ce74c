"""Flower as this process, and whether it may be started."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, NoReturn

from vessel.cli.faults import BadUse
from vessel.cli.launch import child_environment, flower_command, without_keys
from vessel.cli.output import emit, say
from vessel.cli.preflight import check_redis
from vessel.errors import Unreachable
from vessel.observe.logins import read_logins
from vessel.settings import load_settings
from vessel.submit import redis_url

if TYPE_CHECKING:
    from pathlib import Path

    from vessel.settings import Settings


def become_flower(
    host: str | None, port: int | None, auth_file: Path | None, *, control: bool, as_json: bool
) -> NoReturn:
    """Turn this process into Flower.

    Raises SettingsError, BadUse, NoRedis, RedisUnreachable, and Unreachable when the address is taken, before that.
    """
    settings = load_settings(flower_host=host, flower_port=port, flower_auth_file=auth_file)
    logins = read_logins(settings.flower_auth_file)
    if control and not logins:
        raise BadUse(
            "--control: anybody who reaches Flower could end your workers, so it needs a login. Name a file with "
            "user:password by --auth-file or VESSEL_FLOWER_AUTH_FILE. Nothing was started.",
            param="--control",
        )
    redis = redis_url(settings)
    check_redis(redis)
    check_address(settings)
    command, url = flower_command(control=control), flower_url(settings)
    if as_json:
        emit({"event": "starting", "url": url, "login": bool(logins), "control": control, "pid": os.getpid()})
    else:
        say(f"Flower on {url}{'' if logins else ', without a login: for this machine only'}")
    chosen = {"VESSEL_FLOWER_HOST": settings.flower_host, "VESSEL_FLOWER_PORT": str(settings.flower_port)}
    if settings.flower_auth_file:
        chosen["VESSEL_FLOWER_AUTH_FILE"] = str(settings.flower_auth_file.absolute())
    base = {**os.environ, **chosen} | ({"VESSEL_LOG_FORMAT": "json"} if as_json else {})
    os.execve(command[0], command, without_keys(child_environment(redis, base=base)))  # noqa: S606  our own command


def flower_url(settings: Settings) -> str:
    """Return where Flower is."""
    host = settings.flower_host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.flower_port}"


def check_address(settings: Settings) -> None:
    """Make sure that Flower may listen there. Raises Unreachable."""
    host, port = settings.flower_host, settings.flower_port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with contextlib.closing(socket.socket(family, kind, protocol)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        why = error.strerror or type(error).__name__
        text = f"Flower cannot listen on {host}:{port}: {why}. Choose another VESSEL_FLOWER_PORT or --port."
        raise Unreachable(text) from None
