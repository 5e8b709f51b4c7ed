"""`accelerator_config`, settings of accelerate's loader and accumulation: what ftl does whatever they say, and what it
cannot do."""

from typing import Any

from ftl.config.dialect import Values

_WITHOUT_EFFECT = (
    *("dispatch_batches", "use_seedable_sampler", "non_blocking", "gradient_accumulation_kwargs.sync_each_batch"),
    "gradient_accumulation_kwargs.sync_with_dataloader",
)
"""Each process reads its own rows, in an order that the seed gives; gradients are the same whenever they are summed."""
_REFUSED = {
    "split_batches": (
        True,
        "true would make micro_batch_size that of all processes together; divide it by their number and remove this",
    ),
    "even_batches": (
        False,
        "false cannot be: processes wait for each other in each step, so the last batch of an epoch is filled up, or "
        "left out with `dataloader_drop_last`; remove it",
    ),
}


def from_settings(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    if not isinstance(value, dict):
        raise ValueError("must be a mapping, such as {split_batches: false}")
    accumulation = value.get("gradient_accumulation_kwargs") or {}
    if not isinstance(accumulation, dict):
        raise ValueError("gradient_accumulation_kwargs must be a mapping")
    settings = {key: item for key, item in value.items() if key != "gradient_accumulation_kwargs"}
    settings |= {f"gradient_accumulation_kwargs.{key}": item for key, item in accumulation.items()}
    for key, item in settings.items():
        if key == "gradient_accumulation_kwargs.num_steps":
            raise ValueError("num_steps: the key `gradient_accumulation_steps` says it; remove it")
        if key not in _REFUSED and key not in _WITHOUT_EFFECT:
            raise ValueError(f"unknown key {key}: must be one of {', '.join((*_REFUSED, *_WITHOUT_EFFECT))}")
        if item is not None and not isinstance(item, bool):
            raise ValueError(f"{key} must be true or false")
        if key in _REFUSED and item is _REFUSED[key][0]:
            raise ValueError(f"{key}: {_REFUSED[key][1]}")
    return {}
