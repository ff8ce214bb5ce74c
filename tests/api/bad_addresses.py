"""The rows of `bad_inputs` go on here: policies, routes, addresses, ids, queries, media types and sizes."""

from __future__ import annotations

from typing import Any

from tests.api.bad_inputs import CHAT, GOOD, JOBS, JSON, NO_OBJECTS, Bad, chat, field_, policies, policy

POLICIES = [
    *(field_("vessel", value) for value in NO_OBJECTS),
    chat("vessel.unknown", GOOD | {"vessel": {"tear": "power"}}, "vessel.tear"),
    *policies(
        "tier",
        (
            1,
            [],
            "x" * 100,
        ),
    ),
    policy("tier", "powr", statuses=(404,)),
    *policies(
        "priority",
        (
            11,
            "high",
            None,
        ),
    ),
    *policies(
        "deadline",
        (
            0,
            -1,
            "yesterday",
            "0s",
            True,
            [],
            "400d",
            1e300,
        ),
    ),
    *policies(
        "max_wait",
        (
            0,
            "x",
            False,
        ),
    ),
    *policies(
        "max_attempts",
        (
            0,
            999,
            "5",
            1.5,
            True,
        ),
    ),
    *policies(
        "max_cost_usd",
        (
            0,
            -1,
            "x",
            "1e999999",
            1e300,
        ),
    ),
    *policies(
        "on_outage",
        (
            "panic",
            1,
        ),
    ),
    *policies(
        "fallback",
        (
            "all",
            1,
            [1],
            [""],
        ),
    ),
    *policies(
        "speed_priority",
        (
            "warp",
            9,
        ),
    ),
    *policies(
        "task_type",
        (
            "poetry",
            1,
        ),
    ),
    *policies(
        "context",
        (
            "x",
            [],
            1,
        ),
    ),
    *policies(
        "builtin_tools",
        (
            "web_search",
            ["rm"],
            1,
        ),
    ),
    *policies(
        "idempotency_key",
        (
            "",
            "x" * 256,
            "a\nb",
            1,
            "é",
        ),
    ),
    *policies(
        "webhook",
        (
            "x" * 5000,
            1,
            [],
            "",
            "x",
            "file:///etc/passwd",
            "gopher://example.com/",
            "http://169.254.169.254/",
            "http://0x7f000001/",
            "http://[::ffff:127.0.0.1]/",
            "http://user:pass@example.com/",
            "http://example.com:22/",
            "http://example.com\\@127.0.0.1/",
            "http://127.0.0.1%2f@example.com/",
        ),
    ),
    *policies(
        "tags",
        (
            [],
            "x",
            {"a": 1},
            {"a": {}},
            {"k" * 65: "v"},
            {"k": "v" * 513},
        ),
    ),
    chat("17 tags", GOOD | {"vessel": {"tags": {str(i): "x" for i in range(17)}}}, "vessel.tags"),
]

ROUTING = [
    chat("unknown model", GOOD | {"model": "gpt-9"}, "model", statuses=(404,)),
    chat("model of a key", GOOD | {"model": "job:*"}, "model", statuses=(404,)),
    chat("model with NUL", GOOD | {"model": "a\x00b"}, "model", statuses=(404,)),
    chat("model of speech", GOOD | {"model": "whisper-large-v3"}, "model"),
    chat("longer than the window", GOOD | {"messages": [{"role": "user", "content": "word " * 400_000}]}),
    chat("a chain of unknown models", GOOD | {"vessel": {"fallback": ["gpt-9"]}}, statuses=(400, 404)),
    chat("a cap too small", GOOD | {"vessel": {"max_cost_usd": "0.000000001"}}, "vessel.max_cost_usd"),
]

MEDIA = [
    Bad(f"media {kind or 'none'}", "POST", path, GOOD, {"content-type": kind} if kind else {}, (415,))
    for path in (CHAT, JOBS)
    for kind in ("text/plain", "", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded",
                 "application/jsonx", "text/json", "*/*")
]  # fmt: skip
MEDIA += [
    chat(f"encoding {name}", GOOD, headers={"content-encoding": name}, statuses=(415,))
    for name in ("gzip", "br", "deflate", "zstd", "gzip, gzip")
]
MEDIA += [Bad("maintenance as text", "PUT", "/v1/maintenance", {}, {"content-type": "text/plain"}, (415,))]

HEADERS = [
    chat(f"key {name}", GOOD, headers={"Idempotency-Key": value})
    for name, value in {"empty": "", "of 256": "x" * 256, "with a tab": "a\tb"}.items()
]

IDS = [
    Bad(f"{method} job {name}", method, f"/v1/jobs/{raw}{tail}", None, {}, (404,))
    for method, tail in (("GET", ""), ("DELETE", ""), ("POST", "/retry"), ("GET", "/events"))
    for name, raw in {
        "absent": "job_" + "0" * 32,
        "short": "job_1",
        "upper": "job_" + "A" * 32,
        "path": "..%2F..%2Fetc%2Fpasswd",
        "NUL": "%00",
        "bad UTF-8": "%ff%fe",
        "star": "*",
        "pattern": "job:*",
        "another key": f"job_{'0' * 32}:events",
        "newline": "job_" + "0" * 32 + "%0a",
        "full width": "job_" + "%EF%BC%90" * 32,
    }.items()
] + [Bad("GET a very long id", "GET", "/v1/jobs/" + "x" * 3000, None, {}, (400, 404))]

