"""Every row of Groq's error table becomes one reason (groq-facts 1.6, 1.8)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vessel.upstream.classify import classify_status
from vessel.upstream.outcome import Charge, Failure, Reason

MODEL = "openai/gpt-oss-120b"
TPM = "in organization `org_1` service tier `on_demand` on tokens per minute (TPM)"
REACHED = f"Rate limit reached for model `M` {TPM}: Limit 6000, Used 5034, Requested 1443. Please try again in 4.77s."
CANARY = "canary-prompt-text"


def classify(status: int, error: object = None, headers: dict[str, str] | None = None) -> Failure:
    """Classify an error body as Groq writes it; bytes go as they are."""
    body = error if isinstance(error, bytes) else json.dumps({"error": error}).encode()
    return classify_status(MODEL, status, headers or {}, body, 12)


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (400, {"message": "'messages' : minimum number of items is 1"}, Reason.BAD_REQUEST),
        (400, {"message": "x", "code": "tool_use_failed", "failed_generation": CANARY}, Reason.TOOL_USE_FAILED),
        (400, {"message": "Failed to call a function. Please adjust your prompt."}, Reason.TOOL_USE_FAILED),
        (400, {"message": "tool call validation failed: parameters for tool X did not match"}, Reason.TOOL_USE_FAILED),
        (400, {"message": "x", "code": "json_validate_failed", "failed_generation": ""}, Reason.JSON_VALIDATE_FAILED),
        (400, {"message": "Failed to generate JSON. Please adjust your prompt."}, Reason.JSON_VALIDATE_FAILED),
        (400, {"message": "Failed to validate JSON."}, Reason.JSON_VALIDATE_FAILED),
        (400, {"message": "x", "code": "blocked_api_access"}, Reason.SPEND_LIMIT),
        (400, {"message": "x", "code": "model_decommissioned"}, Reason.MODEL_GONE),
        (400, {"message": "The model `x` has been decommissioned and is no longer supported."}, Reason.MODEL_GONE),
        (400, {"message": "x", "code": "model_terms_required"}, Reason.MODEL_GONE),
        (400, {"message": "x", "code": "context_length_exceeded", "param": "messages"}, Reason.CONTEXT_LENGTH),
        (400, {"message": "Please reduce the length of the messages or completion."}, Reason.CONTEXT_LENGTH),
        (400, {"message": "x", "code": "organization_restricted"}, Reason.FORBIDDEN),
        (401, {"message": "Invalid API Key"}, Reason.UNAUTHORIZED),
        (401, {"message": "Invalid API Key", "code": "invalid_api_key"}, Reason.UNAUTHORIZED),
        (403, {"message": "Access denied. Please check your network settings."}, Reason.FORBIDDEN),
        (403, {"message": "x", "code": "model_permission_blocked_project"}, Reason.MODEL_GONE),
        (404, {"message": "x", "code": "model_not_found"}, Reason.MODEL_GONE),
        (404, {"message": "The model `x` does not exist or you do not have access to it."}, Reason.MODEL_GONE),
        (404, {"message": "Unknown request URL"}, Reason.BAD_REQUEST),
        (405, None, Reason.BAD_REQUEST),
        (408, None, Reason.SERVER_ERROR),
        (409, None, Reason.SERVER_ERROR),
        (413, {"message": "x", "type": "tokens", "code": "rate_limit_exceeded"}, Reason.TOO_LARGE),
        (413, b"<html>413 Request Entity Too Large</html>", Reason.TOO_LARGE),
        (422, {"message": "x"}, Reason.UNPROCESSABLE),
        (424, {"message": "x"}, Reason.DEPENDENCY_FAILED),
        (429, {"message": REACHED, "type": "tokens", "code": "rate_limit_exceeded"}, Reason.RATE_LIMITED),
        (429, b"<html>Too many requests</html>", Reason.RATE_LIMITED),
        (498, {"message": "`flex` tier capacity exceeded", "code": "capacity_exceeded"}, Reason.OVER_CAPACITY),
        (498, None, Reason.OVER_CAPACITY),
        (499, None, Reason.CANCELLED),
        (500, {"message": "Internal Server Error"}, Reason.SERVER_ERROR),
        (500, {"message": "M is currently over capacity. Please try again and back off."}, Reason.OVER_CAPACITY),
        (502, b"<html><h1>Bad gateway</h1></html>", Reason.SERVER_ERROR),
        (503, {"message": "M is currently over capacity.", "type": "internal_server_error"}, Reason.OVER_CAPACITY),
        (503, b"<html>maintenance</html>", Reason.OVER_CAPACITY),
        (504, b"", Reason.SERVER_ERROR),
        (524, b"error code: 524", Reason.SERVER_ERROR),
        (302, b"", Reason.PROTOCOL_ERROR),
    ],
)
def test_every_row_of_the_error_table_has_its_reason(status: int, error: object, reason: Reason) -> None:
    """Code first, then status, then the text; nothing is charged unless nobody knows."""
    failure = classify(status, error)
    assert (failure.reason, failure.status, failure.model) == (reason, status, MODEL)
    assert failure.charge is (Charge.UNKNOWN if status == 499 else Charge.NONE)
    assert failure.duration_ms == 12
    assert len(failure.message) > 30


def test_a_429_carries_its_limit_and_its_exact_wait() -> None:
    """The header is whole seconds rounded up, so the text's wait is the better one."""
    failure = classify(429, {"message": REACHED, "code": "rate_limit_exceeded"}, {"retry-after": "5"})
    assert failure.retry_after_s == 4.77
    assert (failure.limit_name, failure.limit_value, failure.requested) == ("tpm", 6000, 1443)
    assert failure.detail == "rate_limit_exceeded"
    assert failure.headers.retry_after_s == 5.0
    assert "6000 tokens per minute" in failure.message
    assert "org_1" not in failure.message


