"""Every public method of both SDKs that has a counterpart here, sync and async, plain, raw and streamed.

What comes back is validated strictly against the SDK's own types: nothing coerced, nothing missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import groq
import openai
import pydantic
import pytest

from tests.api.serving import GREETING
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.api.serving import Served

ENDPOINT: Any = "/v1/chat/completions"
MODEL = "openai/gpt-oss-20b"
RESOURCES = ("chat.completions", "models", "files", "batches")
KINDS: dict[str, Any] = {
    "openai": openai.OpenAI, "groq": groq.Groq, "async openai": openai.AsyncOpenAI, "async groq": groq.AsyncGroq,
}  # fmt: skip
VARIANTS = ("plain", "with_raw_response", "with_streaming_response")
CHAT: dict[str, Any] = {"model": "auto", "messages": GREETING}
NO_COUNTERPART = {
    "openai": {f"chat.completions.{name}" for name in ("list", "retrieve", "update", "delete")} | {"models.delete"},
    "groq": {"models.delete"},
}
"""Fine-tuned models and stored completions: neither Groq nor Vessel has them."""


class Answer(pydantic.BaseModel):
    """What a structured answer is parsed into."""

    text: str


def lines(count: int) -> bytes:
    """Write a batch's input file."""
    rows = [
        {"custom_id": f"r{n}", "method": "POST", "url": ENDPOINT, "body": {"model": MODEL, "messages": GREETING}}
        for n in range(count)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


class World:
    """One server and the objects that reading methods are called with."""

    def __init__(self, served: Served) -> None:
        """Upload a small and a long file, and run a batch of the small one to its end."""
        self.served, self.runner = served, asyncio.Runner()
        self.clients = {name: client_of(served, name) for name in KINDS}
        sdk = self.clients["openai"]
        self.file = sdk.files.create(file=("in.jsonl", lines(1)), purpose="batch").id
        self.long = sdk.files.create(file=("long.jsonl", lines(3000)), purpose="batch").id
        self.batch, *_ = (self.batch_of(self.file) for _ in range(3))
        done = wait_until(lambda: (b := sdk.batches.retrieve(self.batch)).status == "completed" and b, 30)
        self.output = sdk.files.content(done.output_file_id).text

    def close(self) -> None:
        """Close the clients."""
        for client in self.clients.values():
            self.runner.run(awaited(client.close()))
        self.runner.close()

    def batch_of(self, file_id: str) -> str:
        """Make a batch of a file."""
        made = self.clients["openai"].batches.create(input_file_id=file_id, endpoint=ENDPOINT, completion_window="24h")
        return str(made.id)

    def arguments(self, method: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give what a method is called with; those that end something get an object of their own."""
        if method == "files.delete":
            return (self.clients["openai"].files.create(file=("x", lines(1)), purpose="batch").id,), {}
        if method == "batches.cancel":
            return (self.batch_of(self.long),), {}
        given: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
            "chat.completions.create": ((), CHAT),
            "chat.completions.parse": ((), CHAT | {"response_format": Answer}),
            "models.list": ((), {}),
            "models.retrieve": ((MODEL,), {}),
            "files.create": ((), {"file": ("in.jsonl", lines(1)), "purpose": "batch"}),
            "files.list": ((), {}),
            "files.wait_for_processing": ((self.file,), {}),
            "batches.create": (
                (), {"input_file_id": self.file, "endpoint": ENDPOINT, "completion_window": "24h"},
            ),
            "batches.list": ((), {}),
            "batches.retrieve": ((self.batch,), {}),
        }  # fmt: skip
        return given.get(method, ((self.file,), {}))


@pytest.fixture(scope="module")
def world(served: Served) -> Iterator[World]:
    """Fill the server once."""
    found = World(served)
    served.ask("/_sim/faults", [{"kind": "status", "status": 422, "match": "<422>"},
                                {"kind": "slow", "delay_s": 2, "match": "<slow>"}])  # fmt: skip
    yield found
    found.close()


def client_of(served: Served | Refusing, sdk: str, **options: Any) -> Any:
    """Open `openai`, `groq`, or their async sides."""
    base = served.url if sdk.endswith("groq") else f"{served.url}/v1"
    return KINDS[sdk](base_url=base, **({"api_key": "none", "max_retries": 0} | options))


def public(resource: Any) -> Iterator[str]:
    """Name the methods of a resource that its users call."""
    for name in dir(type(resource)):
        if not name.startswith(("_", "with_")) and inspect.isfunction(getattr(type(resource), name)):
            yield name


def methods(sdk: str) -> list[str]:
    """Name every public method of the resources that Vessel serves."""
    client = (openai.OpenAI if sdk == "openai" else groq.Groq)(api_key="none")
    return [f"{path}.{name}" for path in RESOURCES for name in public(attrgetter(path)(client))]


async def awaited(value: Any) -> Any:
    """Wait for what an async client gives; a sync one's value is there."""
    return await value if inspect.isawaitable(value) else value


async def called(client: Any, method: str, variant: str, given: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
    """Call a method in one of its variants and return what it parsed."""
    path, _, name = method.rpartition(".")
    resource = attrgetter(path)(client)
    if variant == "plain":
        return await awaited(getattr(resource, name)(*given[0], **given[1]))
    found = getattr(getattr(resource, variant), name)(*given[0], **given[1])
    if variant == "with_raw_response":
        raw = await awaited(found)
        assert raw.status_code == 200
        assert raw.headers["x-request-id"].startswith("req_")
        return await awaited(raw.parse())
    async with contextlib.AsyncExitStack() as stack:
        is_async = hasattr(found, "__aenter__")
        streamed = await stack.enter_async_context(found) if is_async else stack.enter_context(found)
        assert streamed.status_code == 200
        await awaited(streamed.read())
        return await awaited(streamed.parse())


def strictly(value: Any, sdk: str) -> None:
    """Validate an object, and the rows of a page, against its own type without coercion."""
    if not isinstance(value, pydantic.BaseModel):
        return
    data = getattr(value, "data", None)
    if isinstance(data, list):
        assert data
        for row in data:
            strictly(row, sdk)
    kind, told = type(value), value.model_dump(mode="json", exclude_unset=True, warnings=False)
    if sdk.endswith("openai") and told.get("service_tier") == "on_demand":
        del told["service_tier"]  # Groq's word, which the openai SDK's type does not list; answers stay as Groq's
    if kind.__name__.startswith("ParsedChatCompletion"):  # generic in what the answer was parsed into
        kind = openai.types.chat.ParsedChatCompletion[Answer]
    kind.model_validate_json(json.dumps(told), strict=True)


CASES = [
    (f"{side}{sdk}", method, variant)
    for sdk in ("openai", "groq")
    for method in methods(sdk)
    if method not in NO_COUNTERPART[sdk] and method != "chat.completions.stream"  # a context manager, below
    for side in ("", "async ")
    for variant in (VARIANTS if method != "files.wait_for_processing" else VARIANTS[:1])
]


def test_a_line_of_the_output_is_one_line_however_the_answer_came(world: World) -> None:
    """Groq's answers end with a newline over the wire; the document has one for each request."""
    assert world.output.count("\n") == 1
    row = json.loads(world.output)
    assert row["response"]["body"]["choices"][0]["message"]["content"]


@pytest.mark.filterwarnings("ignore:The `.content.*:DeprecationWarning")
@pytest.mark.parametrize(("sdk", "method", "variant"), CASES)
def test_a_method_works_and_its_answer_is_strictly_the_sdks_type(
    world: World, sdk: str, method: str, variant: str
) -> None:
    """No field is missing, of another type, or out of its Literal."""
    asked = called(world.clients[sdk], method, variant, world.arguments(method))
    strictly(world.runner.run(asked), sdk)


@pytest.mark.parametrize("sdk", KINDS)
def test_every_chunk_of_a_stream_is_strictly_the_sdks_type(world: World, sdk: str) -> None:
    """Without `include_usage` usage is in `x_groq`; with it one chunk without choices comes last."""

    async def chunks(**more: Any) -> list[Any]:
        found = await awaited(world.clients[sdk].chat.completions.create(**CHAT, stream=True, **more))
        return [one async for one in found] if sdk.startswith("async") else list(found)

    for options in ({}, {"include_usage": True}):
        # The groq SDK has no such argument (groq-facts 1.4), so it goes into the body.
        found = world.runner.run(chunks(extra_body={"stream_options": options} if options else None))
        for chunk in found:
            strictly(chunk, sdk)
        assert [bool(chunk.choices) for chunk in found[-2:]] == [True, not options]
        if options:
            assert found[-1].usage.completion_tokens > 0


def test_the_openai_sdks_stream_helper_puts_the_answer_together(world: World) -> None:
    """Its events, the final completion, and a structured answer."""
    with world.clients["openai"].chat.completions.stream(**CHAT, stream_options={"include_usage": True}) as stream:
        kinds = {event.type for event in stream}
        done = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert (done.choices[0].finish_reason, done.usage.prompt_tokens > 0) == ("stop", True)

    async def structured() -> Any:
        asked = CHAT | {"response_format": Answer}
        async with world.clients["async openai"].chat.completions.stream(**asked) as stream:
            return (await stream.get_final_completion()).choices[0].message.parsed

    assert isinstance(world.runner.run(structured()), Answer)


@pytest.mark.parametrize("sdk", ["openai", "async openai"])
@pytest.mark.parametrize("resource", ["files", "batches", "models"])
def test_the_sdks_own_pager_walks_all_of_a_listing(world: World, sdk: str, resource: str) -> None:
    """`for one in client.files.list(limit=2)` ends, and sees everything once."""
    options: dict[str, Any] = {} if resource == "models" else {"limit": 2}

    async def walked() -> list[str]:
        pages = getattr(world.clients[sdk], resource).list(**options)
        return [one.id async for one in pages] if sdk.startswith("async") else [one.id for one in pages]

    found = world.runner.run(walked())
    assert len(found) == len(set(found)) > 2
    expected = MODEL if resource == "models" else world.file if resource == "files" else world.batch
    assert expected in found


@pytest.mark.parametrize("method", sorted(NO_COUNTERPART["openai"]))
def test_what_has_no_counterpart_says_so_in_the_sdks_own_exceptions(world: World, method: str) -> None:
    """404 or 405 with OpenAI's body, and `allow` naming all that the address takes."""
    path, _, name = method.rpartition(".")
    given: Any = {"metadata": None} if name == "update" else {}
    arguments = () if name == "list" else ("gpt-9",)
    with pytest.raises(openai.APIStatusError) as refused:
        getattr(attrgetter(path)(world.clients["openai"]), name)(*arguments, **given)
    assert refused.value.status_code in {404, 405}
    assert refused.value.code in {"unknown_url", "method_not_allowed"}
    if refused.value.status_code == 405:
        assert refused.value.response.headers["allow"]


KEYS = {"plain": ("--tenant", "ann"), "poor": ("--tenant", "bob", "--quota", "1/day")}


class Refusing:
    """A second API on the same Redis, in a namespace with keys and without workers."""

    def __init__(self, served: Served) -> None:
        """Make the keys and start it."""
        namespace = "refusing"
        self.opened: list[Any] = []
        first = served.api, served.url
        self.keys = {
            name: json.loads(served.cli("keys", "create", "--json", *more, VESSEL_NAMESPACE=namespace).stdout)["key"]
            for name, more in KEYS.items()
        }
        served.start_api(VESSEL_NAMESPACE=namespace)
        self.api, self.url = served.api, served.url
        served.api, served.url = first

    def client(self, sdk: str, key: str, **options: Any) -> Any:
        """Open an SDK with a key."""
        self.opened.append(client_of(self, sdk, api_key=self.keys.get(key, key), **options))
        return self.opened[-1]


@pytest.fixture(scope="module")
def refusing(world: World) -> Iterator[Refusing]:
    """Start it once."""
    found = Refusing(world.served)
    yield found
    for client in found.opened:
        world.runner.run(awaited(client.close()))
    assert found.api is not None
    found.api.kill()
    found.api.wait()
    assert found.api.stdout is not None
    found.api.stdout.close()


def chat(**more: Any) -> Callable[[Any], Any]:
    """Ask for a completion."""
    return lambda client: client.chat.completions.create(**(CHAT | more))


def keyed(key: str) -> Callable[[Any], Any]:
    """Make one idempotency key mean another body."""

    async def twice(client: Any) -> None:
        for seed in (1, 2):
            await awaited(chat(seed=seed, extra_headers={"Idempotency-Key": key})(client))

    return twice


ONCE = {"vessel": {"max_attempts": 1}}
NOBODY = {"vessel": {"on_outage": "fail"}}
MAPPED: list[tuple[str, str, Callable[[Any], Any], int, str]] = [
    ("", "BadRequestError", chat(temperature=9), 400, "invalid_request"),
    ("", "NotFoundError", chat(model="gpt-9"), 404, "model_not_found"),
    ("", "NotFoundError", lambda client: client.batches.retrieve(f"batch_{'0' * 32}"), 404, "batch_not_found"),
    ("", "ConflictError", keyed("mapped"), 409, "idempotency_key_reused"),
    ("", "UnprocessableEntityError", chat(messages=[{"role": "user", "content": "<422>"}], extra_body=ONCE), 422,
     "unprocessable"),
    ("none", "AuthenticationError", chat(), 401, "invalid_api_key"),
    ("plain", "PermissionDeniedError",
     lambda client: client.delete("/v1/maintenance" if "groq" in type(client).__module__ else "/maintenance",
                                  cast_to=object), 403, "permission_denied"),
    ("poor", "RateLimitError", lambda client: client.models.list(), 429, "rate_limit_exceeded"),
    ("plain", "InternalServerError", chat(extra_body=NOBODY), 503, "no_workers"),
    ("plain", "InternalServerError", chat(extra_body=NOBODY, stream=True), 503, "no_workers"),
]  # fmt: skip


@pytest.mark.parametrize("sdk", KINDS)
@pytest.mark.parametrize("row", MAPPED, ids=lambda row: f"{row[1]} {row[4]}")
def test_an_error_is_the_sdks_own_exception(world: World, refusing: Refusing, sdk: str, row: Any) -> None:
    """Each status has its class, its code, and tells whether and when to come again."""
    key, kind, ask, status, code = row
    client = refusing.client(sdk, key) if key else world.clients[sdk]
    errors = groq if sdk.endswith("groq") else openai

    async def asked() -> None:
        if key == "poor":
            await awaited(client.models.list())  # it may make one call a day
        await awaited(ask(client))

    with pytest.raises(getattr(errors, kind)) as refused:
        world.runner.run(asked())
    answer = refused.value.response
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert set(answer.json()["error"]) == {"message", "type", "code", "param"}
    if status in {429, 503}:
        assert int(answer.headers["retry-after"]) > 0
    if sdk.endswith("openai"):
        assert refused.value.code == code


@pytest.mark.parametrize("sdk", KINDS)
def test_a_timeout_is_the_sdks_own_exception(world: World, sdk: str) -> None:
    """A client that gives up does so by itself, and with `max_retries=0` once."""
    errors = groq if sdk.endswith("groq") else openai
    said = [{"role": "user", "content": f"<slow> {sdk}"}]

    async def asked() -> None:
        await awaited(chat(messages=said, timeout=0.3)(world.clients[sdk]))

    with pytest.raises(errors.APITimeoutError):
        world.runner.run(asked())
