"""LoRA on top of a base model."""

from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from ftl.config.adapter import LoraSection
from ftl.errors import ConfigError
from ftl_runtime.context import Context
from ftl_runtime.models.linear import linear_layers
from ftl_runtime.patches import peft_moe_targets


def add_adapter(
    model: PreTrainedModel, adapter: LoraSection | None, *, checkpoint: Path | None = None
) -> PreTrainedModel | PeftModel:
    """The model with a trainable adapter, drawn from torch's random state, or read from `checkpoint`.

    Without an adapter section the model itself.
    """
    if adapter is None:
        return model
    peft_moe_targets.apply()
    if checkpoint is not None:
        return PeftModel.from_pretrained(model, str(checkpoint), is_trainable=True)
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]  # declared int, used as a factor
        lora_dropout=adapter.dropout,
        target_modules=_targets(model, adapter),
        modules_to_save=list(adapter.modules_to_save) or None,
    )
    try:
        return get_peft_model(model, lora)
    except ValueError as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"lora_target_modules: {first}") from error


def warn_untrained_tokens(num_added: int, adapter: LoraSection | None, ctx: Context) -> None:
    """Say when tokens were added whose embeddings stay random, because the adapter leaves embeddings frozen."""
    if num_added and adapter is not None and not adapter.modules_to_save:
        ctx.warn(
            f"{num_added} tokens were added, but their embeddings stay random under an adapter; "
            "to train them set lora_modules_to_save: [embed_tokens, lm_head]"
        )


def _targets(model: PreTrainedModel, adapter: LoraSection) -> str | list[str]:
    if isinstance(adapter.target_modules, str):
        return adapter.target_modules
    if adapter.target_modules is not None and not adapter.target_linear:
        return list(adapter.target_modules)
    return [*linear_layers(model), *(adapter.target_modules or ())]
