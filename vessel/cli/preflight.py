"""What has to be there before something is started: a key, a Redis that answers, tiers that exist."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from vessel.cli.faults import BadUse
from vessel.cli.installed import credential_source
from vessel.errors import NoKey
from vessel.keyspace.connect import SyncRunner, connect
from vessel.keyspace.script import command, word
from vessel.registry import suggest
from vessel.upstream.keys import KeySource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.registry import Registry
    from vessel.settings import Settings

NO_KEY = (
    "No Groq key is set, so nothing was started. Put it into GROQ_API_KEY or a file named by GROQ_API_KEY_FILE, or run "
    "`vessel up --sim`, which needs none."
)


def key_source(settings: Settings) -> KeySource:
    """Return where the Groq key comes from. Raises NoKey where there is none to use."""
    key = settings.groq_api_key.get_secret_value() if settings.groq_api_key else None
    source = KeySource(key, settings.groq_api_key_file)
    if source.current() is None:
        if settings.groq_api_key_file:
            file = credential_source(settings.groq_api_key_file)
            raise NoKey(
                f"GROQ_API_KEY_FILE names {file}, which holds no usable key, so nothing was started. Write the key "
                "into it, alone and readable by this user."
            )
        raise NoKey(NO_KEY)
    return source


def check_redis(url: str) -> None:
    """Make sure that Redis answers. Raises RedisUnreachable, RedisRefused."""
    with contextlib.closing(connect(url)) as client:
        SyncRunner(client).run(command("PING", parse=word))


def check_spool(settings: Settings) -> None:
    """Make sure that answers can be kept on disk while Redis is away. Raises SpoolUnwritable."""
    from vessel.execute.persist import Spool  # not for what starts no worker

    Spool(settings.data_dir / "spool").probe()


def split_tiers(text: str, registry: Registry, *, option: str) -> tuple[str, ...]:
    """Read `a,b` as tiers. Raises BadUse for an unknown, repeated or missing name."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise BadUse(f"{option}: name at least one tier: {', '.join(registry.tiers)}.", param=option)
    check_tiers(names, registry, option=option)
    return tuple(names)


def check_tiers(names: Sequence[str], registry: Registry, *, option: str) -> None:
    """Make sure that tiers exist and each is named once. Raises BadUse."""
    for name in names:
        if name not in registry.tiers:
            hint = suggest(name, registry.tiers) or f" There are: {', '.join(registry.tiers)}."
            raise BadUse(f"{option}: there is no tier {name!r}.{hint} Nothing was started.", param=option)
        if names.count(name) > 1:
            raise BadUse(f"{option}: tier {name} is named twice. Nothing was started.", param=option)
