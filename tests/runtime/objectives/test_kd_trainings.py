"""Distillation trains a tiny model: what it expects comes near what the teacher does."""

import hashlib
import math

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from ftl.errors import PreemptedError  # noqa: E402

LORA = {"kind": "lora", "rank": 8, "alpha": 16, "dropout": 0.1}
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
TAUGHT = {"type": "chat_template", "data__chat_template_jinja": TEMPLATE}
EVALUATED = {"data__val_set_size": 8, "output__eval_strategy": "epoch"}


@pytest.fixture(scope="session")
def taught(base, pairs):
    """Answers with an entry a token. The teacher is nearly sure of what is there; now and then it says nothing."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = []
    for number, pair in enumerate(pairs):
        answer = tokenizer(pair["chosen"], add_special_tokens=False).input_ids
        entries = [
            None if (place + number) % 5 == 4 else dict([(str(id), -0.1), ("40", -3.0), ("41", -3.5)][: 1 + number % 3])
            for place, id in enumerate(answer)
        ]
        messages = [{"role": "user", "content": pair["prompt"]}, {"role": "assistant", "content": pair["chosen"]}]
        rows.append({"messages": messages, "logprobs": entries})
    return rows


def digest(file) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def measured(training) -> list[dict]:
    return [{name: step[name] for name in ("loss", "kl", "cross_entropy")} for step in training.of("step")]


@pytest.mark.parametrize(("adapter", "left"), [(LORA, 0.98), (None, 0.9)], ids=["lora", "full"])
def test_model_comes_to_expect_what_the_teacher_does(train, taught, adapter, left):
    """A frozen random base lets an adapter learn little."""
    settings = {"optim__learning_rate": 5e-2 if adapter else 1e-2, **TAUGHT, **EVALUATED}
    training = train(taught, {"kind": "kd", "kd_ce_alpha": 0.1}, adapter=adapter, **settings)
    first, *_, last = training.of("eval")
    assert last["kl"] < left * first["kl"]
    assert last["cross_entropy"] < first["cross_entropy"]
    assert "perplexity" not in last
    for step in training.of("step"):
        assert step["loss"] == pytest.approx(step["kl"] + 0.1 * step["cross_entropy"], rel=1e-5)


def test_its_own_teacher_has_nothing_to_teach(train, weights, pairs):
    """The base speaks of every token of the tokenizer; its vocabulary has four more, which take some of its mass."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights)
    model = AutoModelForCausalLM.from_pretrained(weights).eval()
    rows, masses = [], []
    for pair in pairs[:8]:
        ids = tokenizer(pair["prompt"] + pair["chosen"], add_special_tokens=False, return_tensors="pt").input_ids
        with torch.no_grad():
            logprobs = model(ids).logits[0].log_softmax(1)[:, : len(tokenizer)]
        entries = [None, *({str(id): float(value) for id, value in enumerate(place)} for place in logprobs[:-1])]
        messages = [{"role": "user", "content": pair["prompt"]}, {"role": "assistant", "content": pair["chosen"]}]
        rows.append({"messages": messages, "logprobs": entries})
        num_answer = len(tokenizer(pair["chosen"], add_special_tokens=False).input_ids)
        masses += logprobs[-num_answer - 1 : -1].logsumexp(1).tolist()
    settings = {**TAUGHT, "optim__max_steps": 1, "adapter": {**LORA, "dropout": 0.0}}
    objective = {"kind": "kd", "kd_temperature": 3.0, "kd_top_k_before_softmax": True}
    assert train(rows, objective, name="among", **settings).losses == pytest.approx([0.0], abs=1e-5)
    whole = train(rows, {"kind": "kd"}, name="whole", **settings)
    assert whole.losses == pytest.approx([-sum(masses) / len(masses)], rel=1e-3)


def test_packed_rows_are_those_of_each_text_alone(train, taught):
    """Four texts a batch or packed: the mean is over all tokens of the evaluation."""
    found = []
    for is_packed in (False, True):
        settings = {"data__sample_packing": is_packed, "optim__max_steps": 1, "optim__eval_batch_size": 4}
        settings |= {"name": str(is_packed), **TAUGHT, **EVALUATED}
        training = train(taught, {"kind": "kd", "kd_ce_alpha": 0.5}, **settings)
        found.append(training.of("eval")[0])
    for name in ("loss", "kl", "cross_entropy"):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-5)
    assert found[0]["loss"] == pytest.approx(found[0]["kl"] + 0.5 * found[0]["cross_entropy"])


def test_eight_texts_at_once_are_eight_after_each_other(train, taught):
    objective = {"kind": "kd", "kd_ce_alpha": 0.5, "kd_zscore_base_temp": 1.5}
    whole = train(taught, objective, name="whole", **TAUGHT, optim__max_steps=3)
    parts = {"optim__micro_batch_size": 1, "optim__gradient_accumulation_steps": 8, "optim__max_steps": 3}
    single = train(taught, objective, name="single", **TAUGHT, **parts)
    for one, other in zip(measured(single), measured(whole), strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    assert math.isfinite(whole.losses[-1]) and whole.losses[-1] < whole.losses[0]


def test_whole_logits_give_the_losses_that_none_give(train, taught, monkeypatch):
    settings = {**TAUGHT, "optim__max_steps": 2}
    split = train(taught, {"kind": "kd", "kd_temperature": 2.0}, name="split", **settings)
    monkeypatch.setattr("ftl_runtime.models.inputs.splits_off_head", lambda model: False)
    whole = train(taught, {"kind": "kd", "kd_temperature": 2.0}, name="whole", **settings)
    assert split.losses == pytest.approx(whole.losses, rel=1e-5)


def test_stopped_distillation_with_dropout_goes_on_bit_for_bit(train, taught):
    settings = {**TAUGHT, "adapter": LORA, "optim__max_steps": 4, "data__sample_packing": True}
    settings |= {"optim__micro_batch_size": 1, "optim__num_epochs": 2}
    straight = train(taught, {"kind": "kd"}, name="straight", **settings)
    with pytest.raises(PreemptedError):
        train(taught, {"kind": "kd"}, name="stopped", stop_at=("step", 2), **settings)
    resumed = train(taught, {"kind": "kd"}, name="stopped", **settings)
    assert measured(resumed) == measured(straight)[2:]
    weights = "adapter_model.safetensors"
    assert digest(resumed.output / weights) == digest(straight.output / weights)
