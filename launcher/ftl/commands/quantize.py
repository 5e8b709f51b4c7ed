"""ftl quantize: a finished model with its weights in few bits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ftl.commands import finished
from ftl.commands.finished import How
from ftl.commands.overrides import read_overrides
from ftl.config.load import load_train
from ftl.config.rounding import RoundingSection, Scheme
from ftl.config.rules.rounding import scheme_problem
from ftl.errors import ConfigError, Problem

QUANTIZED_DIR = "quantized"
_OPTIONS = (
    *("--base-model", "--weight-dtype", "--activation-dtype", "--group-size", "--quantize-embedding", "--cloud"),
    *("--set", "--detach", "--dry-run", "--json"),
)


def run(
    config: Path,
    *,
    flags: list[str],
    assignments: list[str],
    model: str | None,
    scheme: Mapping[str, Any],  # Any: a text, a number or a bool
    how: How,
) -> int:
    """Round the finished model of CFG, or `model`. What `scheme` gives wins over the config's own."""
    loaded = load_train(config, read_overrides(flags, assignments, _OPTIONS))
    made = _scheme(loaded.config.rounding, {name: value for name, value in scheme.items() if value is not None})
    rounding = finished.on_model(loaded, model, "--base-model")
    rounding = rounding.model_copy(update={"rounding": RoundingSection(quantization=made)})
    return finished.start(loaded, rounding, "quantize", finished.output_dir(loaded) / QUANTIZED_DIR, how)


def _scheme(own: RoundingSection, given: dict[str, Any]) -> Scheme:  # Any: as above
    """Raises ConfigError where neither the config nor the command line says how, and for what does not fit."""
    base = own.quantization or own.qat
    if base is None and not given:
        remedy = "add e.g. `quantization: {weight_dtype: int8}`, or give --weight-dtype int8"
        raise ConfigError(Problem("quantization", allowed="is missing, and so is `qat`", remedy=remedy))
    values = base.model_dump(exclude={"fake_quant_after_n_steps"}) if base is not None else {}
    try:
        made = Scheme.model_validate(values | given)
    except ValidationError as error:
        broken = [(str(entry["loc"][0]), entry["msg"]) for entry in error.errors()]
        problems = [Problem(_flag(name), str(given[name]), message.lower()) for name, message in broken]
        raise ConfigError(*problems) from error
    if problem := scheme_problem(made, "quantization"):
        raise ConfigError(problem)
    return made


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
