"""Keys rotate without a restart, by real workers against the simulator: another key steps in, or jobs wait for one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bench.stack import Stack
from tests.waiting import wait_until
from vessel.client import GroqClient
from vessel.watch.waiting import Why

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OLD, SPARE, NEW = "gsk_old00000", "gsk_spare000", "gsk_new00000"


class Rotating(Stack):
    """A stack whose workers read their keys from a file."""

    @property
    def key_file(self) -> Path:
        """The file."""
        return self.folder / "groq.key"

    def variables(self) -> dict[str, str]:
        """Name the file, and no key."""
        return {name: value for name, value in super().variables().items() if name != "GROQ_API_KEY"} | {
            "GROQ_API_KEY_FILE": str(self.key_file)
        }

    def write(self, *keys: str) -> None:
        """Put keys into the file at once, as an operator's editor does."""
        new = self.key_file.with_suffix(".new")
        new.write_text("# keys of this organisation\n" + "".join(f"{key}\n" for key in keys))
        new.chmod(0o600)
        new.replace(self.key_file)

    def at_groq(self, **change: list[str]) -> None:
        """Revoke or add keys at the simulator."""
        self.ask("/_sim/keys", change)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotating]:
    """Give a worker with two keys."""
    keys = ("--key", OLD, "--key", SPARE)
    with Rotating(tmp_path_factory.mktemp("rotation"), simulator=("--latency-scale", "0", *keys)) as started:
        started.write(OLD, SPARE)
        started.start_worker()
        yield started


@pytest.mark.system
def test_keys_rotate_without_a_restart(stack: Rotating) -> None:
    """A revoked key is stood in for at once; without a good one jobs wait, told why, and go on with the next one."""
    with GroqClient(settings=stack.settings()) as client:
        assert [client.query(f"Before {n}").text for n in range(3)]
        stack.at_groq(revoke=[OLD])
        answered = [client.query(f"With the spare {n}") for n in range(5)]
        assert [len(result.attempts) for result in answered] == [1] * 5, "a refused key costs no attempt"
        stack.at_groq(revoke=[SPARE])
        held = [client.submit(f"Without a key {n}") for n in range(20)]
        wait_until(lambda: _gate(client) == ("open", "unauthorized"))
        waits = wait_until(lambda: [one for h in held if (one := h.waiting()) and one.why is Why.OUTAGE])
        assert "unauthorized" in json.dumps([str(one) for one in waits])
        assert not [h for h in held if client.state(h.id) in {"failed", "succeeded"}]
        stack.at_groq(add=[NEW])
        stack.write(NEW)
        results = [h.result(timeout=30) for h in held]
    assert all(result.text for result in results)
    assert stack.workers[0].poll() is None
    log = stack.log("worker1")
    assert '"key.refused"' in log
    assert not [key for key in (OLD, SPARE, NEW) if key in log], "no key is logged"


def _gate(client: GroqClient) -> Any:
    provider = client.limits()[0].view.provider
    return provider.state, provider.why
