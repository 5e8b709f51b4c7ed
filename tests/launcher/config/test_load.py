from pathlib import Path

import pytest

from ftl.config.load import load_train
from ftl.errors import ConfigError

MINIMAL = """\
base_model: ./model
datasets:
  - path: data.jsonl
    type: alpaca
learning_rate: 2e-5
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write cfg.yml, the minimal config followed by `more`, and give its relative path."""
    monkeypatch.chdir(tmp_path)

    def write(more: str = "", base: str = MINIMAL) -> Path:
        Path("cfg.yml").write_text(base + more)
        return Path("cfg.yml")

    return write


def refusals(path: Path, *overrides: tuple[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_train(path, overrides)
    return [str(problem) for problem in caught.value.problems]


def test_minimal_config_is_loaded(write):
    loaded = load_train(write())
    assert loaded.config.model.base == "./model"
    assert loaded.config.optim.learning_rate == 2e-5
    assert loaded.config.adapter is None
    assert loaded.notes == ()
    assert loaded.file.line_of(("learning_rate",)) == 5


def test_all_problems_come_at_once_in_the_order_of_the_file(write):
    path = write(
        base="""\
bse_model: x
base_model: ./model
gpu_count: 2
learning_rate: fast
adapter: lora
lora_r: 0
batch_size: 7
micro_batch_size: 2
warmup_steps: 10
warmup_ratio: 0.1
seed: true
datasets:
  - path: data.jsonl
    typ: alpaca
"""
    )
    assert refusals(path) == [
        "cfg.yml:1: bse_model: unknown key; did you mean `base_model`?",
        "cfg.yml:3: gpu_count = 2: belongs in the cloud file, which says where to train: `ftl train CFG --cloud FILE`",
        "cfg.yml:4: learning_rate = 'fast': must be a number",
        "cfg.yml:6: lora_r = 0: must be at least 1",
        "cfg.yml:7: batch_size = 7: must be a multiple of micro_batch_size, which is 2",
        "cfg.yml:10: warmup_ratio = 0.1: cannot be given together with `warmup_steps`; keep one of them",
        "cfg.yml:11: seed = true: must be a whole number",
        "cfg.yml:14: datasets.0.typ: unknown key; did you mean `type`?",
    ]


def test_missing_keys_are_named(write):
    found = refusals(write(base="seed: 1\n"))
    assert [sentence for sentence in found if "datasets" not in sentence] == [
        "cfg.yml: `base_model` is missing",
        "cfg.yml: `learning_rate` is missing",
    ]
    assert len(found) == 3


def test_null_equals_absent(write):
    loaded = load_train(write("lora_r:\nadapter:\nsequence_len: null\nhub_model_id:\nbogus_but_null:\n"))
    assert loaded.config.data.sequence_len == 512
    assert loaded.notes == ()


CHAT = MINIMAL.replace("type: alpaca", "type: chat_template")


def test_null_in_a_dataset_equals_absent(write):
    loaded = load_train(write(base=chat("split:", "train_on_eos:")))
    assert loaded.config.data.datasets[0].split == "train"
    assert loaded.config.data.datasets[0].train_on_eos == "turn"


def chat(*lines: str) -> str:
    """The minimal config with one chat_template dataset that has `lines` too."""
    return CHAT.replace("type: chat_template", "\n    ".join(["type: chat_template", *lines]))


def test_empty_roles_to_train_trains_the_last_message(write):
    loaded = load_train(write(base=chat("roles_to_train:", "train_on_eos:")))
    assert loaded.config.data.datasets[0].last_message_only
    assert loaded.notes == (
        "cfg.yml:5: datasets.0.roles_to_train = null: read as last_message_only = true;"
        " to train every reply, remove the key",
    )


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["roles_to_train: []"], id="a list without items is a value"),
        pytest.param(["roles_to_train:", "message_field_training: train"], id="finer keys decide"),
        pytest.param([], id="absent"),
    ],
)
def test_last_message_alone_is_trained_only_where_it_is_meant(write, lines):
    loaded = load_train(write(base=chat(*lines)))
    assert not loaded.config.data.datasets[0].last_message_only
    assert loaded.notes == ()


def test_empty_roles_to_train_means_nothing_outside_conversations(write):
    path = write(base=MINIMAL.replace("type: alpaca", "type: alpaca\n    roles_to_train:"))
    assert not load_train(path).config.data.datasets[0].last_message_only


@pytest.mark.parametrize(
    "text",
    ["org/name", "{path: org/name}", "[org/name]", "[{path: org/name}]"],
)
def test_pretraining_dataset_is_a_path_a_mapping_or_a_list(write, text):
    path = write(base=f"base_model: m\nlearning_rate: 1\nmax_steps: 5\npretraining_dataset: {text}\n")
    assert [entry.path for entry in load_train(path).config.data.pretraining_dataset] == ["org/name"]


