"""What every chapter runs on: one frozen object, read from the environment in one place.

=============== ============================== ==================================================
variable        values                         meaning
=============== ============================== ==================================================
BOOK_MODEL      smollm2 (default), gpt2,       the language model of every chapter; any other
                gpt2-xl, pythia-1.4b,          name that TransformerLens knows is fetched from
                gpt-neo-1.3b, ...              the model hub
BOOK_DEVICE     auto (default), cpu, cuda,     where tensors live; auto takes CUDA when there
                cuda:1, ...
BOOK_PROFILE    smoke, default, paper          how much a chapter runs: seconds for tests, minutes
                                               on two cores, or the paper's own sizes for a GPU
BOOK_SEED       0 (default), 100, ...          where the seeds of every chapter begin: prompts, first
                                               parameters, controls and resampling are drawn from them
BOOK_CACHE      a folder                       where the embedded model is kept
BOOK_PROGRESS   auto (default), off            progress bars in terminals and notebooks; the build
                                               of the published pages switches them off
BOOK_SCHEDULER  ``tcp://host:8786``, ...,      the Dask scheduler whose workers run sweeps and
                ``local:2``, ...               searches; local:N starts N workers on this machine.
                                               Not set (default): everything in one process
=============== ============================== ==================================================
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeVar

import platformdirs

PROFILES = ("smoke", "default", "paper")

# The names that the book uses -> the names of the model hub. The embedded model needs no hub.
MODEL_NAMES = {
    "smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "gpt2": "gpt2",
    "gpt2-xl": "gpt2-xl",
    "pythia-1.4b": "EleutherAI/pythia-1.4b",
    "gpt-neo-1.3b": "EleutherAI/gpt-neo-1.3B",
}

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """Model, device, profile and seed of a run, checked when made.

    Raises:
        ValueError: a value that is not one of those in the table above.
    """

    model: str = "smollm2"
    device: str = "auto"
    profile: str = "default"
    seed: int = 0
    cache: Path = field(default_factory=lambda: Path(platformdirs.user_cache_dir("steering-book")))
    progress: str = "auto"
    scheduler: str = ""

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ValueError(
                f"BOOK_PROFILE={self.profile!r} is unknown; use one of {', '.join(PROFILES)}."
            )
        if (
            not 0 <= self.seed < 2**31
        ):  # what every generator takes, with room for those that a chapter counts on from here
            raise ValueError(f"BOOK_SEED={self.seed} must be a whole number from 0 to {2**31 - 1}.")
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise ValueError(
                f"BOOK_DEVICE={self.device!r} is unknown; use auto, cpu, mps, cuda or cuda:N."
            )
        if self.progress not in ("auto", "off"):
            raise ValueError(f"BOOK_PROGRESS={self.progress!r} is unknown; use auto or off.")
        if not re.fullmatch(r"|(tcp|tls)://\S+:\d+|local:[1-9]\d*", self.scheduler):
            raise ValueError(
                f"BOOK_SCHEDULER={self.scheduler!r} is no address; use tcp://host:port or tls://host:port, as the scheduler prints it, "
                "or local:N for N processes of this machine."
            )
        hub_name(self.model)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """The settings that the BOOK_* variables ask for; an empty variable counts as not set."""
        given = {field.name: environment.get(f"BOOK_{field.name.upper()}") for field in fields(cls)}
        chosen = {name: value for name, value in given.items() if value}
        if "seed" in chosen:
            if not chosen["seed"].isdecimal():
                raise ValueError(
                    f"BOOK_SEED={chosen['seed']!r} must be a whole number of at least 0."
                )
            chosen["seed"] = int(chosen["seed"])
        if "cache" in chosen:
            chosen["cache"] = Path(chosen["cache"]).expanduser().resolve()
        return cls(**chosen)

    def pick(self, *, smoke: T, default: T, paper: T) -> T:
        """The value for this run's profile, so that a chapter's sizes stand side by side in its configuration cell."""
        return {"smoke": smoke, "default": default, "paper": paper}[self.profile]

    def __str__(self) -> str:
        return (
            f"model {self.model} · device {self.device} · profile {self.profile} · seed {self.seed}"
        )


def hub_name(model: str) -> str:
    """The model hub's name for a name of the book, or for one that TransformerLens knows.

    Raises:
        ValueError: neither the book nor TransformerLens knows the name.
    """
    if model in MODEL_NAMES:
        return MODEL_NAMES[model]
    # Imported only here: it costs seconds, and the book's own names need none of it.
    from transformer_lens.supported_models import get_official_model_name

    try:
        return get_official_model_name(model)
    except ValueError:
        raise ValueError(
            f"model {model!r} is unknown; use one of {', '.join(MODEL_NAMES)}, or a name that TransformerLens lists."
        ) from None


SETTINGS = Settings.from_environment()


def show_progress() -> bool:
    """Progress is shown in terminals and live notebooks, never in published pages."""
    return SETTINGS.progress == "auto" and (sys.stderr.isatty() or "ipykernel" in sys.modules)
