"""Learning from rewards: advantages by hand, and trainings whose rewards rise."""

import hashlib
import math

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from ftl.config.grpo import GrpoSection  # noqa: E402
from ftl.errors import ConfigError, PreemptedError, TrainingError  # noqa: E402
from ftl_runtime.data.prompts import Prompt, PromptOrder, PromptRows  # noqa: E402
from ftl_runtime.objectives.grpo import advantages, token_losses  # noqa: E402

LORA = {"kind": "lora", "rank": 8, "alpha": 16, "dropout": 0.1}
NAN = math.nan
REWARDS = '''
import random

def likes_the(completions, word, **kwargs):
    """The share of letters that are those of the row's word."""
    assert all(isinstance(text, str) for text in completions)
    return [sum(c in w for c in text) / max(len(text), 1) for text, w in zip(completions, word)]

def unsure(completions, **kwargs):
    return [None if i % 2 else random.random() for i in range(len(completions))]

def short(completions, **kwargs):
    return [1.0]
'''


def section(**keys) -> GrpoSection:
    return GrpoSection(reward_funcs=("./r.py:f",), num_generations=2, **keys)


def test_advantages_are_deviations_from_the_group():
    """Groups 0, 1 and 2, 6: means 1/2 and 4; deviations, of two numbers, 1/sqrt(2) and 4/sqrt(2)."""
    rewards = torch.tensor([[0.0], [1.0], [2.0], [6.0]])
    assert advantages(rewards, section(scale_rewards="none")).tolist() == [-0.5, 0.5, -2.0, 2.0]
    root = math.sqrt(0.5)
    assert advantages(rewards, section()).tolist() == pytest.approx([-root, root, -root, root], rel=1e-3)
    # All four: mean 9/4, squares 81/16 + 25/16 + 1/16 + 225/16 = 83/4, over 3.
    spread = math.sqrt(83 / 12)
    expected = [-0.5 / spread, 0.5 / spread, -2 / spread, 2 / spread]
    assert advantages(rewards, section(scale_rewards="batch")).tolist() == pytest.approx(expected, rel=1e-3)


def test_rewards_are_weighed_and_those_that_are_none_count_for_nothing():
    grpo = GrpoSection(
        reward_funcs=("./r.py:f", "./r.py:g"), reward_weights=(1.0, 0.5), num_generations=2, scale_rewards="none"
    )
    rewards = torch.tensor([[1.0, 2.0], [NAN, 4.0], [3.0, 1.0], [NAN, NAN]])
    # Sums 2, 2 and 3.5, none: the last says nothing, and the one before is alone.
    assert advantages(rewards, grpo).tolist() == [0.0, 0.0, 0.0, 0.0]
    rewards[1, 0] = 2.0
    assert advantages(rewards, grpo).tolist() == [-1.0, 1.0, 0.0, 0.0]


def test_each_reward_may_be_compared_by_itself():
    """Both are standardised in the groups, though one is a hundred times the other: they cancel out."""
    grpo = GrpoSection(
        reward_funcs=("./r.py:f", "./r.py:g"), num_generations=2, multi_objective_aggregation="normalize_then_sum"
    )
    rewards = torch.tensor([[0.0, 100.0], [1.0, 0.0], [0.0, 0.0], [1.0, 100.0]])
    found = advantages(rewards, grpo).tolist()
    assert found[:2] == pytest.approx([0, 0], abs=1e-3)
    # Sums 0, 0, -sqrt(2), sqrt(2): their deviation is sqrt(4/3).
    assert found[2:] == pytest.approx([-math.sqrt(1.5), math.sqrt(1.5)], rel=1e-3)


