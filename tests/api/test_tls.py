"""TLS on the REST face: served with a certificate of one's own, and refused with a clear text where it cannot be."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import openai
import pytest

from bench.stack import free_port
from tests.api.serving import GREETING, Served
from tests.integration.running_up import Up
from tests.waiting import wait_until
from vessel.api.tls import check_tls
from vessel.errors import SettingsError
from vessel.settings import load_settings

FOLDER = Path(__file__).parent / "tls"
CERT, KEY = str(FOLDER / "server.crt"), str(FOLDER / "server.key")


@pytest.mark.system
def test_the_sdk_talks_tls_to_a_certificate_it_trusts(tmp_path: Path) -> None:
    """The address is https; without TLS, or without trust, nothing is answered."""
    with Served(tmp_path, VESSEL_API_TLS_CERT=CERT, VESSEL_API_TLS_KEY=KEY) as served:
        served.start_worker(["ultra_fast"])
        served.start_api()
        assert served.url.startswith("https://127.0.0.1:")
        trusted = openai.DefaultHttpxClient(verify=ssl.create_default_context(cafile=CERT))
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, http_client=trusted) as client:
            assert client.chat.completions.create(model="ultra_fast", messages=GREETING).choices
            assert list(client.chat.completions.create(model="ultra_fast", messages=GREETING, stream=True))
        with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
            httpx.get(f"{served.url}/health")
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{served.url.replace('https', 'http')}/health")
        wrong = served.cli("api", "--port", str(free_port()), VESSEL_API_TLS_KEY=str(FOLDER / "other.key"))
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert "is not the key of the certificate" in wrong.stderr
        assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    ("cert", "key", "told"),
    [
        (CERT, KEY, []),
        ("none.crt", "none.key", ["VESSEL_API_TLS_CERT: .*none.crt cannot be read: No such file",
                                  "VESSEL_API_TLS_KEY: .*none.key cannot be read: No such file"]),
        (str(FOLDER), KEY, ["VESSEL_API_TLS_CERT: .* cannot be read: Is a directory"]),
        (KEY, KEY, ["VESSEL_API_TLS_CERT: .* holds no certificate"]),
        (CERT, CERT, ["VESSEL_API_TLS_KEY: .* holds no private key"]),
        (CERT, str(FOLDER / "other.key"), ["VESSEL_API_TLS_KEY: .* is not the key of the certificate"]),
        (CERT, str(FOLDER / "locked.key"), ["VESSEL_API_TLS_KEY: .* is locked with a pass phrase"]),
    ],
)  # fmt: skip
def test_a_certificate_that_cannot_be_served_is_a_fault_of_the_settings(cert: str, key: str, told: list[str]) -> None:
    """All that is wrong is told at once, and nobody is asked for a pass phrase."""
    settings = load_settings({}, api_tls_cert=cert, api_tls_key=key)
    if not told:
        check_tls(settings)
        return
    for text in told:
        with pytest.raises(SettingsError, match=text):
            check_tls(settings)


@pytest.mark.system
def test_up_tells_the_https_address(tmp_path: Path) -> None:
    """`vessel up` with a certificate says where it is served."""
    with Up(tmp_path / "d", "--group", "ultra_fast", VESSEL_API_TLS_CERT=CERT, VESSEL_API_TLS_KEY=KEY) as up:
        wait_until(lambda: "https://127.0.0.1:" in (up.data_dir / "up.log").read_text("utf-8"))
