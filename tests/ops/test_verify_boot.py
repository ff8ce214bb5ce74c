"""The boot verification in a booted Debian: green, and red for what somebody meets at night, each with its cure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.ops.booted import FIRST, KEY_FILE, Booted, missing
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(missing()), reason=missing() or "can boot")]
SCRIPT = "/opt/vessel/ops/verify_boot.sh"
DROP_IN = "/run/systemd/system/vessel-check.service.d"
REDIS_CONF = "/etc/vessel/redis/redis.conf"


@dataclass(frozen=True)
class Cause:
    """What is broken, what the script ends with, and what it says to do, which is what `heal` does."""

    name: str
    code: str
    exit_code: int
    """Of the script; `vessel check` has 3 where something is unreachable or missing, else 1."""
    says: str
    cure: str
    broken: str
    heal: str
    also: str = ""
    """What else the text tells."""


def _redis_says(line: str) -> str:
    return f"sed -i '$ a {line}' {REDIS_CONF} && systemctl restart vessel-redis"


def _stopped(name: str, code: str, exit_code: int, says: str, unit: str) -> Cause:
    return Cause(
        name, code, exit_code, says, f"`systemctl start {unit}`", f"systemctl stop {unit}", f"systemctl start {unit}",
        f"{unit} is stopped",
    )  # fmt: skip


CAUSES = (
    Cause("no key", "key_missing", 10, f"{KEY_FILE} (GROQ_API_KEY_FILE) holds no usable key",
          f"write the key into {KEY_FILE}, as root", f": > {KEY_FILE}", f"echo {FIRST} > {KEY_FILE}"),
    Cause("wrong key", "key_refused", 11, "Groq answers, but refuses the key (unauthorized, HTTP 401)",
          f"make a new key at https://console.groq.com/keys and write it into {KEY_FILE}",
          f"echo gsk_that_was_deleted > {KEY_FILE}", f"echo {FIRST} > {KEY_FILE}"),
    Cause("Groq away", "groq_unreachable", 12, "gave no list of models (connect_failed)",
          "check the network and proxies with `curl -I http://127.0.0.1:8090`", "systemctl stop sim",
          "systemctl start sim"),
    _stopped("Redis stopped", "redis_unreachable", 13, "it cannot be reached: nothing is accepted or served",
             "vessel-redis"),
    Cause("Redis forgets", "redis_not_persistent", 14, "the append-only file is off",
          f"let {REDIS_CONF} say `appendonly yes`, then `systemctl restart vessel-redis`", _redis_says("appendonly no"),
          f"sed -i '/^appendonly no/d' {REDIS_CONF} && systemctl restart vessel-redis"),
    Cause("Redis evicts", "redis_evicts", 14, "it throws jobs away when memory is full (allkeys-lru)",
          f"let {REDIS_CONF} say `maxmemory-policy noeviction`", _redis_says("maxmemory-policy allkeys-lru"),
          f"sed -i '/^maxmemory-policy/d' {REDIS_CONF} && systemctl restart vessel-redis"),
    _stopped("worker stopped", "worker_missing", 15, "none is alive for balanced, power: their jobs wait",
             "vessel-worker@power"),
    Cause("worker with a wrong setting", "worker_missing", 15, "none is alive for balanced, power",
          "`journalctl -u vessel-worker@power -n 30` says why; then `systemctl restart vessel-worker@power`",
          "echo VESSEL_LEASE=soon >> /etc/vessel/workers/power.env; systemctl restart vessel-worker@power || true",
          "sed -i /VESSEL_LEASE/d /etc/vessel/workers/power.env && systemctl restart vessel-worker@power",
          "vessel-worker@power has failed (exit code 2)"),
    _stopped("API stopped", "api_down", 17, "http://127.0.0.1:8080/health: nothing listens there", "vessel-api"),
    _stopped("MCP stopped", "mcp_down", 18, "http://127.0.0.1:8081/mcp: nothing listens there", "vessel-mcp"),
    Cause("Flower stuck", "flower_unhealthy", 18, "http://127.0.0.1:5555/: no answer within 5 s",
          "`systemctl restart vessel-flower` starts it anew", "systemctl kill --kill-who=main -s STOP vessel-flower",
          "systemctl kill --kill-who=main -s KILL vessel-flower"),
    Cause("forgotten maintenance", "maintenance_on", 19, "on for everything: jobs are accepted and held",
          "`vessel-service maintenance off` ends it", "vessel-service maintenance on --reason 'a disk is changed'",
          "vessel-service maintenance off"),
    Cause("Groq takes no call", "inference_failed", 20, "failed (bad_request): Groq refused the request (HTTP 400)",
          "`vessel-service limits` what holds calls back, `vessel-service doctor` what else is wrong", "", ""),
    _stopped("scheduler stopped", "service_inactive", 21, "vessel-scheduler is stopped", "vessel-scheduler"),
)  # fmt: skip


@pytest.fixture(scope="module")
def impatient(machine: Booted) -> Iterator[Booted]:
    """Let the unit give up after a second instead of two minutes."""
    command = re.search(r"^ExecStart=(.*)$", machine.run("systemctl", "cat", "vessel-check"), re.MULTILINE)
    assert command
    assert command[1].endswith("check --boot --expect units")
    lines = f"[Service]\\nExecStart=\\nExecStart={command[1]} --deadline 1\\n"
    machine.sh(f"mkdir -p {DROP_IN} && printf '{lines}' > {DROP_IN}/soon.conf && systemctl daemon-reload")
    yield machine
    machine.sh(f"rm -r {DROP_IN} && systemctl daemon-reload && systemctl restart vessel-check")


def _status(machine: Booted) -> tuple[str, str]:
    """Run the unit; give how it ended and its status line."""
    machine.attempt("systemctl", "restart", "vessel-check")
    return machine.show("vessel-check", "ActiveState"), machine.show("vessel-check", "StatusText")


def _document(machine: Booted, *options: str) -> tuple[int, dict[str, Any]]:
    done = machine.attempt("vessel-service", "check", "--boot", "--json", *options)
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found


def _is_green(machine: Booted) -> str:
    done = machine.attempt(SCRIPT, "--deadline", "60")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_green_with_counted_numbers(machine: Booted) -> None:
    """The seed's message; its numbers are those of the list that the upstream gives and of what answers here."""
    listed = {model["id"] for model in machine.simulator("/openai/v1/models")["data"]}
    shown = _is_green(machine)
    assert "✗" not in shown
    message = shown[shown.index("🔥 GROQ HOT VESSEL ONLINE") :].splitlines()
    total, *shelves = map(int, re.findall(r"\d+", message[2]))
    assert (message[1], total, sum(shelves)) == ("   Status: Ready", len(listed), len(listed))
    assert message[4:] == [
        "   Integration: MCP + REST API", "   Health: http://127.0.0.1:8080/health", "   Trinity Access: Enabled",
    ]  # fmt: skip
    assert re.search(r"every tier is served \(6\), by 3 processes with 500 slots", shown)
    assert re.search(r"✓ Services +9 units active", shown)
    code, document = _document(machine)
    assert (code, document["ready"], document["failed"]) == (0, True, [])
    assert (document["models"]["total"], document["integration"]) == (total, ["api", "flower", "mcp"])
    job = machine.vessel("job", document["test_call"]["job_id"])[0]
    assert (job["state"], job["model"]) == ("succeeded", document["test_call"]["model"])


