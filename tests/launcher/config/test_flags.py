import pytest

from ftl.config.flags import parse_flags
from ftl.errors import ConfigError


@pytest.mark.parametrize(
    ("args", "pairs"),
    [
        (["--learning-rate", "1e-4"], [("learning_rate", "1e-4")]),
        (["--learning_rate=1e-4"], [("learning_rate", "1e-4")]),
        (["--no-flash-attention", "--val-set-size=0"], [("flash_attention", "false"), ("val_set_size", "0")]),
        (["--sample-packing", "--seed", "1"], [("sample_packing", "true"), ("seed", "1")]),
        (["--sample-packing", "false"], [("sample_packing", "false")]),
        (["--bf16", "auto"], [("bf16", "auto")]),
        (["--seed", "-1"], [("seed", "-1")]),
        (["--output-dir="], [("output_dir", "")]),
        (["--hub-model-id", "me/x"], [("hub_model_id", "me/x")]),
        (["--load-in-8bit"], [("load_in_8bit", "true")]),
        (["--no-load-in-8bit"], [("load_in_8bit", "false")]),
        (["--learning_rate=1 --trust_remote_code"], [("learning_rate", "1 --trust_remote_code")]),
        ([], []),
    ],
    ids=str,
)
def test_parse_flags_gives_key_and_text(args, pairs):
    assert parse_flags(args) == pairs


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--learning-ratte", "1"], "--learning-ratte: unknown option; did you mean `--learning-rate`?"),
        (["--detatch"], "--detatch: unknown option; did you mean `--detach`?"),
        (["--learning-rate"], "--learning-rate: needs a value; write --learning-rate VALUE"),
        (["--learning-rate", "--seed", "1"], "--learning-rate: needs a value; write --learning-rate VALUE"),
        (["--no-learning-rate"], "--no-learning-rate: is no switch; write --learning-rate=null to leave the key out"),
        (
            ["--no-sample-packing=1"],
            "--no-sample-packing: takes no value; write --no-sample-packing, or --sample-packing=1",
        ),
        (["cfg2.yml"], "cfg2.yml: unexpected argument; overrides look like --learning-rate 1e-4"),
        (["-x"], "-x: unexpected argument; overrides look like --learning-rate 1e-4"),
        (["--zzzzzzzz", "1"], "--zzzzzzzz: unknown option"),
    ],
    ids=str,
)
def test_parse_flags_refuses_in_one_sentence(args, sentence):
    with pytest.raises(ConfigError) as caught:
        parse_flags(args, others=("--detach", "--dry-run"))
    assert str(caught.value) == sentence


def test_parse_flags_reports_all_at_once_without_values():
    with pytest.raises(ConfigError) as caught:
        parse_flags(["--sed", "1", "--my-secret", "hf_AbCdEfGhIjKlMnOpQr", "--lora-rr=2"])
    assert [problem.where for problem in caught.value.problems] == ["--sed", "--my-secret", "--lora-rr"]
    assert "hf_" not in str(caught.value)
