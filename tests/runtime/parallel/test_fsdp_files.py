"""Models that are written in shards, offloaded, copied or held in 4 bits train as one process does."""

import json

import pytest
import torch
from together import train_together
from torch import equal

from ftl.errors import ConfigError
from ftl_runtime.checkpoint import manifest
from ftl_runtime.parallel import shards

pytestmark = pytest.mark.torch

ONE, TWO = {"optim__micro_batch_size": 2}, {"optim__micro_batch_size": 1}
COMMON = {"optim__max_steps": 4, "output__eval_steps": 2, "data__val_set_size": 7, "optim__max_grad_norm": 0.3}
SHARDED = "SHARDED_STATE_DICT"
WRITTEN = {"state_dict_type": SHARDED, "final_state_dict_type": SHARDED}
QLORA = {"kind": "qlora", "rank": 1, "alpha": 8, "dropout": 0.0}  # of a rank of 1, the second process has nothing


def numbers(attempt) -> list[float]:
    steps = [value for event in attempt.events("step") for value in (event["data"]["loss"], event["data"]["grad_norm"])]
    return steps + [event["data"]["loss"] for event in attempt.events("eval")]


def spread(attempt) -> str:
    return json.loads((attempt.run / "result.json").read_text())["spread"]


@pytest.fixture(scope="module")
def alone(attempt_below, tmp_path_factory):
    attempt = attempt_below(tmp_path_factory.mktemp("alone"), **ONE, **COMMON)
    attempt.train()
    return attempt


@pytest.fixture(scope="module")
def straight(attempt_below, tmp_path_factory):
    """Two shards of one model to the end, all files in shards."""
    attempt = attempt_below(tmp_path_factory.mktemp("straight"), **TWO, **COMMON, parallel__fsdp=WRITTEN)
    train_together(attempt, 2)
    return attempt


def test_files_of_shards_hold_what_one_process_writes(straight, alone):
    from safetensors.torch import load_file

    assert numbers(straight) == pytest.approx(numbers(alone), rel=1e-4)
    output = straight.run / "output"
    assert not list(output.glob("*.safetensors"))
    parts = {f"{shards.WEIGHTS_DIR}/{name}" for name in (".metadata", "__0_0.distcp", "__1_0.distcp")}
    assert parts <= json.loads((output / "manifest.json").read_text())["files"].keys()
    assert manifest.check(output, run_id="tiny", step=4) > 0
    assert (output / "config.json").read_text() == (alone.run / "output/config.json").read_text()
    found, expected = shards.whole(output), load_file(alone.run / "output/model.safetensors")
    assert found.keys() == expected.keys()
    assert all((found[name] - expected[name]).abs().max() < 1e-4 for name in found)


def test_shards_are_put_together_as_transformers_writes_them(attempt_below, straight, alone, tmp_path):
    from safetensors.torch import load_file

    attempt = attempt_below(tmp_path, "merging", model=straight.run / "output")
    attempt.config["model"]["reinit_weights"] = True
    attempt.spec = {"task": "merge-shards"}
    attempt.train()
    merged, expected = shards.whole(straight.run / "output"), alone.run / "output"
    found = load_file(attempt.run / "output/model.safetensors")
    assert found.keys() == load_file(expected / "model.safetensors").keys()
    assert all(equal(found[name], merged[name]) for name in merged)
    for name in ("config.json", "tokenizer.json"):
        assert (attempt.run / "output" / name).read_text() == (expected / name).read_text()
    assert json.loads((attempt.run / "result.json").read_text())["facts"] == {"weights": "21", "format": "float32"}
    (straight.run / f"output/{shards.WEIGHTS_DIR}/__1_0.distcp").rename(tmp_path / "away")
    try:
        (attempt.run / "result.json").unlink()
        with pytest.raises(ConfigError, match="a part of its shards is missing or broken"):
            attempt.train()
    finally:
        (tmp_path / "away").rename(straight.run / f"output/{shards.WEIGHTS_DIR}/__1_0.distcp")


