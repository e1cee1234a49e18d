"""Checks of the problem sets: comparisons that say what is wrong, models to test answers on.

Students get this folder beside each notebook. A check fails with an AssertionError whose message is
meant for them; nothing here knows about points or answers.
"""

from .models import HOOK_LEFT, WEIGHTS_CHANGED, the_model, tiny, untouched
from .own_work import own_work
from .values import Salted, Wrong, must_keep, must_raise, near, shaped, variant

__all__ = [
    "HOOK_LEFT",
    "Salted",
    "WEIGHTS_CHANGED",
    "Wrong",
    "must_keep",
    "must_raise",
    "near",
    "own_work",
    "shaped",
    "the_model",
    "tiny",
    "untouched",
    "variant",
]
