"""What an evaluation has the model write: samples to look at, and scores of all answers."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import islice
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from ftl.config.evaluation import EvaluationSection
from ftl.errors import BackendError
from ftl_runtime.data.dataset import TokenRows
from ftl_runtime.evaluate.generate import answers
from ftl_runtime.evaluate.prompts import Prompt, prompt_of

_DEFAULT_METRICS = ("sacrebleu", "chrf", "ter")
_GIVEN_ANYWAY = "perplexity"
"""Every evaluation has it."""
_SHOWN_CHARACTERS = 2000

Sample = dict[str, str]
"""prompt, expected, generated: as texts."""


def score(name: str, written: Sequence[str], expected: Sequence[str]) -> float:
    """A score of sacrebleu over all answers, from 0 to 100; ter, the share of edits, may be higher."""
    import sacrebleu

    scores: dict[str, Any] = {  # Any: sacrebleu's functions have signatures of their own
        "sacrebleu": sacrebleu.corpus_bleu,
        "chrf": sacrebleu.corpus_chrf,
        "ter": sacrebleu.corpus_ter,
    }
    return float(scores[name](list(written), [list(expected)]).score)


class Writing:
    """Answers prompts of the evaluation rows: the first few for show, all of them where text is scored."""

    def __init__(
        self, evaluation: EvaluationSection, rows: TokenRows, tokenizer: PreTrainedTokenizerBase, *, batch_size: int
    ) -> None:
        """Raises BackendError when sacrebleu is needed and not installed."""
        self._evaluation = evaluation
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        named = evaluation.text_metrics or _DEFAULT_METRICS
        self._metrics = [name for name in named if name != _GIVEN_ANYWAY] if evaluation.scores_text else []
        if self._metrics and find_spec("sacrebleu") is None:
            raise BackendError(
                "do_causal_lm_eval: needs the package sacrebleu, which is not installed here; "
                "pip install 'ftl-launcher[metrics]', or remove the key"
            )
        wanted = None if self._metrics else evaluation.num_samples
        found = (prompt for document in rows.documents() if (prompt := prompt_of(document)) is not None)
        self._prompts: list[Prompt] = list(islice(found, wanted))

    def evaluate(self, model: nn.Module, on_answer: Callable[[], None]) -> tuple[dict[str, float], list[Sample]]:
        """The scores by name, and the samples. `on_answer` is called after each answer."""
        written: list[str] = []
        given = [prompt.given for prompt in self._prompts]
        for ids in answers(
            model,
            self._tokenizer,
            given,
            max_new_tokens=self._evaluation.max_new_tokens,
            batch_size=self._batch_size,
        ):
            written.append(self._text(ids))
            on_answer()
        expected = [self._text(prompt.expected) for prompt in self._prompts]
        scores = {name: score(name, written, expected) for name in self._metrics if written}
        shown = zip(self._prompts, expected, written, strict=True)
        samples = [
            {
                "prompt": self._text(prompt.given)[-_SHOWN_CHARACTERS:],
                "expected": answer[:_SHOWN_CHARACTERS],
                "generated": text[:_SHOWN_CHARACTERS],
            }
            for prompt, answer, text in islice(shown, self._evaluation.num_samples)
        ]
        return scores, samples

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def plan_writing(
    evaluation: EvaluationSection, rows: object, tokenizer: PreTrainedTokenizerBase, *, batch_size: int
) -> Writing | None:
    """None where nothing is to be written, or the rows are no texts."""
    if not (evaluation.num_samples or evaluation.scores_text) or not isinstance(rows, TokenRows):
        return None
    return Writing(evaluation, rows, tokenizer, batch_size=batch_size)
