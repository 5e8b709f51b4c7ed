"""Learning from rewards of completions that the model draws itself (GRPO)."""

from typing import Annotated, Literal

from pydantic import Field

from ftl.section import Section


class GrpoSection(Section):
    """The keys of `trl`, as trl names them."""

    reward_funcs: Annotated[tuple[str, ...], Field(min_length=1)]
    """Functions in files beside the config, as `rewards.accuracy` or `./rewards.py:accuracy`."""
    reward_weights: tuple[float, ...] = ()
    """What each of their rewards is multiplied by; 1 when absent."""
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = "sum_then_normalize"
    """Compare the sums of rewards in a group, or each reward by itself and add that up (GDPO)."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Divide by the standard deviation of the group's rewards, of the whole batch's, or by nothing (Dr. GRPO)."""
    num_generations: Annotated[int, Field(ge=2)] = 8
    """Completions of each prompt, which are compared with one another."""
    max_completion_length: Annotated[int, Field(ge=1)] = 256
    """Tokens of a completion, at most."""
    mask_truncated_completions: bool = False
    """Learn nothing from completions that did not end by themselves."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Completions are drawn at, and learned at."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw from the likeliest tokens that together have this probability."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Draw from so many of the likeliest tokens; from all with 0."""
    min_p: Annotated[float | None, Field(ge=0, le=1)] = None
    """Draw from tokens with at least this share of the likeliest one's probability."""
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    """Above 1 tokens that are there already are drawn less."""
    beta: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the divergence from the model before training; 0 needs no reference."""
    loss_type: Literal["grpo", "dapo", "dr_grpo"] = "dapo"
    """What tokens are averaged over: each completion, all of the batch, or their largest possible number."""
    log_completions: bool = False
    """Show some completions at each logged step."""
    num_completions_to_print: Annotated[int, Field(ge=1)] = 3
    """So many, with log_completions."""
