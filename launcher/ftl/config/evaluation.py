"""What evaluations decide: which model is kept, and when to stop early; and what they have the model write."""

from typing import Annotated, Literal

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section


class EvaluationSection(Section):
    early_stopping_patience: Annotated[int | None, Flat("early_stopping_patience"), Field(ge=1)] = None
    """Training ends once so many evaluations in a row were no better than the best before them."""
    load_best: Annotated[bool | None, Flat("load_best_model_at_end")] = None
    """The finished model is that of the best evaluation; true with early_stopping_patience."""
    metric: Annotated[str, Flat("metric_for_best_model"), Field(min_length=1)] = "loss"
    """The number of an evaluation that says how good it is, as its event calls it; an eval_ before it is left out."""
    greater_is_better: Annotated[bool | None, Flat("greater_is_better")] = None
    """Whether more of that number is better; when absent, for all but losses, perplexity and ter."""

    num_samples: Annotated[int, Flat("eval_table_size"), Field(ge=0)] = 0
    """So many prompts of the evaluation rows are answered, greedily, at each evaluation, and shown."""
    max_new_tokens: Annotated[int, Flat("eval_max_new_tokens"), Field(ge=1)] = 128
    """Where an answer is cut off."""
    scores_text: Annotated[bool, Flat("do_causal_lm_eval")] = False
    """All evaluation prompts are answered, greedily, and the answers scored against what was expected."""
    text_metrics: Annotated[
        tuple[Literal["sacrebleu", "chrf", "ter", "perplexity"], ...], Flat("eval_causal_lm_metrics")
    ] = ()
    """The scores of do_causal_lm_eval; sacrebleu, chrf and ter when absent."""

    @property
    def loads_best(self) -> bool:
        return self.early_stopping_patience is not None if self.load_best is None else self.load_best
