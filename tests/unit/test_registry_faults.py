"""A user's registry is laid over the shipped one, and all of its faults are told at once."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from vessel.errors import RegistryError
from vessel.registry import Limits, Registry, load_registry

if TYPE_CHECKING:
    from pathlib import Path

MINE = """
[models.mine]
tier = "power"
kind = "chat"
status = "preview"
context_window = 1000
max_output = 100
prices = { input = 1, output = 2.5 }
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name the user's file."""
    return tmp_path / "registry.toml"


def loaded(path: Path, text: str) -> Registry:
    """Load the registry with a user's text laid over it."""
    path.write_text(text, "utf-8")
    return load_registry(path)


def faults(path: Path, text: str) -> str:
    """Return the message of the error that a user's text causes."""
    with pytest.raises(RegistryError) as caught:
        loaded(path, text)
    return str(caught.value)


def test_a_user_overrides_one_figure(path: Path) -> None:
    """Only what the file names changes; the rest of the model and of its limits stays."""
    registry = loaded(path, '[models."openai/gpt-oss-20b"]\nprices.input = 0.08\nlimits.developer.tpm = 1_000_000')
    model, shipped = registry.model("openai/gpt-oss-20b"), load_registry().model("openai/gpt-oss-20b")

    assert model.prices.input == Decimal("0.08")
    assert model.prices.output == shipped.prices.output
    assert model.limits["developer"] == Limits(rpm=1000, tpm=1_000_000)
    assert model.limits["free"] == shipped.limits["free"]


def test_a_user_adds_a_model_and_a_tier(path: Path) -> None:
    """A new model and a new tier stand beside the shipped ones."""
    registry = loaded(path, MINE + '[tiers.night]\nmodel = "mine"\n')

    assert registry.model("mine").prices.output == Decimal("2.5")
    assert registry.tiers["night"].model == "mine"
    assert len(registry.models) == len(load_registry().models) + 1


def test_a_user_takes_a_date_and_a_successor_away(path: Path) -> None:
    """An empty text stands for none, which TOML cannot say otherwise."""
    registry = loaded(path, '[models."llama-3.1-8b-instant"]\nretires = ""\nsuccessor = ""\n')

    assert registry.model("llama-3.1-8b-instant").retires is None
    assert registry.model("llama-3.1-8b-instant").successor is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[models."openai/gpt-oss-20b"]\ncontxt_window = 1', "unknown key. Did you mean context_window?"),
        ('[models."openai/gpt-oss-20b"]\nprices.inptu = 1', "unknown key. Did you mean input?"),
        ('[models."openai/gpt-oss-20b"]\nlimits.free.tmp = 1', "unknown key. Did you mean tpm"),
        ("[modles.x]\nkind = 1", "modles: unknown key. Did you mean models?"),
        (
            '[models."openai/gpt-oss-20b"]\nprices.input = "0.1"',
            "prices.input: is text; write the number without quotes",
        ),
        ('[models."openai/gpt-oss-20b"]\nprices.input = -0.1', "greater than or equal to 0"),
        ('[models."openai/gpt-oss-20b"]\nprices.input = nan', "finite number"),
        ('[models."openai/gpt-oss-20b"]\nprices.input = true', "is not a number"),
        ('[models."openai/gpt-oss-20b"]\nprices.cached_input = 9', "cached_input is dearer than input"),
        ('[models."openai/gpt-oss-20b"]\ncontext_window = "big"', "context_window: Input should be a valid integer"),
        ('[models."openai/gpt-oss-20b"]\ncontext_window = 0', "greater than 0"),
        ('[models."openai/gpt-oss-20b"]\nlimits.gold.tpm = 1', "'developer' or 'free'"),
        ('[models."openai/gpt-oss-20b"]\nfeatures = ["telepathy"]', "features"),
        ('[models."openai/gpt-oss-20b"]\nstatus = "retired"', "is not a shelf"),
        ('[models."openai/gpt-oss-20b"]\nretires = "soon"', "retires"),
        ('[models."openai/gpt-oss-20b"]\nsuccessor = "gpt-oss-120b"', "Did you mean openai/gpt-oss-120b?"),
        ('[models."openai/gpt-oss-20b"]\nsuccessor = "whisper-large-v3"', "chats, the other does not"),
        ('[models."openai/gpt-oss-20b"]\nsuccessor = "llama-3.1-8b-instant"', "goes in a circle"),
        ('[models."openai/gpt-oss-20b"]\nsuccessor = "openai/gpt-oss-20b"', "goes in a circle"),
        ('[models."openai/gpt-oss-20b"]\ntier = "powr"', "there is no tier 'powr'. Did you mean power?"),
        ('[models."openai/gpt-oss-20b"]\ntier = ""', "a tier is missing"),
        ('[models."openai/gpt-oss-20b"]\nfallbacks = ["nope"]', "there is no model 'nope'"),
        ('[models."openai/gpt-oss-20b"]\nfallbacks = ["openai/gpt-oss-20b"]', "holds the model itself"),
        ('[models."openai/gpt-oss-20b"]\nfallbacks = ["whisper-large-v3"]', "does not chat"),
        ('[models."openai/gpt-oss-20b"]\nfallbacks = ["allam-2-7b", "allam-2-7b"]', "holds a model twice"),
        ('[models."openai/gpt-oss-20b"]\nfeatures = ["strict_schema"]', "strict_schema without json_schema"),
        ('[models."openai/gpt-oss-20b"]\nfeatures = []', "`reasoning` is not among its features"),
        ('[models."whisper-large-v3"]\ntier = "power"', "does not chat, so it has neither tier nor fallbacks"),
        ('[tiers.power]\nmodel = "nope"', "tiers.power.model: there is no model 'nope'"),
        ('[tiers.power]\nmodel = "whisper-large-v3"', "tiers.power.model: whisper-large-v3 does not chat"),
        ("[models.mine]\nkind = 'chat'", "models.mine.prices: missing"),
        ("this is not toml", "is not valid TOML"),
    ],
)
def test_a_fault_is_told_with_its_place_and_a_suggestion(path: Path, text: str, told: str) -> None:
    """Each kind of fault names where it stands and what was probably meant."""
    assert told in faults(path, text)


def test_all_faults_are_told_at_once(path: Path) -> None:
    """One run lists every fault of form, and one every fault of sense."""
    form = faults(
        path, '[models."openai/gpt-oss-20b"]\nmax_outputt = 1\nprices.input = -1\n[tiers.power]\nmodell = "x"'
    )
    sense = faults(path, '[models."openai/gpt-oss-20b"]\nsuccessor = "a"\ntier = "b"\nfallbacks = ["c"]')

    assert form.count("\n  - ") == sense.count("\n  - ") == 3


def test_a_tier_must_keep_a_model(path: Path) -> None:
    """A tier whose models are all retired one day is refused, since it would stand empty."""
    dated = MINE.replace("[models.mine]", "[models.mine]\nretires = 2027-01-01")

    assert "tiers.night.model: mine, its successors" in faults(path, dated + '[tiers.night]\nmodel = "mine"\n')


def test_an_unreadable_file_is_a_fault_and_not_a_crash(tmp_path: Path) -> None:
    """A missing file, a folder and bytes that are no text each end in a RegistryError."""
    (tmp_path / "latin.toml").write_bytes(b"x = '\xff'")

    for path in (tmp_path / "absent.toml", tmp_path, tmp_path / "latin.toml"):
        with pytest.raises(RegistryError):
            load_registry(path)
