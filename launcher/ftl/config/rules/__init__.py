"""What keys of several sections must keep to together, by subject; checked offline, all at once."""

from ftl.config.rules.adapter import ADAPTER_RULES
from ftl.config.rules.data import DATA_RULES, ROW_RULES
from ftl.config.rules.deepspeed import DEEPSPEED_RULES
from ftl.config.rules.effect import without_effect
from ftl.config.rules.given import KEY_NOTES
from ftl.config.rules.given import KEY_RULES as GIVEN_RULES
from ftl.config.rules.harness import HARNESS_RULES
from ftl.config.rules.model import MODEL_RULES
from ftl.config.rules.objective import OBJECTIVE_RULES
from ftl.config.rules.optim import OPTIM_RULES
from ftl.config.rules.pictures import PICTURE_DATASET_RULES, PICTURE_KEY_RULES, PICTURE_RULES
from ftl.config.rules.rounding import ROUNDING_RULES
from ftl.config.rules.rule import DatasetRule, KeyRule, Rule
from ftl.config.rules.schedule import SCHEDULE_RULES

__all__ = ["DATASET_RULES", "KEY_NOTES", "KEY_RULES", "RULES", "KeyRule", "without_effect"]

RULES: tuple[Rule, ...] = (
    *(*SCHEDULE_RULES, *OPTIM_RULES, *DATA_RULES, *PICTURE_RULES, *MODEL_RULES, *ADAPTER_RULES),
    *(*OBJECTIVE_RULES, *HARNESS_RULES, *ROUNDING_RULES, *DEEPSPEED_RULES),
)
DATASET_RULES: tuple[DatasetRule, ...] = (*ROW_RULES, *PICTURE_DATASET_RULES)
KEY_RULES: tuple[KeyRule, ...] = (*GIVEN_RULES, *PICTURE_KEY_RULES)
