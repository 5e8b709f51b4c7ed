"""What the rules say of a file's keys and of the config they make, each problem at the key of the file."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from ftl.config.flat import keys
from ftl.config.reading import Reading, loc_in_file, placed
from ftl.config.rules import DATASET_RULES, RULES, KeyRule
from ftl.config.train import TrainConfig
from ftl.errors import Problem
from ftl.yamlparse import Loc

_STAND_INS: dict[str, Any] = {  # Any: what YAML holds
    "base_model": "stand-in",
    "learning_rate": 1.0,
    "datasets": [{"path": "stand-in", "type": "completion"}],
}
"""Values for required keys that are missing or wrong, so that the rules can look at the rest."""


def other_problems(error: ValidationError, reading: Reading) -> list[Problem]:
    """What the rules say of a config whose fields have problems already: stand-ins are put in their place."""
    names = {key.loc: key.key for key in keys().values()}
    fields = {loc for entry in error.errors() if (loc := (str(entry["loc"][0]), str(entry["loc"][1]))) in names}
    nested = {section: dict(values) for section, values in reading.nested.items()}
    for section, name in fields:
        nested[section].pop(name, None)
        if names[section, name] in _STAND_INS:
            nested[section][name] = _STAND_INS[names[section, name]]
    try:
        config = TrainConfig.model_validate(nested)
    except ValidationError:
        return []
    return rule_problems(config, reading, broken_keys(reading, [names[loc] for loc in fields]))


def broken_keys(reading: Reading, fields: Sequence[str]) -> set[str]:
    """The keys whose values are not what the user meant."""
    refused = {problem.given.partition(" = ")[0] for problem in reading.problems if problem.given}
    return refused | set(fields)


def key_problems(rules: Sequence[KeyRule], reading: Reading) -> list[Problem]:
    """What the keys of the file say against one another; those of a wrong value say nothing."""
    broken = broken_keys(reading, ())
    found = [problem for rule in rules if (problem := rule(reading.given))]
    return [
        placed(problem, (reading.origin.get(problem.where, problem.where),), reading)
        for problem in found
        if problem.where not in broken and not any(f"`{name}`" in str(problem) for name in broken)
    ]


def rule_problems(config: TrainConfig, reading: Reading, broken: set[str]) -> list[Problem]:
    found = [
        (problem, loc_in_file(_section_loc(key), reading.places))
        for problem, key in _rules_broken(config)
        if key[0] not in broken and not any(f"`{name}`" in str(problem) for name in broken)
    ]
    return [placed(problem, loc, reading) for problem, loc in found]


def _rules_broken(config: TrainConfig) -> Iterator[tuple[Problem, Loc]]:
    for rule in RULES:
        if problem := rule(config):
            yield problem, (problem.where,)
    for key, datasets in config.data.lists().items():
        for number, dataset in enumerate(datasets):
            for dataset_rule in DATASET_RULES:
                if problem := dataset_rule(dataset, config):
                    yield problem, (key, number, problem.where)


def _section_loc(flat: Loc) -> Loc:
    return (*keys()[str(flat[0])].loc, *flat[1:])
