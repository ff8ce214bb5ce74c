"""What importing and making a client does not do."""

from __future__ import annotations

import subprocess
import sys

import groq_vessel
import pytest

from vessel import client
from vessel.client import GroqClient, GroqCompound
from vessel.errors import NoRedis, SettingsError
from vessel.settings import Settings

HEAVY = ("groq", "openai", "fastapi", "uvicorn", "mcp", "typer", "rich", "celery", "kombu", "limits", "redis")


def test_the_import_pulls_in_nothing_heavy() -> None:
    """A producer imports no SDK, no web framework and no Celery, and opens Redis' client only when first used."""
    program = f"import sys, groq_vessel; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run((sys.executable, "-c", program), check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


def test_the_public_names_are_those_of_the_client() -> None:
    """`groq_vessel` gives the same names, each of them importable."""
    assert groq_vessel.__all__ == client.__all__
    assert all(getattr(groq_vessel, name) is getattr(client, name) for name in client.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The lazy import does not hide a slip."""
    with pytest.raises(AttributeError, match="GroqClent"):
        _ = groq_vessel.GroqClent


def test_making_a_client_sends_nothing_and_its_first_use_says_what_is_missing(tmp_path: object) -> None:
    """Without a Redis the client can be made; the first call says how to name one."""
    made = GroqClient(data_dir=tmp_path)
    with pytest.raises(NoRedis, match="VESSEL_REDIS_URL"):
        made.query("hi")
    with pytest.raises(NoRedis):
        made.submit("hi")
    made.close()


def test_a_route_needs_no_redis(tmp_path: object) -> None:
    """A request is routed by the registry's dates where Redis cannot be asked, and the plan says so."""
    made = GroqClient(data_dir=tmp_path)
    plan = made.route("hi", tier="power", max_completion_tokens=1000)
    assert (plan.tier, plan.as_listed, plan.live_workers) == ("power", False, None)
    assert 0 < plan.typical_cost_usd < plan.worst_cost_usd
    assert {tier.name: tier.live_workers for tier in made.tiers()}["power"] is None
    assert any(info.served for info in made.models())


def test_bad_settings_are_told_at_once() -> None:
    """Values by name are checked as the environment is."""
    with pytest.raises(SettingsError, match="VESSEL_NAMESPACE"):
        GroqClient(namespace="no spaces")
    with pytest.raises(TypeError):
        GroqClient("redis://localhost", settings=Settings())
    with pytest.raises(TypeError):
        GroqCompound("redis://localhost", client=GroqClient("redis://localhost"))


def test_a_client_shows_neither_address_nor_password() -> None:
    """A client may be logged."""
    assert "secret" not in repr(GroqClient("redis://:secret@localhost/0"))
