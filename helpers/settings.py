"""What every chapter runs on: one frozen object, read from the environment in one place.

=============== ============================== ==================================================
variable        values                         meaning
=============== ============================== ==================================================
BOOK_MODEL      smollm2 (default), gpt2,       the language model of every chapter; any other
                gpt2-xl, pythia-1.4b,          name that TransformerLens knows is downloaded from
                gpt-neo-1.3b, ...              the model hub
BOOK_DEVICE     auto (default), cpu, mps,      the device of models and tensors; auto is CUDA if
                cuda, cuda:1, ...              available, else the CPU
BOOK_PROFILE    smoke, default, paper          size of a run: seconds for tests, minutes on two
                                               cores, or the papers' sizes for a GPU
BOOK_SEED       0 (default), 100, ...          first seed of every chapter: prompts, initial
                                               parameters, controls and resampling depend on it
BOOK_CACHE      a folder                       where the embedded model is kept
BOOK_PROGRESS   auto (default), off            progress bars in terminals and notebooks; the build
                                               of the published pages turns them off
BOOK_SCHEDULER  ``tcp://host:8786``, ...,      the Dask scheduler whose workers run sweeps and
                ``local:2``, ...               searches; local:N starts N workers on this machine.
                                               Unset (default): everything in one process
BOOK_JOBS       0 (default), 1, 2, ...         chapters that ``make book`` executes at a time; 0 is
                                               one a core, and one alone on a GPU
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

# The book's short name -> the model hub's. The embedded model needs no hub.
MODEL_NAMES = {
    "smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "gemma3-270m": "google/gemma-3-270m",
    "gpt2": "gpt2",
    "gpt2-xl": "gpt2-xl",
    "pythia-1.4b": "EleutherAI/pythia-1.4b",
    "gpt-neo-1.3b": "EleutherAI/gpt-neo-1.3B",
}

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """Model, device, profile and seed of a run, checked on construction.

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
    jobs: int = 0

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ValueError(
                f"BOOK_PROFILE={self.profile!r} is unknown; use one of {', '.join(PROFILES)}."
            )
        # What every generator takes, with room for the seeds that a chapter counts up from here.
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"BOOK_SEED={self.seed} must be a whole number from 0 to {2**31 - 1}.")
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise ValueError(
                f"BOOK_DEVICE={self.device!r} is unknown; use auto, cpu, mps, cuda or cuda:N."
            )
        if self.progress not in ("auto", "off"):
            raise ValueError(f"BOOK_PROGRESS={self.progress!r} is unknown; use auto or off.")
        if not re.fullmatch(r"|(tcp|tls)://\S+:\d+|local:[1-9]\d*", self.scheduler):
            raise ValueError(
                f"BOOK_SCHEDULER={self.scheduler!r} is no address; use tcp://host:port or "
                "tls://host:port, as the scheduler prints it, or local:N for N local processes."
            )
        if not 0 <= self.jobs <= 1024:
            raise ValueError(f"BOOK_JOBS={self.jobs} must be a whole number from 0 to 1024.")
        hub_name(self.model)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """The settings in the BOOK_* variables; an empty variable counts as unset."""
        given = {field.name: environment.get(f"BOOK_{field.name.upper()}") for field in fields(cls)}
        chosen = {name: value for name, value in given.items() if value}
        for name in ("seed", "jobs"):
            text = chosen.get(name, "0")
            if not text.isdecimal():
                raise ValueError(
                    f"BOOK_{name.upper()}={text!r} must be a whole number of at least 0."
                )
            chosen[name] = int(text)
        if "cache" in chosen:
            chosen["cache"] = Path(chosen["cache"]).expanduser().resolve()
        return cls(**chosen)

    def pick(self, *, smoke: T, default: T, paper: T) -> T:
        """The value for this run's profile."""
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
    # Imported here: it takes seconds, and the book's own names do not need it.
    from transformer_lens.supported_models import get_official_model_name

    try:
        return get_official_model_name(model)
    except ValueError:
        raise ValueError(
            f"model {model!r} is unknown; use one of {', '.join(MODEL_NAMES)}, "
            "or another name that TransformerLens lists."
        ) from None


SETTINGS = Settings.from_environment()


def show_progress() -> bool:
    """Whether to show progress: in terminals and live notebooks, never in published pages."""
    return SETTINGS.progress == "auto" and (sys.stderr.isatty() or "ipykernel" in sys.modules)
