"""A model's config with keys changed by the user."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ftl.errors import ConfigError

_KEY = "overrides_of_model_config"
_ROPE = ("rope_scaling", "rope_parameters")
_KEPT_OF_ROPE = ("rope_theta", "partial_rotary_factor")


def override(config: PreTrainedConfig, given: Mapping[str, Any]) -> None:  # Any: what config.json holds
    """Set each key in the config, or in that of its text model. Raises ConfigError for one that neither has."""
    for key, value in given.items():
        _set(config, key, value, f"{_KEY}.{key}")


def _set(config: PreTrainedConfig, key: str, value: Any, where: str) -> None:  # Any: what config.json holds
    owners = [owner for owner in (config, config.get_text_config()) if hasattr(owner, key)]
    if not owners:
        near = get_close_matches(key, config.to_dict(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{where}: the config of a {config.model_type} model has no such key{hint}")
    for owner in {id(owner): owner for owner in owners}.values():
        if key in _ROPE:
            _set_rope(owner, value, where)
        elif isinstance(getattr(owner, key), PreTrainedConfig) and isinstance(value, Mapping):
            for name, item in value.items():
                _set(getattr(owner, key), name, item, f"{where}.{name}")
        else:
            try:
                setattr(owner, key, value)
            except (StrictDataclassError, ValueError, TypeError) as error:
                raise ConfigError(f"{where} = {value!r}: {str(error).strip().splitlines()[-1].strip()}") from error


def _set_rope(config: PreTrainedConfig, value: Any, where: str) -> None:  # Any: what config.json holds
    """Set how positions are scaled, with the base frequency that the config has unless another is given."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: must be a mapping, such as {{rope_type: yarn, factor: 4.0}}")
    scaling = {name: item for name, item in value.items() if name != "type"}
    kind = value.get("rope_type", value.get("type"))
    known = ("default", *(name for name in ROPE_INIT_FUNCTIONS if name != "default"))
    if kind not in known:
        raise ConfigError(f"{where}: rope_type = {kind}: must be one of {', '.join(known)}")
    current = config.rope_parameters or {}
    by_layer = current.get("full_attention")  # models with windows have one set for each kind of layer
    kept = {name: item for name, item in (by_layer or current).items() if name in _KEPT_OF_ROPE}
    parameters = {**kept, **scaling, "rope_type": kind}
    config.rope_parameters = {**current, "full_attention": parameters} if by_layer else parameters
    try:
        config.standardize_rope_params()
        config.validate_rope()
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {error.args[0]}") from error
