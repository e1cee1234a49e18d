"""How likely a model is to give either answer at all, which a logit difference does not say."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.checks import checked, whole
from helpers.models.run import last_logits
from helpers.prompts.prompts import Prompts


@torch.no_grad()
@checked
def answer_ranks(
    model: TransformerBridge, prompts: Prompts, *, batch_size: int = 64
) -> pd.DataFrame:
    """Rank and probability of both answers among all tokens, a row for each prompt.

    Args:
        prompts: also of several lengths.
        batch_size: prompts in one forward pass.

    Returns:
        Columns ``prompt``, ``correct_rank``, ``correct_p``, ``wrong_rank``, ``wrong_p``; rank 1 is
        the token that the model gives.
    """
    chunks = prompts.tokens.split(whole("batch_size", batch_size))
    logits = torch.cat([last_logits(model, chunk) for chunk in chunks]).float()
    p, table = logits.softmax(-1), {"prompt": prompts.texts}
    for name, answers in {"correct": prompts.correct, "wrong": prompts.wrong}.items():
        own = logits.gather(1, answers[:, None])
        table[f"{name}_rank"] = (1 + (logits > own).sum(1)).tolist()
        table[f"{name}_p"] = p.gather(1, answers[:, None])[:, 0].tolist()
    return pd.DataFrame(table)


@checked
def answer_table(model: TransformerBridge, sets: Mapping[str, Prompts]) -> pd.DataFrame:
    """:func:`answer_ranks` in short, a row for each set of prompts.

    Returns:
        The number of prompts; the shares of those where the model gives the correct answer, the
        wrong one, and either; medians of both ranks; means of both probabilities.
    """
    if not isinstance(sets, Mapping) or not sets:
        raise ValueError("answer_table takes a dictionary of names and Prompts, not an empty one.")
    rows = {}
    for name, prompts in sets.items():
        found = answer_ranks(model, prompts)
        correct, wrong = found["correct_rank"] == 1, found["wrong_rank"] == 1
        rows[name] = {
            "prompts": len(found),
            "correct first": correct.mean(),
            "wrong first": wrong.mean(),
            "either first": (correct | wrong).mean(),
            "median rank, correct": found["correct_rank"].median(),
            "median rank, wrong": found["wrong_rank"].median(),
            "mean p, correct": found["correct_p"].mean(),
            "mean p, wrong": found["wrong_p"].mean(),
        }
    return pd.DataFrame.from_dict(rows, orient="index")