def test_token_losses_push_by_advantage_and_pull_to_the_reference():
    logprobs = torch.tensor([[-1.0, -2.0], [-1.0, -1.0]], requires_grad=True)
    reference = torch.tensor([[-1.0, -2.0 + math.log(2)], [-1.0, -1.0]])
    losses, kl = token_losses(logprobs, torch.tensor([3.0, -1.0]), reference, beta=0.5)
    away = 2 - math.log(2) - 1
    torch.testing.assert_close(kl, torch.tensor([[0.0, away], [0.0, 0.0]]))
    torch.testing.assert_close(losses.detach(), torch.tensor([[-3.0, -3.0 + 0.5 * away], [1.0, 1.0]]))
    losses.sum().backward()
    # d(e^g - g - 1)/dlogprob = 1 - e^g, g = log 2.
    torch.testing.assert_close(logprobs.grad, torch.tensor([[-3.0, -3.5], [1.0, 1.0]]))


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_all_copies_of_a_prompt_are_in_one_step_of_one_rank(num_ranks):
    from ftl_runtime.data.sampler import deal

    rows = PromptRows(tuple(Prompt((n,), "", {}) for n in range(9)), 3)
    order = PromptOrder(rows, per_step=6, num_ranks=num_ranks, seed=1, is_shuffled=True)
    drawn = list(order)
    micro = 2
    assert len(drawn) == len(order) == {1: 24, 2: 24}[num_ranks]
    for step in range(len(order) // (6 * num_ranks)):
        whole = drawn[step * 6 * num_ranks : (step + 1) * 6 * num_ranks]
        for rank in range(num_ranks):
            mine = []
            for start in range(0, len(whole), micro * num_ranks):
                batch = whole[start : start + micro * num_ranks]
                mine += [batch[place] for place in deal(rows.costs(batch), num_ranks)[rank]]
            groups = [[row // 3 for row in mine[:3]], [row // 3 for row in mine[3:]]]
            assert all(len(set(group)) == 1 for group in groups)
    assert len(set(drawn)) == 24
    order.set_epoch(1)
    assert list(order) != drawn


def test_too_few_prompts_for_a_step_are_told():
    rows = PromptRows((Prompt((1,), "", {}),), 2)
    with pytest.raises(ConfigError, match="1 prompts, and a step takes 2"):
        PromptOrder(rows, per_step=4, num_ranks=1, seed=0, is_shuffled=True)


@pytest.fixture
def learn(train, tmp_path, pairs):
    """Short completions of the tiny model, rewarded by how many of their letters are the word's."""
    (tmp_path / "rewards.py").write_text(REWARDS)
    rows = [{"prompt": pair["prompt"], "word": pair["prompt"].split()[1]} for pair in pairs]

    def start(*, functions=("likes_the",), **settings):
        grpo = {"reward_funcs": [f"{tmp_path / 'rewards.py'}:{name}" for name in functions]}
        grpo |= {"num_generations": 4, "max_completion_length": 6, **settings.pop("grpo", {})}
        defaults = {"optim__max_steps": 4, "optim__learning_rate": 1e-2}
        return train(rows, {"kind": "grpo", "grpo": grpo}, **{**defaults, **settings})

    return start


def rewards(training) -> list[float]:
    return [step["reward"] for step in training.of("step")]


def test_reward_of_a_simple_rule_rises(learn):
    training = learn(optim__max_steps=14, optim__micro_batch_size=16, grpo={"log_completions": True})
    found = rewards(training)
    assert sum(found[-3:]) > 1.5 * sum(found[:3])
    assert all(0 < step["completion_tokens"] <= 6 for step in training.of("step"))
    assert {"prompt", "expected", "generated"} == set(training.of("samples")[0]["samples"][0])
    assert training.of("result")[0]["steps"] == 14


def digest(file) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_stopped_training_draws_and_learns_the_same_bit_for_bit(learn):
    """With dropout, a reference, and a reward function that draws random numbers."""
    settings = {"adapter": LORA, "functions": ("likes_the", "unsure"), "optim__gradient_accumulation_steps": 2}
    settings |= {"optim__micro_batch_size": 4, "grpo": {"beta": 0.1, "temperature": 0.9, "loss_type": "grpo"}}
    straight = learn(name="straight", **settings)
    assert straight.of("step")[0]["kl"] == pytest.approx(0, abs=0.2)
    with pytest.raises(PreemptedError):
        learn(name="stopped", stop_at=("step", 2), **settings)
    resumed = learn(name="stopped", **settings)

    def measured(steps):
        return [{name: step[name] for name in ("loss", "kl", "reward", "rewards/unsure")} for step in steps]

    assert measured(resumed.of("step")) == measured(straight.of("step")[2:])
    weights = "adapter_model.safetensors"
    assert digest(resumed.output / weights) == digest(straight.output / weights)


def test_function_that_gives_no_reward_for_each_completion_is_told(learn):
    with pytest.raises(TrainingError, match="short gave no list of 8 rewards"):
        learn(functions=("short",))
