"""Dense layers keep their adapter beside experts of the same names.

In models whose experts are one stacked parameter, peft reads `gate_proj`, `up_proj`, `down_proj` or `gate` among the
target modules, also at the end of a full path, as the experts' parameters alone: the first dense layers and the shared
experts of a DeepSeek or GLM model then get no adapter, and nothing says so.

Upstream: peft.utils.transformers_weight_conversion, _convert_peft_config_moe, in 0.21.2. To be removed when
tests/runtime/models/test_support.py passes for deepseek_v3 without it.
"""

from typing import Any

from peft import LoraConfig, PeftConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils import transformers_weight_conversion as conversion
from torch import nn
from transformers.pytorch_utils import Conv1D

_original = conversion.convert_peft_config_for_transformers


def apply() -> None:
    """Have peft convert names of experts only. Called twice, it is as if called once."""
    conversion.convert_peft_config_for_transformers = _convert


def _convert(peft_config: PeftConfig, model: nn.Module, conversions: list[Any] | None) -> None:  # Any: peft's own
    if not isinstance(peft_config, LoraConfig) or peft_config.target_modules in (None, "all-linear"):
        _original(peft_config, model, conversions)
        return
    linear = {name for name, part in model.named_modules() if isinstance(part, nn.Linear | Conv1D)}
    dense = {name for name in linear if check_target_module_exists(peft_config, name)}
    targets = peft_config.target_modules
    if targets is not None and not isinstance(targets, str):
        peft_config.target_modules = sorted(set(targets) - dense)
    if peft_config.target_modules:
        _original(peft_config, model, conversions)
    if peft_config.target_modules is not None and not isinstance(peft_config.target_modules, str):
        peft_config.target_modules = sorted({*peft_config.target_modules, *dense})
