"""What rules out that several processes work on one copy of the model."""

from ftl.config.dialect import Values
from ftl.config.rules.rule import Holds, KeyRule, both, is_given

_OPTIMIZERS = ("adamw_torch_fused", "adamw_torch", "sgd")
"""Those that tests/runtime/parallel trains on cut weights."""


def _is_several(key: str) -> Holds:
    return lambda given: given.get(key) not in (None, False, 0, 1)


def _untried_optimizer(given: Values) -> bool:
    return given.get("optimizer", _OPTIMIZERS[0]) not in _OPTIMIZERS


def _is_not_sft(given: Values) -> bool:
    return given.get("objective") not in (None, "sft")


def _compiles(given: Values) -> bool:
    return given.get("torch_compile") is True


_Other = tuple[str, Holds, str, str]
"""A key, whether it is on, what it does, and the remedy."""

_BESIDE_CUT_WEIGHTS: tuple[_Other, ...] = (
    *(
        (key, is_given(key), "spreads the same weights in its own way", "keep one of them")
        for key in ("deepspeed", "fsdp", "fsdp_config")
    ),
    ("adapter", is_given("adapter"), "has been tried on whole weights only", "use fsdp_config, which shards adapters"),
    *(
        (key, is_given(key), "keeps weights in few bits, which are not cut", "remove one of them")
        for key in ("load_in_8bit", "load_in_4bit", "gptq")
    ),
    ("optimizer", _untried_optimizer, "has not been tried on weights that are cut", f"use {', '.join(_OPTIMIZERS)}"),
    ("objective", _is_not_sft, "has been tried on whole weights only", "use fsdp_config in its place"),
    ("qat", is_given("qat"), "has been tried on whole weights only", "remove one of them"),
    ("torch_compile", _compiles, "has not been tried with it", "remove one of them"),
    ("load_best_model_at_end", is_given("load_best_model_at_end"), "reads whole weights", "use save_strategy: best"),
)

_BESIDE_SHARED_ROWS: tuple[_Other, ...] = (
    ("tensor_parallel_size", _is_several("tensor_parallel_size"), "has not been tried with it", "keep one of them"),
    ("deepspeed", is_given("deepspeed"), "has not been tried with it", "keep one of them"),
    ("torch_compile", _compiles, "has not been tried with it", "remove one of them"),
    ("objective", _is_not_sft, "compares or scores whole rows", "remove one of them"),
    ("neftune_noise_alpha", is_given("neftune_noise_alpha"), "depends on the length of a row", "remove one of them"),
)


def _rules(key: str, others: tuple[_Other, ...]) -> tuple[KeyRule, ...]:
    return tuple(
        KeyRule(key, both(_is_several(key), is_other), f"cannot be used together with `{other}`, which {why}", remedy)
        for other, is_other, why, remedy in others
    )


MESH = (*_rules("tensor_parallel_size", _BESIDE_CUT_WEIGHTS), *_rules("context_parallel_size", _BESIDE_SHARED_ROWS))
