"""Each objective trains a tiny model: the loss falls, and the better answers win."""

import hashlib
import math

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from ftl.errors import PreemptedError  # noqa: E402

LORA = {"kind": "lora", "rank": 8, "alpha": 16}
EVALUATED = {"data__val_set_size": 8, "output__eval_strategy": "epoch"}


SCORED = {
    "type": "bradley_terry.chat_template",
    "data__chat_template_jinja": "{% for message in messages %}{{ message.content }}{% endfor %}",
}


def scored(pairs: list[dict]) -> list[dict]:
    return [{"input": pair["prompt"], "chosen": pair["chosen"], "rejected": pair["rejected"]} for pair in pairs]


def digest(file) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def measured(step: dict) -> dict:
    return {name: value for name, value in step.items() if "/" in name or name == "loss"}


@pytest.mark.parametrize("adapter", [LORA, None], ids=["lora", "full"])
def test_dpo_begins_at_log_2_and_learns_the_preference(train, pairs, adapter):
    rate = 1e-2 if adapter else 1e-3
    training = train(pairs, {"kind": "dpo"}, adapter=adapter, optim__learning_rate=rate, **EVALUATED)
    assert training.losses[0] == pytest.approx(math.log(2))
    assert training.losses[-1] < 0.65
    first, *_, last = training.of("eval")
    assert (first["loss"], first["rewards/margins"]) == (pytest.approx(math.log(2)), 0)
    assert last["loss"] < 0.62
    assert last["rewards/accuracies"] == 1
    assert "perplexity" not in last
    assert training.of("step")[-1]["rewards/margins"] > 0
    assert training.of("result")[0]["metrics"].items() <= last.items()


@pytest.mark.parametrize("objective", [{"kind": "dpo", "rpo_alpha": 0.5}, {"kind": "ipo"}], ids=["rpo", "ipo"])
def test_eight_pairs_at_once_are_eight_after_each_other(train, pairs, objective):
    whole = train(pairs, objective, name="whole", adapter=LORA, optim__max_steps=3)
    parts = {"optim__micro_batch_size": 1, "optim__gradient_accumulation_steps": 8, "optim__max_steps": 3}
    single = train(pairs, objective, name="single", adapter=LORA, **parts)
    assert single.losses == pytest.approx(whole.losses, rel=1e-4)
    assert single.losses[-1] < single.losses[0]
    for one, other in zip(single.of("step"), whole.of("step"), strict=True):
        assert measured(one) == pytest.approx(measured(other), rel=1e-3, abs=1e-5)


def test_stopped_dpo_with_dropout_goes_on_bit_for_bit(train, pairs):
    """Logged every two steps, and stopped between."""
    adapter = {**LORA, "dropout": 0.1}
    settings = {"adapter": adapter, "output__logging_steps": 2, "output__eval_steps": 1, "output__eval_strategy": None}
    settings |= {"data__val_set_size": 8}
    straight = train(pairs, {"kind": "dpo"}, name="straight", **settings)
    with pytest.raises(PreemptedError, match="stopped at step 3 of 6"):
        train(pairs, {"kind": "dpo"}, name="stopped", stop_at=("eval", 3), **settings)
    resumed = train(pairs, {"kind": "dpo"}, name="stopped", **settings)
    assert [data["step"] for data in resumed.of("step")] == [4, 6]
    assert [measured(data) for data in resumed.of("step")] == [measured(data) for data in straight.of("step")[1:]]
    weights = "adapter_model.safetensors"
    assert digest(resumed.output / weights) == digest(straight.output / weights)


def test_dpo_without_a_reference_compares_with_nothing(train, pairs):
    training = train(pairs, {"kind": "dpo", "dpo_reference_free": True}, adapter=LORA, optim__max_steps=1)
    metrics = training.of("step")[0]
    assert metrics["rewards/chosen"] == pytest.approx(0.1 * metrics["logps/chosen"])


def test_dropout_of_the_model_leaves_the_reference_alone(train, pairs, weights, tmp_path):
    """The reference is read without dropout: policy and reference then differ at the first step by dropout alone."""
    import json
    import shutil

    base = tmp_path / "base"
    shutil.copytree(weights, base)
    config = json.loads((base / "config.json").read_text()) | {"attention_dropout": 0.5}
    (base / "config.json").write_text(json.dumps(config))
    arguments = {"adapter": LORA, "optim__max_steps": 1, **EVALUATED, "model__base": str(base)}
    training = train(pairs, {"kind": "dpo"}, **arguments)
    assert training.of("eval")[0]["loss"] == pytest.approx(math.log(2))
    assert training.of("step")[0]["rewards/margins"] != 0


