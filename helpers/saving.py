"""Keep a fitted intervention: θ as safetensors, with what is needed to tell whether it fits a model and a prompt."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformer_lens.model_bridge import TransformerBridge

from helpers.dynamic import DynScalar, DynScalarBias, DynScalarHidden
from helpers.interventions import ActivScalar, Intervention, SteerVec
from helpers.models import device_of, fingerprint
from helpers.sites import Points

KINDS = {kind.__name__: kind for kind in (ActivScalar, SteerVec, DynScalar, DynScalarBias, DynScalarHidden)}


def save(intervention: Intervention, model: TransformerBridge, path: str | Path) -> None:
    """Write θ and its settings to one file; an older file of that name is replaced only once the new one is complete.

    Raises:
        ValueError: the model is not the one that the intervention was made for.
        OSError: the file cannot be written.
    """
    intervention.points.check_model(model)
    path = Path(path)
    settings = {
        "kind": type(intervention).__name__,
        "points": asdict(intervention.points),
        "model": model.cfg.model_name,
        "fingerprint": fingerprint(model),
    }
    theta = {site: value.detach().cpu().contiguous() for site, value in intervention.theta.items()}
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(handle)
    try:
        save_file(theta, part, metadata={"intervention": json.dumps(settings)})
        os.replace(part, path)
    except SafetensorError as error:
        raise OSError(f"could not write {path}: {error}. Is the disk full?") from error
    finally:
        Path(part).unlink(missing_ok=True)


def load(path: str | Path, model: TransformerBridge, *, n_pos: int | None = None) -> Intervention:
    """Read an intervention back.

    Args:
        path: a file that :func:`save` wrote.
        model: the model to use it on; must be the one that it was fitted on, weights and all.
        n_pos: prompt length in tokens that it must be tied to, if given.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or damaged; fitted on another model; tied to another prompt length.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            settings = json.loads(file.metadata()["intervention"])
            theta = {site: file.get_tensor(site) for site in file.keys()}
        kind = KINDS[settings["kind"]]
        points = Points(**{key: tuple(value) if isinstance(value, list) else value for key, value in settings["points"].items()})
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold a saved intervention, or is damaged: {error!r}.") from error
    points.check_model(model)
    if settings["fingerprint"] != fingerprint(model):
        raise ValueError(
            f"{path} was fitted on {settings['model']} with weights {settings['fingerprint']}, and this {model.cfg.model_name} "
            f"has weights {fingerprint(model)}."
        )
    if n_pos is not None and points.n_pos != n_pos:
        raise ValueError(f"{path} is tied to prompts of {points.n_pos} tokens, not {n_pos}.")
    intervention = kind(points, dtype=next(iter(theta.values())).dtype, device=device_of(model))
    intervention.theta.load_state_dict(theta)
    return intervention