QUERIES = [
    Bad(f"GET {path}", "GET", path, None, {}, (400,), param)
    for path, param in {
        "/v1/jobs?limit=0": "limit",
        "/v1/jobs?limit=-1": "limit",
        "/v1/jobs?limit=1000000000": "limit",
        "/v1/jobs?limit=x": "limit",
        "/v1/jobs?limit=1.5": "limit",
        "/v1/jobs?limit=" + "9" * 4000: "limit",
        "/v1/jobs?tier=zz": "tier",
        "/v1/jobs?after=x": "after",
        "/v1/jobs?after=": "after",
        "/v1/jobs?after=1-1-1": "after",
        "/v1/jobs?after=-1-0": "after",
        "/v1/jobs?after=" + "9" * 99: "after",
        "/v1/jobs?after=%00": "after",
        "/v1/jobs?after=%EF%BC%91-%EF%BC%91": "after",
        "/v1/jobs?state=done": "state",
        "/v1/jobs?state=": "state",
        "/v1/jobs?tier=" + "x" * 65: "tier",
        f"/v1/jobs/job_{'0' * 32}?wait=-1": "wait",
        f"/v1/jobs/job_{'0' * 32}?wait=1e9": "wait",
        f"/v1/jobs/job_{'0' * 32}?wait=nan": "wait",
        f"/v1/jobs/job_{'0' * 32}?wait=inf": "wait",
        f"/v1/jobs/job_{'0' * 32}?wait=soon": "wait",
        "/v1/usage?since=yesterday": "since",
        "/v1/usage?since=": "since",
        "/v1/usage?since=99999-01-01": "since",
        "/v1/usage?until=x": "until",
        "/v1/usage?since=2099-01-01": "since",
        "/v1/usage?since=2026-02-01&until=2026-01-01": "since",
        "/v1/usage?by=prompt": "by",
        "/v1/usage?by=": "by",
    }.items()
]

_HELD_WRONGLY: tuple[Any, ...] = (
        b"", [], {"tier": 1}, {"tier": "powr"}, {"until": 1}, {"until": "x"}, {"until": "2020-01-01"},
        {"until": "400d"}, {"until": "9999-12-31"}, {"reason": 1}, {"reason": "x" * 201}, {"more": 1}, {"tier": ""},
        {"tier": "\ud800"},
)  # fmt: skip
MAINTENANCE = [
    *(Bad(f"maintenance {str(body)[:40]}", "PUT", "/v1/maintenance", body, JSON) for body in _HELD_WRONGLY),
    Bad("end an unknown tier", "DELETE", "/v1/maintenance?tier=powr"),
]

ADDRESSES = [
    *(Bad(f"unknown {path}", "GET", path, None, {}, (404,)) for path in (
        "/v2/models", "/v1", "/v1/", "/v1/models/", "/v1/jobs/", "/v1/chat", "/openai", "/openai/v1/v1/models",
        "/openai/v1/openai/v1/models", "/.env", "/%2e%2e/%2e%2e/etc/passwd", "/health/", "/V1/models",
        "/docs", "/redoc", "/v1/jobs?after=job_" + "0" * 32,
        "/v1/models/none%2Fsuch", "/v1/models/%00", "/v1/models/%ff", "/v1/jobs/x/y/z",
    )),
    *(Bad(f"{method} {path}", method, path, None, {}, (405,)) for method, path in (
        ("GET", CHAT), ("PUT", CHAT), ("DELETE", CHAT), ("PATCH", JOBS), ("PUT", JOBS), ("POST", "/v1/models"),
        ("POST", "/health"), ("DELETE", "/v1/usage"), ("POST", "/v1/maintenance"), ("TRACE", "/v1/models"),
        ("HEAD", CHAT),
    )),
    Bad("a page of another origin asks to be let in", "OPTIONS", "/v1/models", None,
        {"access-control-request-method": "GET", "origin": "https://elsewhere.example"}, (405,)),
]  # fmt: skip

SIZES = [
    chat("a body above the cap", b'{"a":"' + b"x" * (21 * 1024 * 1024) + b'"}', statuses=(413,)),
    Bad("an upload above the cap", "POST", CHAT, b"x" * (111 * 1024 * 1024),
        {"content-type": "multipart/form-data; boundary=x"}, (413,)),
    Bad("an address of 9 KiB", "GET", "/v1/models?x=" + "y" * 9 * 1024, None, {}, (414,)),
    Bad("headers of 40 KiB", "GET", "/v1/models", None, {"x-long": "y" * 40 * 1024}, (431,)),
    Bad("101 headers", "GET", "/v1/models", None, {f"x-{i}": "y" for i in range(101)}, (431,)),
    Bad("another host", "GET", "/v1/models", None, {"host": "evil.example"}, (400,)),
    Bad("a host with a path", "GET", "/v1/models", None, {"host": "localhost/evil"}, (400,)),
    Bad("a loop", "POST", CHAT, GOOD, JSON | {"x-vessel-hop": "1"}, (400,)),
]  # fmt: skip

ADDRESSED = [*POLICIES, *ROUTING, *MEDIA, *HEADERS, *IDS, *QUERIES, *MAINTENANCE, *ADDRESSES, *SIZES]
