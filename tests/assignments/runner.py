"""Run a set's graded cells in this process, with a small random model in the place of the embedded one."""

from __future__ import annotations

import contextlib
import io
import sys
from types import SimpleNamespace

import torch
from transformers import AutoTokenizer

from assignments import checks
from assignments.tools.sources import marks, read_set
from helpers.models.smollm2 import embedded_model

torch.set_num_threads(1)
sys.modules["checks"] = checks  # the notebooks import it by this name


def small_model() -> None:
    """Let the checks take a tiny model, with the embedded one's tokenizer, for the embedded model."""
    tokenizer = AutoTokenizer.from_pretrained(
        embedded_model(), add_bos_token=True, local_files_only=True
    )
    checks._MODELS.clear()
    checks._MODELS[()] = SimpleNamespace(tokenizer=tokenizer)
    checks._MODELS[()] = checks._random_model("llama", seed=99)


class Runner:
    """One set, whose cells can be run with other answers."""

    def __init__(self, name: str) -> None:
        self.cells = [cell for cell in read_set(name).cells if cell.cell_type == "code"]
        self.answers = {
            marks(cell).grade_id: cell.source for cell in self.cells if marks(cell).solution
        }

    def run(self, answers: dict[str, str], *, look: bool = False) -> dict[str, BaseException]:
        """What went wrong, by cell: nothing if all is right.

        Args:
            answers: source of the answer cells that are to be other than the reference.
            look: also run the cells that only show something.
        """
        space: dict = {"__name__": "__main__"}
        wrong = {}
        for cell in self.cells:
            name = marks(cell).grade_id
            if "look" in cell.metadata.get("tags", []) and not look:
                continue
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(answers.get(name, cell.source), name, "exec"), space)
            except BaseException as error:  # student code can raise anything
                wrong[name] = error
        return wrong
