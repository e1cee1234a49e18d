"""Models that go to other processes by name, since half a gigabyte is too much to send."""

from __future__ import annotations

import sys
from functools import lru_cache, partial
from typing import Any, NamedTuple

from helpers.settings import MODEL_NAMES, SETTINGS


class ModelName(NamedTuple):
    """What another process needs in order to load the same model.

    Its name as ``BOOK_MODEL`` has it, the kind of device that results are for (``cpu`` or
    ``cuda``), the type of its numbers, and :func:`helpers.models.load.fingerprint`.
    """

    name: str
    device: str
    dtype: Any
    weights: str

    @classmethod
    def of(cls, model: Any) -> ModelName:
        # Takes seconds to import, and a Dask scheduler, which runs nothing, needs none of it.
        from helpers.models.load import device_of, fingerprint

        names = {official: name for name, official in MODEL_NAMES.items()}
        name = names.get(model.cfg.model_name, model.cfg.model_name)
        return cls(name, device_of(model).type, model.W_U.dtype, fingerprint(model))

    def load(self) -> Any:
        """The model, loaded once a process.

        Raises:
            RuntimeError: it has other weights, or would be on another kind of device.
        """
        return _loaded(self)


@lru_cache(maxsize=1)
def _loaded(named: ModelName) -> Any:
    from helpers.models.load import fingerprint, load_model, resolve_device

    device = resolve_device(SETTINGS.device)
    if device.type != named.device:
        raise RuntimeError(
            f"a worker computes on {device.type}, but the results are for {named.device}. "
            f"Set BOOK_DEVICE={named.device} for the workers, or start from a machine like theirs."
        )
    # Free the former model before the next one takes memory.
    _loaded.cache_clear()
    model = load_model(named.name, SETTINGS.device, named.dtype)
    if fingerprint(model) != named.weights:
        raise RuntimeError(
            f"the weights of {named.name!r} on a worker are not those of the model in use, and a "
            "worker can only load a model by its name. Run a model of your own in one process: "
            "without BOOK_SCHEDULER and with n_jobs = 1."
        )
    return model


def is_model(value: Any) -> bool:
    bridge = sys.modules.get("transformer_lens.model_bridge")  # imported where there is a model
    return bridge is not None and isinstance(value, bridge.TransformerBridge)


def to_names(function: Any) -> Any:
    """Replace models by their names in a :func:`functools.partial`, and in others inside it."""
    return ModelName.of(function) if is_model(function) else _inside(function, to_names)


def to_models(function: Any) -> Any:
    """Undo :func:`to_names`."""
    is_name = isinstance(function, ModelName)
    return function.load() if is_name else _inside(function, to_models)


def _inside(value: Any, change: Any) -> Any:
    if not isinstance(value, partial):
        return value
    named = {name: change(item) for name, item in value.keywords.items()}
    return partial(value.func, *map(change, value.args), **named)
