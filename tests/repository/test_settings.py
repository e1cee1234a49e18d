"""Settings are read in one place, and unknown values are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.load import load_model, resolve_device
from helpers.settings import MODEL_NAMES, Settings, hub_name
from tests.repository.tree import BOOK, ROOT

pytestmark = pytest.mark.unit


def test_an_empty_environment_gives_the_embedded_model_and_the_default_profile():
    assert Settings.from_environment({"BOOK_MODEL": "", "HOME": "/"}) == Settings()
    assert str(Settings()) == "model smollm2 · device auto · profile default · seed 0"
    with pytest.raises(FrozenInstanceError):
        Settings().profile = "paper"


def test_variables_set_what_they_name(tmp_path):
    given = {"model": "gpt2", "device": "cuda:1", "profile": "paper", "progress": "off"}
    given |= {"cache": str(tmp_path), "seed": "7", "jobs": "3"}
    variables = {f"BOOK_{name.upper()}": value for name, value in given.items()}
    expected = Settings(**given | {"cache": tmp_path, "seed": 7, "jobs": 3})
    assert Settings.from_environment(variables) == expected != Settings()
    for address in ("tcp://127.0.0.1:8786", "tls://node-3:8786", "local:2"):
        assert Settings.from_environment({"BOOK_SCHEDULER": address}).scheduler == address


@pytest.mark.parametrize(
    ("variable", "values"),
    [
        ("BOOK_PROFILE", ["quick"]),
        ("BOOK_DEVICE", ["gpu"]),
        ("BOOK_MODEL", ["gpt5-xxl"]),
        ("BOOK_PROGRESS", ["on"]),
        ("BOOK_SEED", ["-1", "1.5", "two", "2147483648"]),
        ("BOOK_JOBS", ["-1", "two", "1025"]),
        ("BOOK_SCHEDULER", ["localhost", "tcp://host", "http://host:8786", "local:0", "local:two"]),
    ],
)
def test_unknown_values_are_refused_by_name(variable, values):
    for value in values:
        with pytest.raises(ValueError, match=value):
            Settings.from_environment({variable: value})


@pytest.mark.parametrize(
    ("variable", "near"),
    [("BOOK_SEEDS", "BOOK_SEED"), ("BOOK_PROFIL", "BOOK_PROFILE"), ("BOOK_XYZ", "BOOK_CACHE, ")],
)
def test_unknown_variables_are_refused_with_the_nearest_known_one(variable, near):
    with pytest.raises(ValueError, match=f"no variable {variable}; use {near}"):
        Settings.from_environment({variable: "5"})
    assert Settings.from_environment({"NOTE" + variable: "5"}) == Settings()


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    others = {name: os.environ[name] for name in os.environ if not name.startswith("BOOK_")}
    command, environment = [sys.executable, *arguments], others | variables
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("module", "variable", "value", "sentence"),
    [
        ("helpers.models.packed", "BOOK_JOBS", "-1", "BOOK_JOBS=-1 is not allowed; use a whole"),
        ("helpers.models.packed", "BOOK_CACHE", "/proc/x", "cannot write to the cache folder"),
        ("book._ext.recorded", "BOOK_SEEDS", "5", "there is no variable BOOK_SEEDS; use"),
        ("benchmarks.gpu", "BOOK_DEVICE", "cuda:99", "device 'cuda:99' is not available"),
        ("assignments.tools.grade", "BOOK_PROFILE", "x", "BOOK_PROFILE=x is not allowed; use one"),
    ],
)
@pytest.mark.slow
def test_a_command_ends_with_one_sentence_about_a_bad_variable(module, variable, value, sentence):
    arguments = ["book/results"] if module.endswith("grade") else []
    done = run("-m", module, *arguments, **{variable: value})
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(sentence) and len(done.stderr.splitlines()) == 1


def test_elsewhere_a_bad_variable_is_an_exception():
    done = run("-c", "import helpers.settings", BOOK_JOBS="-1")
    assert done.returncode == 1 and "ValueError: BOOK_JOBS=-1" in done.stderr


def test_the_page_on_models_describes_every_variable():
    page = (BOOK / "models.md").read_text(encoding="utf-8")
    for field in fields(Settings):
        assert f"\n| `BOOK_{field.name.upper()}` | " in page


@pytest.mark.parametrize(("profile", "value"), [("smoke", 1), ("default", 2), ("paper", 3)])
def test_a_profile_picks_its_value(profile, value):
    assert Settings(profile=profile).pick(smoke=1, default=2, paper=3) == value


def test_the_papers_models_and_any_name_of_transformer_lens_are_known():
    assert {"smollm2", "gpt2", "gpt2-xl", "pythia-1.4b", "gpt-neo-1.3b"} <= set(MODEL_NAMES)
    assert hub_name("pythia-70m") == "EleutherAI/pythia-70m"


@pytest.mark.parametrize("name", ["cuda:99", "mps"])
def test_a_device_that_is_not_there_is_an_error_before_any_loading(name, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"device '{name}' is not available"):
        load_model("smollm2", device=name)


def test_a_hub_out_of_reach_is_an_error_that_says_what_to_do(monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(TransformerBridge, "boot_transformers", unreachable)
    with pytest.raises(
        ConnectionError, match="BOOK_MODEL=smollm2, which needs no hub.*no route to host"
    ):
        load_model("gpt2", device="cpu")


def test_auto_takes_cuda_exactly_when_it_is_there(monkeypatch):
    for there, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert resolve_device("auto").type == kind
