"""Evaluation documents as questions: what the model is given, and what it should have written."""

from dataclasses import dataclass

import numpy as np

from ftl.tokens import MASKED
from ftl_runtime.data.dataset import Document


@dataclass(frozen=True)
class Prompt:
    given: list[int]
    expected: list[int]


def prompt_of(document: Document) -> Prompt | None:
    """All before the first trained token, and the answer that begins there.

    Of a text that is trained from its start the first half is given. None where nothing is trained, or nothing is left.
    """
    (trained,) = np.nonzero(document.labels != MASKED)
    if not len(trained):
        return None
    first = int(trained[0])
    if first <= 1:  # nothing but a BOS token stands before
        first = len(document.ids) // 2
        stop = len(document.ids)
    else:
        gaps = np.nonzero(np.diff(trained) > 1)[0]
        stop = int(trained[gaps[0]] if len(gaps) else trained[-1]) + 1
    ids = document.ids.tolist()
    return Prompt(ids[:first], ids[first:stop]) if first else None
