"""The keys below `trl`: what ftl honours, in today's form, and why not the rest."""

import re
from typing import Any

from ftl.config.dialect import NotBuiltError, Values

_VLLM = "completions are drawn by the model in training itself, by transformers; the images hold no vLLM"
_REFERENCE = "the reference is the model before training, and stays it"
_REFUSED = {
    "use_vllm": _VLLM,
    **dict.fromkeys(("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"), _REFERENCE),
    "async_prefetch": "completions are always those of the model as it is",
    "rollout_func": "completions are drawn by transformers; reward functions see them whole",
    "generation_kwargs": "write temperature, top_p, top_k, min_p and repetition_penalty beside it",
    "chat_template_kwargs": "`chat_template_kwargs` belongs to the top of the config",
    "use_liger_loss": "the loss is made in chunks without it",
}
_HARMLESS: tuple[Any, ...] = (None, False, {}, [])  # Any: what YAML holds
_FIXED = {"num_iterations": 1, "importance_sampling_level": "token"}
_CLIPS = ("epsilon", "epsilon_high")
_SCALES = {True: "group", False: "none"}
_LOSSES = ("bnpo", "cispo", "sapo", "vespo", "luspo")


def from_settings(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    """`trl`, its reward functions named by file."""
    if not isinstance(value, dict) or not value:
        return {"trl": value} if value else {}
    settings: dict[str, Any] = {}
    for key, setting in value.items():
        if key in _REFUSED:
            if setting not in _HARMLESS:
                raise ValueError(f"{key}: {_REFUSED[key]}; remove it")
        elif key in _FIXED:
            if setting not in (None, _FIXED[key]):
                raise NotBuiltError(f"{key} = {setting}: not built yet: every step has fresh completions")
        elif key in _CLIPS or str(key).startswith("vllm_") or setting is None:
            continue  # nothing is clipped where completions are fresh; and there is no vLLM to set
        elif key == "reward_funcs":
            settings[key] = _functions(setting)
        elif key == "scale_rewards" and isinstance(setting, bool):
            settings[key] = _SCALES[setting]
        elif key == "loss_type" and setting in _LOSSES:
            raise NotBuiltError(f"loss_type = {setting}: not built yet: so far grpo, dapo and dr_grpo")
        else:
            settings[key] = setting
    return {"trl": settings}


def without_effect(value: Any) -> str | None:  # Any: what YAML holds
    """The settings of `trl` that change nothing, in a sentence; None without any."""
    given = [str(key) for key in value if value[key] is not None] if isinstance(value, dict) else []
    clips = [key for key in given if key in _CLIPS]
    engines = [key for key in given if key.startswith("vllm_")]
    told = [f"{', '.join(clips)}: nothing is clipped where every step has fresh completions"] if clips else []
    told += [f"{', '.join(engines)}: there is no vLLM that draws them"] if engines else []
    return f"has settings without effect: {'; '.join(told)}" if told else None


def _functions(names: Any) -> list[Any]:  # Any: what YAML holds
    """module.function is a file beside the config."""
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list):
        raise ValueError("reward_funcs must be a list of functions, such as [rewards.accuracy]")
    return [_by_file(name) for name in names]


def _by_file(name: Any) -> Any:  # Any: what YAML holds
    if isinstance(name, str) and re.fullmatch(r".+\.py:\w+", name):
        return name
    if isinstance(name, str) and re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name):
        module, _, function = name.rpartition(".")
        return f"./{module.replace('.', '/')}.py:{function}"
    raise ValueError(f"reward_funcs: {name!r}: must be module.function, a file beside the config; models are not run")