def test_files_of_shards_resume_bit_for_bit_and_in_another_number(make_attempt, straight, alone):
    stopped, merged = (make_attempt(name, **TWO, **COMMON, parallel__fsdp=WRITTEN) for name in ("stopped", "merged"))
    for attempt in (stopped, merged):
        train_together(attempt, 2, stop_at=1)
    train_together(stopped, 2)
    assert [event["data"]["step"] for event in stopped.events("resumed")] == [1]
    assert numbers(stopped) == numbers(straight)
    found, expected = shards.whole(stopped.run / "output"), shards.whole(straight.run / "output")
    assert all(equal(found[name], expected[name]) for name in expected)
    merged.config["optim"]["micro_batch_size"] = 2
    merged.train(stop_at=2)
    assert not shards.are_in(merged.run / "checkpoints/checkpoint-2")  # one process has no shards
    merged.config["optim"]["micro_batch_size"] = 1
    train_together(merged, 2)
    assert [event["data"]["step"] for event in merged.events("resumed")] == [1, 2]
    assert numbers(merged) == pytest.approx(numbers(alone), rel=1e-4)


def test_checkpoint_in_shards_that_lacks_a_part_is_set_aside(make_attempt):
    attempt = make_attempt("broken", **TWO, **COMMON, parallel__fsdp=WRITTEN)
    train_together(attempt, 2, stop_at=1)
    (attempt.run / f"checkpoints/checkpoint-1/{shards.STATES_DIR}/__1_0.distcp").unlink()
    train_together(attempt, 2, stop_at=1)
    assert not attempt.events("resumed")
    assert "__1_0.distcp is missing" in attempt.events("warning")[-1]["data"]["message"]


def test_offloaded_shards_of_a_4_bit_base_train_as_one_process_does(make_attempt, wide):
    options = {"model": wide, "adapter": QLORA, "quant": {"in_4bit": True}, **COMMON}
    one, two = make_attempt("one", **options, **ONE), make_attempt("two", **options, **TWO)
    two.config["parallel"] = {"fsdp": {**WRITTEN, "offload_params": True}}
    one.train()
    seen = train_together(two, 2, stop_at=2)
    packed = "base_model.model.model.layers.0.mlp.up_proj.base_layer.weight"
    assert [rank["local"][packed] for rank in seen] == [[2048, 1]] * 2  # 64 x 128 weights, two in a byte, in halves
    train_together(two, 2)
    assert numbers(two) == pytest.approx(numbers(one), rel=1e-4)
    results = [json.loads((attempt.run / "result.json").read_text()) for attempt in (one, two)]
    for name in ("num_parameters", "num_trainable", "quantisation"):
        assert results[0][name] == results[1][name]
    assert (two.run / "output/adapter_model.safetensors").is_file()


def test_copies_of_a_model_in_one_shard_each_train_as_one_process_does(make_attempt, alone):
    attempt = make_attempt("copies", **TWO, **COMMON, parallel__fsdp=WRITTEN, parallel__num_copies=2)
    train_together(attempt, 2, stop_at=2)
    train_together(attempt, 2)
    assert spread(attempt) == "3 pieces, each in 1 shards, in 2 copies (FSDP2)"
    assert numbers(attempt) == pytest.approx(numbers(alone), rel=1e-4)


def test_pickle_of_a_foreign_checkpoint_runs_no_code(tmp_path):
    import os
    import pickle

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "caught"),)

    directory = tmp_path / shards.WEIGHTS_DIR
    directory.mkdir()
    (directory / ".metadata").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ConfigError, match="mkdir, which no checkpoint has"):
        shards.whole(tmp_path)
    assert not (tmp_path / "caught").exists()


def test_4_bit_weights_on_their_way_to_main_memory_are_those_quantised_there(wide):
    from transformers import AutoModelForCausalLM

    from ftl.config.quantize import QuantSection
    from ftl_runtime.models.quantize import quantise, quantising_on

    def load():
        wanted = quantise(QuantSection(in_4bit=True), torch.float32)
        model = AutoModelForCausalLM.from_pretrained(wide, quantization_config=wanted, device_map={"": "cpu"})
        return model.model.layers[0].mlp.up_proj.weight

    plain = load()
    with quantising_on("cpu"):
        passed = load()
    assert equal(plain.data, passed.data)
    assert equal(plain.quant_state.absmax, passed.quant_state.absmax)