@pytest.mark.parametrize(("header", "wait"), [("0", 4.77), ("-9", 4.77), ("120", 120.0), ("2", 4.77)])
def test_where_header_and_text_disagree_the_longer_wait_is_obeyed(header: str, wait: float) -> None:
    """Coming back too early is a second refusal; too late is only late."""
    assert classify(429, {"message": REACHED}, {"retry-after": header}).retry_after_s == wait


def test_without_a_text_the_header_counts_and_without_both_nothing_does() -> None:
    """The wait is known or unknown, never made up here."""
    assert classify(429, b"busy", {"retry-after": "7"}).retry_after_s == 7.0
    assert classify(429, b"busy").retry_after_s is None
    assert classify(503, b"busy", {"retry-after": "3"}).retry_after_s == 3.0


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (413, f"Request too large for model `M` {TPM}: Limit 8000, Requested 34031, please reduce your message size."),
        (429, f"Request too large for model `M` {TPM}: Limit 8000, Requested 34031, please reduce your message size."),
        (429, f"Rate limit reached for model `M` {TPM}: Limit 8000, Used 1, Requested 34031."),
    ],
)
def test_one_request_above_the_limit_is_too_large_whatever_its_status(status: int, message: str) -> None:
    """Waiting never helps it, so it gets no wait even when a header offers one."""
    failure = classify(status, {"message": message, "code": "rate_limit_exceeded"}, {"retry-after": "9"})
    assert failure.reason is Reason.TOO_LARGE
    assert failure.retry_after_s is None
    assert (failure.limit_value, failure.requested) == (8000, 34031)
    assert "34031" in failure.message


@pytest.mark.parametrize(
    "hint",
    [
        "'messages' : minimum number of items is 1",
        "`reasoning_effort` must be one of `low`, `medium`, or `high`",
        "This model does not support response format `json_schema`",
        "`reasoning_effort` is not supported with this model",
        "'messages.0' : property 'reasoning_content' is unsupported",
        "property 'best_of' is unsupported",
        "'m.1' : for 'role:assistant' the following must be satisfied[('m.1' : property 'x' is unsupported)]",
        "`n` must be less than or equal to `8192`, the maximum value for `n` is less than the `window` for this model",
    ],
)
def test_known_texts_of_a_bad_request_are_shown(hint: str) -> None:
    """They name the parameter at fault and hold nothing of the prompt."""
    assert hint in classify(400, {"message": hint + "."}).message


@pytest.mark.parametrize(
    "text",
    [
        f"invalid content: {CANARY}",
        f"'messages' : minimum number of items is 1 {CANARY}",
        f"`reasoning_effort` must be one of `low`; got {CANARY}",
        f"tool call validation failed: {CANARY}",
        f"The model `x` does not exist or you do not have access to it. {CANARY}",
        f"Failed to validate JSON. {CANARY}",
        f"Rate limit reached {CANARY}",
        "'\u4f60\u597dcanary-prompt-text' : minimum number of items is 1",
    ],
)
@pytest.mark.parametrize("status", [400, 404, 413, 422, 429, 500])
def test_an_unknown_text_never_gets_out(status: int, text: str) -> None:
    """The upstream may quote the prompt in any text, so no field of the failure holds one."""
    failure = classify(status, {"message": text, "code": f"a {CANARY}", "param": f"{CANARY} b", "type": CANARY})
    assert CANARY not in repr(failure)


def test_a_key_in_an_error_never_gets_out() -> None:
    """Not even where only a plain name is expected."""
    failure = classify(401, {"message": "Invalid API Key gsk_abc", "code": "gsk_abc", "param": "gsk_abc"})
    assert "gsk_" not in repr(failure)


def test_code_and_parameter_stand_in_for_a_text_that_is_not_shown() -> None:
    """The caller still learns where to look."""
    failure = classify(400, {"message": CANARY, "code": "unsupported_parameter", "param": "messages[0].name"})
    assert "unsupported_parameter messages[0].name" in failure.message
    assert failure.detail == "unsupported_parameter"


def test_the_request_id_of_an_error_is_its_header() -> None:
    """It is what Groq's support asks for; a value that is no id is dropped."""
    assert classify(500, None, {"x-request-id": "req_01abc"}).request_id == "req_01abc"
    assert classify(500, None, {"x-request-id": "a b\n"}).request_id is None


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"error":[]}', b'{"error":"text"}', b'{"error":{"message":7,"code":9}}', b"\xff",
     b'{"a":' + b"[" * 100_000, b'{"error":{"code":' + b"9" * 5000 + b"}}"],
)  # fmt: skip
def test_a_broken_error_body_leaves_the_status(body: bytes) -> None:
    """What cannot be read does not hide what the status says."""
    assert classify(503, body).reason is Reason.OVER_CAPACITY


@given(
    st.integers(300, 599),
    st.binary(max_size=200) | st.text(max_size=80).map(lambda t: b'{"error":"' + t.encode(errors="replace") + b'"}'),
)
def test_no_body_breaks_the_classification(status: int, body: bytes) -> None:
    """Every answer becomes a failure."""
    assert isinstance(classify(status, body), Failure)
