"""What every chapter runs on: one frozen object, read from the environment in one place."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn, TypeVar

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
# What values look like, and the same in words.
ALLOWED = {
    "profile": ("|".join(PROFILES), f"one of {', '.join(PROFILES)}"),
    "device": (r"auto|cpu|mps|cuda(:\d+)?", "auto, cpu, mps, cuda or cuda:N"),
    "progress": ("auto|off", "auto or off"),
    "fits": ("recorded|anew|record", "recorded, anew or record"),
    "seed": ("[0-9]{1,9}", "a whole number of at most nine digits"),
    "jobs": ("[0-9]{1,3}", "a whole number of at most three digits"),
    "scheduler": (
        r"|(tcp|tls)://\S+:\d+|local:[1-9]\d*",
        "tcp://host:port or tls://host:port, as the scheduler prints it, or local:N",
    ),
}

# Packages of the checkout whose modules are run as commands.
COMMANDS = ("helpers", "book", "assignments", "benchmarks", "live")

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """Model, device, profile and seed of a run. BOOK_MODEL sets ``model``, and so on.

    Attributes:
        model: a short name of ``MODEL_NAMES``, or one that TransformerLens knows.
        device: ``auto`` is CUDA if there is one, else the CPU.
        profile: size of a run: seconds (smoke), minutes on two cores, or the papers' sizes.
        seed: the first one; prompts, initial parameters, controls and resampling depend on it.
        cache: folder of the embedded model and of sweeps.
        progress: ``off`` for no progress bars.
        scheduler: the Dask scheduler whose workers run sweeps and searches; ``local:N`` starts N
            workers on this machine. Empty: everything in one process.
        jobs: chapters that ``make book`` executes at a time; 0 is one a core, and one on a GPU.
        fits: ``recorded`` reads the fits that are recorded, ``anew`` makes all of them,
            ``record`` makes and records them.

    Raises:
        ValueError: a value that is not allowed.
    """

    model: str = "smollm2"
    device: str = "auto"
    profile: str = "default"
    seed: int = 0
    cache: Path = field(default_factory=lambda: Path(platformdirs.user_cache_dir("steering-book")))
    progress: str = "auto"
    scheduler: str = ""
    jobs: int = 0
    fits: str = "recorded"

    def __post_init__(self) -> None:
        for name, (pattern, words) in ALLOWED.items():
            value = getattr(self, name)
            if not re.fullmatch(pattern, str(value)):
                raise ValueError(f"BOOK_{name.upper()}={value} is not allowed; use {words}.")
        hub_name(self.model)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """The settings in the BOOK_* variables; an empty variable counts as unset.

        Raises:
            ValueError: a value that is not allowed, or a BOOK_* variable that does not exist.
        """
        known = {f"BOOK_{field.name.upper()}": field.name for field in fields(cls)}
        for variable in sorted(environment):
            if variable.startswith("BOOK_") and variable not in known:
                near = get_close_matches(variable, known, n=1) or sorted(known)
                raise ValueError(f"there is no variable {variable}; use {', '.join(near)}.")
        chosen = {known[name]: environment[name] for name in known if environment.get(name)}
        for name in ("seed", "jobs"):
            if re.fullmatch(ALLOWED[name][0], chosen.get(name, "")):
                chosen[name] = int(chosen[name])
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
        TypeError, ValueError: no text, or a name that neither the book nor TransformerLens knows.
    """
    if not isinstance(model, str):
        raise TypeError(f"the name of a model must be a text, not {model!r}.")
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


def refuse(error: Exception) -> NoReturn:
    """Raise an error about a variable; in a command of the book, end with its sentence and 2.

    A command is a module of the checkout that Python runs, as in ``python -m helpers.ruler.table``.
    In notebooks, tests and programs of other people it is an exception like any other.
    """
    program = getattr(sys.modules["__main__"], "__spec__", None)
    if program is None or program.name.partition(".")[0] not in COMMANDS:
        raise error
    print(error, file=sys.stderr)
    sys.exit(2)


try:
    SETTINGS = Settings.from_environment()
except ValueError as error:
    refuse(error)


def show_progress() -> bool:
    """Whether to show progress: in terminals and live notebooks, never in published pages."""
    return SETTINGS.progress == "auto" and (sys.stderr.isatty() or "ipykernel" in sys.modules)