@pytest.mark.parametrize(
    "objective",
    [
        {"kind": "ipo"},
        {"kind": "orpo"},
        {"kind": "cpo", "cpo_alpha": 0},
        {"kind": "simpo", "cpo_alpha": 0, "beta": 2.0},
    ],
    ids=lambda objective: objective["kind"],
)
def test_preferences_without_a_copy_are_learned(train, pairs, objective):
    training = train(pairs, objective, adapter=LORA, optim__max_steps=4, **EVALUATED)
    first, *_, last = training.of("eval")
    assert last["loss"] < 0.98 * first["loss"]
    assert last["rewards/margins"] > first["rewards/margins"]
    assert last["rewards/accuracies"] >= first["rewards/accuracies"]


@pytest.mark.parametrize("adapter", [LORA, None], ids=["lora", "full"])
def test_kto_begins_at_one_half_and_learns_the_verdicts(train, judged, adapter):
    rate = 1e-2 if adapter else 1e-3
    objective = {"kind": "kto", "beta": 0.5}
    training = train(judged, objective, adapter=adapter, optim__learning_rate=rate, **EVALUATED)
    assert training.losses[0] == pytest.approx(0.5)
    first, *_, last = training.of("eval")
    assert first["loss"] == pytest.approx(0.5)
    assert last["loss"] < 0.45
    assert last["rewards/margins"] > 0.1
    assert last["kl"] >= 0


def test_eight_judged_answers_at_once_are_eight_after_each_other(train, judged):
    """The divergence is that of the whole batch, however it is cut into micro-batches."""
    settings = {"adapter": LORA, "optim__max_steps": 4}
    whole = train(judged, {"kind": "kto"}, name="whole", **settings)
    parts = {"optim__micro_batch_size": 1, "optim__gradient_accumulation_steps": 8}
    single = train(judged, {"kind": "kto"}, name="single", **parts, **settings)
    assert single.losses == pytest.approx(whole.losses, rel=1e-4)
    assert [step["kl"] for step in single.of("step")] == pytest.approx(
        [step["kl"] for step in whole.of("step")], abs=1e-4
    )


@pytest.mark.parametrize("adapter", [LORA, None], ids=["lora", "full"])
def test_reward_model_scores_better_texts_higher_and_is_read_by_transformers(train, pairs, weights, adapter):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    settings = {**SCORED, "optim__learning_rate": 1e-2 if adapter else 2e-3, **EVALUATED}
    training = train(scored(pairs), {"kind": "reward"}, adapter=adapter, **settings)
    first, *_, last = training.of("eval")
    assert last["loss"] < first["loss"]
    assert last["rewards/accuracies"] >= 0.8
    assert training.of("warning") == []  # a fresh head is no surprise
    source = weights if adapter else training.output
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1).eval()
    if adapter:
        model = PeftModel.from_pretrained(model, training.output).eval()
    tokenizer = AutoTokenizer.from_pretrained(training.output)
    text = "say cat 1 times{} cat<eos>"
    model.config.pad_token_id = tokenizer.pad_token_id
    better, worse = (
        model(**tokenizer(text.format(words), return_tensors="pt", return_token_type_ids=False)).logits.item()
        for words in ("", " no")
    )
    assert better > worse


def test_stopped_reward_training_goes_on_bit_for_bit(train, pairs):
    settings = {**SCORED, "adapter": LORA, "optim__max_steps": 4}
    straight = train(scored(pairs), {"kind": "reward"}, name="straight", **settings)
    with pytest.raises(PreemptedError):
        train(scored(pairs), {"kind": "reward"}, name="stopped", stop_at=("step", 2), **settings)
    resumed = train(scored(pairs), {"kind": "reward"}, name="stopped", **settings)
    assert [measured(data) for data in resumed.of("step")] == [measured(data) for data in straight.of("step")[2:]]
    weights = "adapter_model.safetensors"
    assert digest(resumed.output / weights) == digest(straight.output / weights)


