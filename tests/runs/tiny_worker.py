"""Preloaded by the tests' Dask workers: models are tiny and random; each load is noted in LOADS."""

import os
import tempfile
from pathlib import Path

import helpers.models.load
from tests.conftest import random_model, tiny_tokenizer


def load(name="smollm2", device="cpu", dtype=None):
    with open(os.environ["LOADS"], "a") as file:
        file.write(f"{os.getpid()} {name}\n")
    architecture = {"smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}.get(name, name)
    with tempfile.TemporaryDirectory() as folder:
        return random_model(architecture, tiny_tokenizer(Path(folder)))


helpers.models.load.load_model = load