def test_flag_displaces_the_old_spelling_in_the_file(write):
    path = write("evaluation_strategy: epoch\nval_set_size: 0.1\n")
    assert load_train(path, [("eval_strategy", "no")]).config.output.eval_strategy == "no"


def test_flag_displaces_the_old_spelling_of_a_renamed_key(write):
    loaded = load_train(write("sequence_parallel_degree: 2\n"), [("context_parallel_size", "4")])
    assert loaded.config.parallel.context_size == 4


def test_set_displaces_the_old_spelling_in_a_dataset(write):
    path = write(base=chat("message_field_role: who"))
    loaded = load_train(path, [("datasets.0.message_property_mappings.role", "from")])
    assert loaded.config.data.datasets[0].message_property_mappings == {"role": "from"}


def test_unbuilt_keys_are_borne_when_asked(write):
    path = write(
        "adapter: ia3\nquantize_moe_experts: true\nnvfp4_merge_aware: true\nrl: rloo\n",
    )
    loaded = load_train(path, bear_unbuilt=True)
    assert [problem.where for problem in loaded.unbuilt] == ["cfg.yml:6", "cfg.yml:7", "cfg.yml:8", "cfg.yml:9"]


def test_slip_below_a_refused_key_has_its_line(write):
    found = refusals(write("qat:\n  weight_dtype: int4\n  weight_dtyp: 1\n"))
    assert "cfg.yml:8: qat.weight_dtyp: unknown key; did you mean `weight_dtype`?" in found


def test_broken_value_does_not_drag_rules_along(write):
    assert refusals(write("val_set_size: lots\neval_steps: 5\n")) == [
        "cfg.yml:6: val_set_size = 'lots': must be a number"
    ]


def test_problem_of_converted_value_names_the_users_key(write):
    assert refusals(write("evaluation_strategy: sometimes\n")) == [
        "cfg.yml:6: evaluation_strategy = 'sometimes': must be steps, epoch or no"
    ]


def test_rule_names_the_users_key(write):
    assert refusals(write("evaluation_strategy: epoch\n")) == [
        "cfg.yml:6: evaluation_strategy = 'epoch': there is nothing to evaluate on;"
        " give `val_set_size` or `test_datasets`"
    ]


def test_bare_no_is_the_word_no(write):
    assert load_train(write("save_strategy: no\n")).config.output.save_strategy == "no"


def test_dataset_alone_and_scalars_alone_are_lists_of_one(write):
    path = write(
        "tokens: <x>\nadapter: lora\nlora_modules_to_save: lm_head\nlora_target_modules: '.*q_proj'\n",
        base="base_model: m\nlearning_rate: 1\ndatasets: {path: a, type: chat_template, roles: {assistant: gpt}}\n",
    )
    config = load_train(path).config
    assert [dataset.path for dataset in config.data.datasets] == ["a"]
    assert config.data.datasets[0].roles == {"assistant": ("gpt",)}
    assert config.model.tokens == ("<x>",)
    assert config.adapter.modules_to_save == ("lm_head",)
    assert config.adapter.target_modules == ".*q_proj"


def test_problem_in_a_dataset_alone_has_its_line(write):
    base = "base_model: m\nlearning_rate: 1\ndatasets:\n  path: a\n  type: alpaca\n  shards: 0\n"
    assert refusals(write(base=base)) == ["cfg.yml:6: datasets.shards = 0: must be at least 1"]


def test_list_of_target_modules_stays_a_list(write):
    loaded = load_train(write("adapter: lora\nlora_target_modules: [q_proj, v_proj]\n"))
    assert loaded.config.adapter.target_modules == ("q_proj", "v_proj")


@pytest.mark.parametrize(
    ("override", "read"),
    [
        (("learning_rate", "1e-4"), lambda c: c.optim.learning_rate == 1e-4),
        (("learning-rate", "1e-4"), lambda c: c.optim.learning_rate == 1e-4),
        (("sample_packing", "false"), lambda c: c.data.sample_packing is False),
        (("tokens", "[a, b]"), lambda c: c.model.tokens == ("a", "b")),
        (("datasets.0.path", "other.jsonl"), lambda c: c.data.datasets[0].path == "other.jsonl"),
        (("special_tokens.pad_token", "<pad>"), lambda c: c.model.special_tokens.pad_token == "<pad>"),
        (("model_revision", "12e5"), lambda c: c.model.revision == "12e5"),
        (("chat_template_jinja", "{{ x: y"), lambda c: c.data.chat_template_jinja == "{{ x: y"),
        (("output_dir", "123"), lambda c: c.output.output_dir == "123"),
        (("sequence_len", "null"), lambda c: c.data.sequence_len == 512),
        (("flash_attention", "false"), lambda c: c.model.attention == "sdpa"),
        (("datasets.1.path", "b"), lambda c: c.data.datasets[1].path == "b"),
    ],
    ids=lambda value: str(value) if isinstance(value, tuple) else "",
)
def test_override_is_typed_like_the_file(write, override, read):
    assert read(load_train(write("sequence_len: 64\n"), [override]).config)