def test_process_reward_model_learns_which_steps_are_right(train):
    from transformers import AutoModelForTokenClassification

    rows = [
        {
            "prompt": f"add {n}",
            "completions": [f"take {n}", "bad step" if n % 2 else "good one"],
            "labels": [1, 1 - n % 2],
        }
        for n in range(24)
    ]
    settings = {"type": "stepwise_supervised", "optim__learning_rate": 2e-3, "optim__max_steps": 8, **EVALUATED}
    training = train(rows, {"kind": "prm"}, **settings)
    first, *_, last = training.of("eval")
    assert last["loss"] < 0.8 * first["loss"]
    assert last["accuracy"] >= 0.75
    assert AutoModelForTokenClassification.from_pretrained(training.output).config.num_labels == 2


def test_eight_rows_of_steps_at_once_are_eight_after_each_other(train, tmp_path):
    """Rows have one to three steps: the mean is over the steps of the whole batch. Heads for tokens have dropout."""
    rows = [{"prompt": "a b", "completions": ["c"] * (1 + n % 3), "labels": [n % 2] * (1 + n % 3)} for n in range(8)]
    settings = {"type": "stepwise_supervised", "optim__max_steps": 1, "optim__learning_rate": 1e-9}
    settings |= {"data__val_set_size": 0, "output__eval_strategy": "no"}
    evaluated = {"data__test_datasets": [{"path": str(tmp_path / "rows.jsonl"), "type": "stepwise_supervised"}]}
    evaluated |= {"output__eval_strategy": "epoch"}
    losses = [
        train(rows, {"kind": "prm"}, name=str(size), optim__eval_batch_size=size, **settings | evaluated).of("eval")[0]
        for size in (1, 8)
    ]
    assert losses[0]["loss"] == pytest.approx(losses[1]["loss"], rel=1e-5)


@pytest.mark.parametrize("kind", ["dpo", "kto"])
@pytest.mark.parametrize("adapter", [LORA, None], ids=["lora", "full"])
def test_reference_asked_before_training_gives_the_same_losses(train, pairs, judged, kind, adapter):
    rows = pairs if kind == "dpo" else judged
    settings = {"adapter": adapter, "optim__max_steps": 3, "optim__learning_rate": 1e-3, **EVALUATED}
    asked = train(rows, {"kind": kind}, name="asked", **settings)
    known = train(rows, {"kind": kind, "precompute_reference": True}, name="known", **settings)
    assert known.losses == pytest.approx(asked.losses, rel=1e-5)
    assert known.of("eval")[-1]["loss"] == pytest.approx(asked.of("eval")[-1]["loss"], rel=1e-5)
    assert len(list((known.directory / "reference").iterdir())) == 2


def test_stopped_run_asks_no_reference_again(train, pairs, monkeypatch):
    settings = {"optim__max_steps": 4, "optim__learning_rate": 1e-3}
    objective = {"kind": "dpo", "precompute_reference": True}
    straight = train(pairs, objective, name="straight", **settings)
    with pytest.raises(PreemptedError):
        train(pairs, objective, name="stopped", stop_at=("step", 2), **settings)
    monkeypatch.setattr("ftl_runtime.models.reference._find_reference", lambda *_: pytest.fail("it is known"))
    resumed = train(pairs, objective, name="stopped", **settings)
    assert [measured(data) for data in resumed.of("step")] == [measured(data) for data in straight.of("step")[2:]]
    assert digest(resumed.output / "model.safetensors") == digest(straight.output / "model.safetensors")


def test_reference_of_a_continued_adapter_has_it_where_asked(train, pairs):
    first = train(pairs, {"kind": "dpo"}, name="first", adapter=LORA, optim__max_steps=2)
    continued = {"kind": "lora", "initial": str(first.output)}
    arguments = {"adapter": continued, "optim__max_steps": 1}
    base = train(pairs, {"kind": "dpo"}, name="base", **arguments)
    asked = train(pairs, {"kind": "dpo", "adapter_in_reference": True}, name="asked", **arguments)
    assert base.losses[0] != pytest.approx(math.log(2), rel=1e-4)
    assert asked.losses[0] == pytest.approx(math.log(2))


def test_reference_of_an_adapter_that_takes_from_the_base_is_the_whole_base(train, pairs):
    adapter = {**LORA, "init_weights": "pissa"}
    assert train(pairs, {"kind": "dpo"}, adapter=adapter, optim__max_steps=1).losses[0] == pytest.approx(math.log(2))