def test_the_boot_ran_it_last_and_its_verdict_stands_in_status_and_log(impatient: Booted) -> None:
    """After everything else, without holding up the target; it is not restarted, and its end is kept."""
    shown = impatient.run("systemctl", "show", "vessel-check", "-p", "After,Restart,Type")
    assert re.search(r"^After=.*\bvessel\.target\b", shown, re.MULTILINE)
    assert "Restart=no" in shown
    state, status = _status(impatient)
    assert state == "active"
    assert re.match(r"Status: Ready; Models: \d+ available \(.*\); Max Speed: \d+ tokens/sec", status)
    journal = impatient.run("journalctl", "-u", "vessel-check", "-o", "cat", "--no-pager")
    ready = [json.loads(line) for line in journal.splitlines() if '"vessel.ready"' in line]
    assert ready[-1]["readiness"] == status


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name.replace(" ", "_"))
def test_each_cause_is_named_with_its_cure(impatient: Booted, cause: Cause) -> None:
    """Text, exit codes, document and the unit's status name it; doing what is said makes it green again."""
    try:
        if cause.broken:
            impatient.sh(cause.broken)
        else:
            impatient.simulator("/_sim/faults", {"kind": "status", "status": 400}, method="POST")
        told = impatient.attempt(SCRIPT, "--deadline", "1")
        assert told.returncode == cause.exit_code, told.stdout + told.stderr
        assert f"❌ GROQ HOT VESSEL NOT READY: {cause.code}" in told.stdout
        assert "ONLINE" not in told.stdout
        assert cause.also in told.stdout
        code, document = _document(impatient, "--deadline", "0")
        assert code == (3 if cause.exit_code in {10, 12, 13} else 1)
        assert document["ready"] is False
        assert document["failed"][0] == cause.code
        step = next(step for step in document["steps"] if step["code"] == cause.code)
        assert cause.says in step["message"]
        assert cause.cure in step["cure"]
        assert cause.cure in told.stdout
        state, status = _status(impatient)
        assert state == "failed"
        assert status.startswith("Not ready: ")
        assert cause.says in status
        # The rest of the machine came up all the same.
        assert impatient.show("vessel.target", "ActiveState") == "active"
    finally:
        if cause.heal:
            impatient.sh(cause.heal)
        else:
            impatient.simulator("/_sim/faults", method="DELETE")
    _is_green(impatient)


def test_a_boot_without_a_key_is_told_and_ends_when_there_is_one(impatient: Booted) -> None:
    """No file at all: services say what is missing and where it belongs; with the key they come up by themselves."""
    impatient.sh(f"systemctl stop vessel.target && rm {KEY_FILE} && systemctl start vessel.target")
    wait_until(lambda: impatient.show("vessel-check", "ActiveState") == "failed", 60)
    assert "key" in impatient.show("vessel-check", "StatusText")
    shown = impatient.attempt(SCRIPT, "--deadline", "0").stdout
    assert re.search(r"vessel-worker@power (keeps ending|has ended) \(exit code 3|is still starting", shown), shown
    said = impatient.run("journalctl", "-u", "vessel-worker@power", "-n", "20", "-o", "cat", "--no-pager")
    assert f"GROQ_API_KEY_FILE names {KEY_FILE}, which holds no usable key" in said
    impatient.sh(f"umask 077; echo {FIRST} > {KEY_FILE}")
    _is_green(impatient)


def test_only_root_looks(machine: Booted) -> None:
    """Others are told so instead of hearing that there is no key."""
    done = machine.attempt("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", SCRIPT)
    assert (done.returncode, done.stdout) == (3, "")
    assert "Only root reads" in done.stderr
    assert "sudo" in done.stderr