def test_override_reaches_a_dataset_written_alone(write):
    path = write(base="base_model: m\nlearning_rate: 1\ndatasets: {path: a, type: alpaca}\n")
    assert load_train(path, [("datasets.0.path", "b")]).config.data.datasets[0].path == "b"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (("learning_rate", "fast"), "--learning-rate: learning_rate = 'fast': must be a number"),
        (("datasets.0.skip", "-1"), "--set: datasets.0.skip = -1: must be at least 0"),
        (("datasets.5.path", "x"), "--set: no item 5: the list has 1, counted from 0"),
        (("base_model.x", "x"), "--set: no `x` below a single value; check the dotted name"),
        (("tokens", "[a"), "--tokens: not valid YAML: did not find expected ',' or ']'; close the list with `]`"),
        (("lerning_rate", "1"), "--lerning-rate: lerning_rate: unknown key; did you mean `learning_rate`?"),
    ],
    ids=str,
)
def test_wrong_override_is_placed_at_its_option(write, override, sentence):
    assert refusals(write(), override) == [sentence]


def test_secret_in_an_override_is_not_shown(write):
    (sentence,) = refusals(write(), ("base_model", "hf_AbCdEfGhIjKlMnOpQrStUvWx"))
    assert sentence.startswith("--base-model: base_model: looks like a secret")
    assert "hf_Ab" not in sentence


def test_keys_without_effect_are_noted(write):
    loaded = load_train(write("lora_r: 8\nmax_steps: 5\nnum_epochs: 2\ndataset_prepared_path: x\nevals_per_epoch: 4\n"))
    assert loaded.notes == (
        "cfg.yml:9: dataset_prepared_path = 'x': is not used: tokens are cached by their content,"
        " in a place of ftl's own",
        "cfg.yml:6: lora_r = 8: has no effect without `adapter: lora`",
        "cfg.yml:8: num_epochs = 2: has no effect beside max_steps, which wins",
        "cfg.yml:10: evals_per_epoch = 4: has no effect without val_set_size or test_datasets",
    )


def test_refused_adapter_keeps_its_keys_checked(write):
    found = refusals(write("adapter: ia3\nlora_r: 0\n"))
    assert [sentence.split(":")[1] for sentence in found] == ["6", "7"]


def test_directory_with_one_config_is_read(write):
    write()
    assert load_train(Path()).path == Path("cfg.yml")


def test_directory_with_two_configs_is_refused(write):
    write()
    Path("other.yaml").write_text(MINIMAL)
    assert refusals(Path()) == [".: a directory with cfg.yml, other.yaml: name one of them"]


def test_directory_without_config_is_refused(tmp_path):
    assert refusals(tmp_path) == [f"{tmp_path}: a directory without a .yml file"]


@pytest.mark.parametrize("url", ["http://169.254.169.254/x.yml", "https://example.com/x.yml", "file:///etc/passwd"])
def test_url_is_refused_and_the_way_to_allow_it_is_named(url):
    (sentence,) = refusals(Path(url))
    assert "configs are not read from the network by default" in sentence
    assert "set FTL_ALLOW_CONFIG_URLS=1" in sentence


def test_missing_file_names_near_ones(write):
    write()
    assert refusals(Path("cgf.yml")) == ["cgf.yml: there is no such file; . has cfg.yml"]


@pytest.mark.parametrize("name", ["pretrain.yml", "cfg.yml"])
def test_quickstart_examples_load_without_notes(name):
    examples = Path(__file__).parents[3] / "examples" / "quickstart"
    if not (examples / name).exists():
        pytest.skip("the example is not written yet")
    assert load_train(examples / name).notes == ()


def test_streamed_texts_need_no_type(tmp_path):
    path = tmp_path / "cfg.yml"
    path.write_text("base_model: x\nlearning_rate: 1.0\nmax_steps: 5\npretraining_dataset: ./texts.jsonl\n")
    (stream,) = load_train(path).config.data.pretraining_dataset
    assert (stream.path, stream.type) == ("./texts.jsonl", "pretrain")


def test_ids_of_renamed_tokens_are_numbers_however_they_are_written(write):
    loaded = load_train(write('added_tokens_overrides: {128011: "<call>", "128012": "</call>"}\n'))
    assert loaded.config.model.renamed_tokens == {128011: "<call>", 128012: "</call>"}
    assert loaded.config.read_json(loaded.config.model_dump_json()) == loaded.config
    assert refusals(write("added_tokens_overrides: {x: y}\n")) != []


def test_settings_of_trl_without_effect_are_told(write):
    path = write(
        "rl: grpo\nmicro_batch_size: 4\n"
        "trl: {reward_funcs: [rewards.f], num_generations: 4, epsilon: 0.2, vllm_mode: server}\n",
        base=MINIMAL.replace("type: alpaca", "type:"),
    )
    (note,) = [note for note in load_train(path).notes if "trl" in note]
    assert "epsilon: nothing is clipped" in note
    assert "vllm_mode: there is no vLLM" in note
