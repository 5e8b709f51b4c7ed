"""What the keys of an objective may say, and beside which others."""

from pathlib import Path

import pytest
import yaml

from ftl.config.load import load_train
from ftl.errors import ConfigError

BASE = {"base_model": "b", "learning_rate": 1e-4, "datasets": [{"path": "d.jsonl", "type": "chatml.intel"}]}


REWARDED = {"datasets": [{"path": "d.jsonl", "type": "bradley_terry.chatml"}]}
TAUGHT = {"kd_trainer": True, "datasets": [{"path": "d.jsonl", "type": "axolotl.integrations.kd.chat_template"}]}
STEPWISE = {"datasets": [{"path": "d.jsonl", "type": "stepwise_supervised"}]}


@pytest.fixture
def load(tmp_path: Path):
    def start(**keys):
        (tmp_path / "cfg.yml").write_text(yaml.safe_dump(BASE | keys))
        return load_train(tmp_path / "cfg.yml")

    return start


def test_keys_of_dpo_reach_the_objective(load):
    section = load(rl="dpo", dpo_beta=0.2, dpo_loss_type="hinge", rpo_alpha=1.0, max_prompt_len=64).config.objective
    assert (section.kind, section.beta, section.dpo_loss_type) == ("dpo", 0.2, ("hinge",))
    assert (section.rpo_alpha, section.max_prompt_len) == (1.0, 64)
    assert load(rl="dpo", dpo_loss_type=["sigmoid", "bco_pair"]).config.objective.dpo_loss_type[1] == "bco_pair"
    assert load(rl="ipo").config.objective.beta_or_default == 0.1


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"rl": "dpo", "dpo_loss_type": "sigmoidal"}, "dpo_loss_type"),
        ({"rl": "dpo", "dpo_label_smoothing": 0.5}, "must be below 0.5"),
        ({"rl": "dpo", "rl_beta": 0}, "must be above 0"),
        ({"rl": "dpo", "excess_length_strategy": "split"}, "cannot be split with `objective` dpo"),
        ({"rl": "dpo", "push_dataset_to_hub": "me/rows"}, "holds single texts, and `objective` dpo has more than that"),
        ({"rl": "dpo", "dpo_loss_type": "exo_pair", "dpo_label_smoothing": 0.0}, "must be above 0 with"),
        ({"rl": "dpo", "num_labels": 2}, "num_labels = 2: belongs to models with a head for classes"),
        ({"reward_model": True, "num_labels": 2, **REWARDED}, "num_labels = 2: must be 1 with `objective` reward"),
        ({**TAUGHT, "kd_alpha": 0}, "kd_alpha = 0: must be above 0 where `kd_ce_alpha` is 0"),
        ({**TAUGHT, "kd_temperature": 0}, "kd_temperature = 0: must be above 0"),
        ({**TAUGHT, "push_dataset_to_hub": "me/rows"}, "`objective` kd has more than that"),
        ({**TAUGHT, "kd_trainer": False}, "axolotl.integrations.kd.chat_template.*kd"),
        ({"process_reward_model": True, "num_labels": 1, **STEPWISE}, "num_labels = 1: must be at least 2"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(load, keys, told):
    with pytest.raises(ConfigError, match=told) as caught:
        load(**keys)
    assert len(caught.value.problems) == 1


def test_keys_of_distillation_reach_the_objective(load):
    loaded = load(**TAUGHT, kd_ce_alpha=0.1, kd_zscore_base_temp=2.0, plugins=["axolotl.integrations.kd.KDPlugin"])
    section = loaded.config.objective
    assert (section.kind, section.kd_alpha, section.kd_ce_alpha) == ("kd", 1.0, 0.1)
    assert (section.kd_zscore_base_temp, section.kd_top_k_before_softmax) == (2.0, False)
    assert load(**TAUGHT, sample_packing=True, excess_length_strategy="split").notes == ()


def test_classes_of_a_head_are_those_asked_for(load):
    assert load(process_reward_model=True, num_labels=3, **STEPWISE).config.objective.num_labels == 3


@pytest.mark.parametrize(
    ("keys", "note"),
    [
        ({"rl": "ipo", "dpo_loss_type": "hinge"}, "dpo_loss_type: has no effect unless the objective is dpo"),
        ({"rl": "dpo", "dpo_loss_type": "hinge", "dpo_label_smoothing": 0.1}, "dpo_loss_type that takes none"),
        ({"rl": "dpo", "simpo_gamma": 0.1}, "simpo_gamma: has no effect unless the objective is simpo"),
        ({"rl": "dpo", "dpo_padding_free": True}, "is not used: answers are padded"),
    ],
    ids=str,
)
def test_what_changes_nothing_is_told(load, keys, note):
    (told,) = load(**keys).notes
    assert note.partition(": ")[2] in told
