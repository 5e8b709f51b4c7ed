"""What can be known before a job starts from the config, its files and what it asks of the machine, taken together."""

from ftl.bundle import Reference
from ftl.config.train import TrainConfig
from ftl.contract import Resources
from ftl.errors import Problem

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def problems(config: TrainConfig, refs: list[Reference], resources: Resources) -> list[Problem]:
    """Each thing that would stop the job after it has started; `where` is the config key. Reads names, not contents."""
    return [*_model_files(config, refs), *_wrong_device(config, resources)]


def _model_files(config: TrainConfig, refs: list[Reference]) -> list[Problem]:
    """What a local base model or tokenizer lacks."""
    paths = {ref.key: ref.path for ref in refs}
    found: list[Problem] = []
    base = paths.get("base_model")
    if base is not None:
        if not (base / "config.json").is_file():
            found.append(Problem("base_model", config.model.base, "must be a directory with a config.json"))
        elif not config.model.reinit_weights and not any(base.glob("*.safetensors")):
            remedy = "to start from random weights set reinit_weights: true"
            found.append(Problem("base_model", config.model.base, "has no *.safetensors weights", remedy))
    key = "tokenizer_config" if config.model.tokenizer else "base_model"
    tokenizer = paths.get(key)
    if tokenizer is not None and not any((tokenizer / name).is_file() for name in _TOKENIZER_FILES):
        remedy = "name a directory or repository that has one with tokenizer_config"
        found.append(Problem(key, str(tokenizer.name), "has no tokenizer", remedy))
    return found


def _wrong_device(config: TrainConfig, resources: Resources) -> list[Problem]:
    """Settings that the machine asked for cannot honour."""
    if resources.gpus:
        return []
    found: list[Problem] = []
    if config.model.attention == "flash_attention_2":
        found.append(Problem("attn_implementation", "flash_attention_2", "needs a GPU", "ask for one, or use sdpa"))
    if config.precision.compute == "fp16":
        found.append(Problem("precision", "fp16", "needs a GPU", "ask for one, or use bf16 or fp32"))
    return found
