import pytest

from ftl.config.rules import DATASET_RULES, RULES, without_effect
from ftl.config.train import TrainConfig


def config(*, data=(), optim=(), rates=(), output=(), adapter=None, dataset=(), objective="sft", **more) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "model": {"base": "m", **more.pop("model", {})},
            "data": {"datasets": [{"path": "a", "type": "alpaca", **dict(dataset)}], **dict(data)},
            "optim": {"learning_rate": 1.0, **dict(optim)},
            "rates": dict(rates),
            "output": dict(output),
            "adapter": adapter,
            "objective": {"kind": objective},
            **more,
        }
    )


STREAM = {
    "datasets": [],
    "pretraining_dataset": [{"path": "c", "type": "pretrain", "weight": 2.0, "skip": 5, "text_column": "t"}],
}
LORA = {"kind": "lora"}
UNREAD = [
    ({"path": "az://c/x.jsonl"}, "path"),
    ({"path": "sqlite:///x.db"}, "path"),
    ({"path": "https://[x"}, "path"),
    ({"path": "s3://"}, "path"),
    ({"path": "webdataset"}, "path"),
    ({"path": "rows.jsonl.zip"}, "path"),
    ({"path": "json", "data_files": ["a.jsonl", "b.tar.gz"]}, "data_files"),
    ({"path": "json", "data_files": ["**x/*"]}, "data_files"),
]


@pytest.mark.parametrize(("dataset", "where"), UNREAD, ids=str)
def test_place_that_rows_are_not_read_from_breaks_one_rule(dataset, where):
    built = config(dataset=dataset)
    (entry,) = built.data.datasets
    (problem,) = [problem for rule in DATASET_RULES if (problem := rule(entry, built))]
    assert problem.where == where
    assert problem.remedy


@pytest.mark.parametrize("path", ["https://host/a.jsonl", "s3://bucket", "org/name", "./data", "data/**/*.jsonl"])
def test_place_that_rows_are_read_from_breaks_no_rule(path):
    built = config(dataset={"path": path})
    assert not [problem for rule in DATASET_RULES if (problem := rule(built.data.datasets[0], built))]


TEST_SET = {"test_datasets": [{"path": "b", "type": "alpaca"}]}


@pytest.mark.parametrize(
    ("sections", "where"),
    [
        ({"optim": {"warmup_steps": 1, "warmup_ratio": 0.1}}, "warmup_ratio"),
        ({"output": {"save_steps": 5, "saves_per_epoch": 1}}, "saves_per_epoch"),
        ({"output": {"eval_steps": 5, "evals_per_epoch": 1}, "data": {"val_set_size": 0.1}}, "evals_per_epoch"),
        ({"output": {"eval_steps": 5}}, "eval_steps"),
        ({"output": {"eval_strategy": "epoch"}}, "eval_strategy"),
        ({"data": {"val_set_size": 0.1, **TEST_SET}}, "val_set_size"),
        ({"data": {"val_set_size": 10.5}}, "val_set_size"),
        ({"output": {"save_strategy": "epoch", "save_steps": 5}}, "save_strategy"),
        ({"output": {"save_strategy": "no", "saves_per_epoch": 1}}, "save_strategy"),
        ({"output": {"save_strategy": "steps"}}, "save_strategy"),
        ({"output": {"eval_strategy": "epoch", "evals_per_epoch": 2}, "data": {"val_set_size": 0.1}}, "eval_strategy"),
        ({"output": {"save_steps": 1.5}}, "save_steps"),
        ({"output": {"eval_steps": 2.5}, "data": {"val_set_size": 0.1}}, "eval_steps"),
        ({"data": {"chat_template": "jinja"}}, "chat_template"),
        ({"data": {"chat_template": "chatml", "chat_template_jinja": "x"}}, "chat_template_jinja"),
        ({"adapter": {"kind": "lora", "target_modules": ".*", "target_linear": True}}, "lora_target_modules"),
        ({"adapter": {**LORA, "target_modules": ".*", "layers_to_transform": [1]}}, "peft_layers_to_transform"),
        ({"adapter": LORA, "quant": {"in_4bit": True}, "model": {"reinit_weights": True}}, "reinit_weights"),
        ({"adapter": {**LORA, "init_weights": "pissa"}, "quant": {"in_8bit": True}}, "peft_init_lora_weights"),
        ({"adapter": {**LORA, "init_weights": "loftq"}, "quant": {"in_8bit": True}}, "peft_init_lora_weights"),
        ({"adapter": {**LORA, "init_weights": "olora", "use_dora": True}}, "peft_use_dora"),
        ({"adapter": {**LORA, "init_weights": "mica", "initial": "x"}}, "peft_init_lora_weights"),
        ({"precision": {"weights": "fp16"}}, "weights_dtype"),
        ({"adapter": {**LORA, "restarts": True}}, "relora"),
        ({"adapter": {**LORA, "restarts": True, "use_dora": True}, "rates": {"restart_steps": 50}}, "relora"),
        ({"adapter": LORA, "rates": {"restart_steps": 5}}, "jagged_restart_steps"),
        (
            {
                "optim": {"scheduler": "reduce_lr_on_plateau"},
                "rates": {"restart_steps": 50},
                "data": {"val_set_size": 0.1},
            },
            "jagged_restart_steps",
        ),
        ({"adapter": LORA, "trained": {"spectrum_share": 0.5}}, "spectrum_top_fraction"),
        ({"trained": {"parameters": ["^lm_head"], "lisa_num_layers": 2}}, "lisa_n_layers"),
        ({"trained": {"parameters": ["^lm_head.weight$[:9]"]}, "optim": {"weight_decay": 0.1}}, "weight_decay"),
        ({"adapter": LORA, "precision": {"weights": "bf16", "compute": "fp16"}}, "weights_dtype"),
        ({"model": {"load_options": {"torch_dtype": "float16"}}}, "overrides_of_model_kwargs.torch_dtype"),
        ({"model": {"load_options": {"use_safetensors": False}}}, "overrides_of_model_kwargs.use_safetensors"),
        ({"model": {"load_options": {"use_cache": True}}}, "overrides_of_model_kwargs.use_cache"),
        ({"data": {"datasets": []}}, "datasets"),
        ({"data": {**STREAM, "datasets": [{"path": "a"}]}, "optim": {"max_steps": 5}}, "pretraining_dataset"),
        ({"data": STREAM}, "max_steps"),
        ({"data": {**STREAM, "val_set_size": 0.1}, "optim": {"max_steps": 5}}, "val_set_size"),
        ({"data": STREAM, "optim": {"max_steps": 5}, "objective": "dpo"}, "pretraining_dataset"),
        ({"data": {"shard_idx": 1}}, "dataset_shard_idx"),
        ({"data": {"shard_num": 4, "shard_idx": 4}}, "dataset_shard_idx"),
        ({"data": {"sample_packing": True}, "objective": "orpo"}, "sample_packing"),
        ({"data": {"keep_order": True, "sample_packing": True}}, "curriculum_sampling"),
        ({"optim": {"optimizer_options": {"rank": 2}}}, "optim_args"),
        ({"optim": {"optimizer": "galore_adamw", "optimizer_options": {"proj_type": "up"}}}, "optim_args"),
        ({"optim": {"optimizer": "galore_adamw", "optimizer_options": {"rank": True}}}, "optim_args"),
        ({"optim": {"optimizer": "muon", "optimizer_options": {"nesterov": 1}}}, "optim_args"),
        ({"rates": {"scheduler_options": {"power": 2}}}, "lr_scheduler_kwargs"),
        ({"optim": {"optimizer": "apollo_adamw"}, "adapter": {"kind": "lora"}}, "optimizer"),
        ({"optim": {"optimizer": "schedule_free_adamw", "scheduler": "cosine"}}, "lr_scheduler"),
        ({"optim": {"scheduler": "reduce_lr_on_plateau"}}, "lr_scheduler"),
        ({"rates": {"cosine_constant_ratio": 0.5}}, "cosine_constant_lr_ratio"),
        ({"rates": {"embedding_rate": 0.5, "embedding_rate_scale": 0.5}}, "embedding_lr_scale"),
        ({"rates": {"loraplus_ratio": 16}}, "loraplus_lr_ratio"),
        ({"harness": {"tasks": ["arc_easy", "mmlu:five"]}}, "lm_eval_tasks.1"),
        ({"rounding": {"qat": {"weight_dtype": "fp8", "activation_dtype": "int8"}}}, "qat.activation_dtype"),
        ({"rounding": {"quantization": {"activation_dtype": "fp8"}}}, "quantization.activation_dtype"),
        ({"rounding": {"qat": {"weight_dtype": "fp8", "quantize_embedding": True}}}, "qat.quantize_embedding"),
        ({"rounding": {"qat": {}}, "adapter": LORA}, "qat"),
        ({"precision": {"fp8": True}, "adapter": LORA}, "fp8"),
        ({"precision": {"fp8": True}, "rounding": {"qat": {}}}, "fp8"),
        ({"precision": {"fp8": True, "compute": "fp16"}}, "fp8"),
        ({"precision": {"fp8": True}, "parallel": {"fsdp": {}}}, "fp8"),
        ({"rounding": {"qat": {}}, "parallel": {"fsdp": {}}}, "qat"),
        ({"rounding": {"qat": {}, "quantization": {"group_size": 64}}}, "quantization"),
        ({"harness": {"tasks": ["arc_easy"]}, "objective": "reward"}, "lm_eval_tasks"),
        ({"harness": {"tasks": ["arc_easy"]}, "parallel": {"fsdp": {}}}, "lm_eval_tasks"),
        ({"optim": {"scheduler": "log_sweep"}, "rates": {"sweep_min": 20}}, "log_sweep_max_lr"),
        ({"kernels": {"compile_backend": "eager", "compile_mode": "default"}}, "torch_compile_mode"),
        ({"kernels": {"is_compiled": True}, "parallel": {"fsdp": {}}}, "torch_compile"),
        ({"kernels": {"is_compiled": True, "tiled_mlp": True}}, "torch_compile"),
        ({"kernels": {"is_compiled": True}, "quant": {"in_8bit": True}, "adapter": {"kind": "lora"}}, "torch_compile"),
        ({"precision": {"gradient_checkpointing": False, "activation_offloading": True}}, "activation_offloading"),
    ],
    ids=str,
)
def test_contradiction_breaks_one_rule(sections, where):
    broken = [problem for rule in RULES if (problem := rule(config(**sections)))]
    assert [problem.where for problem in broken] == [where]
    assert broken[0].allowed


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"optim": {"warmup_steps": 1}},
        {"output": {"save_steps": 0.25}},
        {"output": {"save_strategy": "steps", "saves_per_epoch": 2}},
        {"output": {"eval_strategy": "no"}},
        {"output": {"eval_steps": 5}, "data": TEST_SET},
        {"data": {"val_set_size": 10}},
        {"data": {"chat_template": "jinja", "chat_template_jinja": "x"}},
        {"adapter": {"kind": "lora", "target_modules": ["q"], "target_linear": True}},
        {"data": STREAM, "optim": {"max_steps": 5}},
        {"data": {"shard_num": 4, "shard_idx": 3}},
    ],
    ids=str,
)
def test_sound_config_breaks_no_rule(sections):
    assert [problem for rule in RULES if (problem := rule(config(**sections)))] == []


@pytest.mark.parametrize(
    ("dataset", "sentences"),
    [
        (
            {"field_messages": "m", "roles": {}, "train_on_eos": "all"},
            [
                "field_messages: belongs to type chat_template (so do `roles`, `train_on_eos`); "
                "remove it, or correct `type`, which is alpaca"
            ],
        ),
        (
            {"field": "t", "roles": {}},
            [
                "field: belongs to type completion; remove it, or correct `type`, which is alpaca",
                "roles: belongs to type chat_template; remove it, or correct `type`, which is alpaca",
            ],
        ),
        (
            {"type": "chat_template", "step_separator": "x"},
            [
                "step_separator: belongs to type stepwise_supervised of `objective` prm; "
                "remove it, or correct `type`, which is chat_template",
            ],
        ),
        (
            {"chosen_format": "x"},
            [
                "chosen_format: belongs to type user_defined of `objective` dpo or ipo or simpo or cpo; "
                "remove it, or correct `type`, which is alpaca"
            ],
        ),
        (
            {"type": "chat_template", "chat_template": "jinja"},
            ["chat_template: needs the template itself; give it as `chat_template_jinja`"],
        ),
        (
            {"path": None},
            ["path: path: is missing; name a file, a directory or a Hub repository, or local files as `data_files`"],
        ),
        (
            {"split": "train[10%"},
            ["split: must be like train, train[:1%], train[100:200] or train[:50%]+test[:10]"],
        ),
        ({"shards": 4, "shards_idx": 4}, ["shards_idx: must be below `shards`, which is 4; parts are counted from 0"]),
        ({"shards_idx": 1}, ["shards_idx: needs `shards` beside it"]),
        ({"weight": 2.0, "skip": 3}, ["weight: belongs to `pretraining_dataset` (so does `skip`); remove it"]),
        (
            {"type": "chatml.intel"},
            ["type: is a format for `objective` dpo, ipo, simpo, cpo, kto, and this trains sft; correct one of them"],
        ),
        (
            {"type": "alpaca_w_system", "field_system": "s"},
            ["field_system: belongs to type chat_template; remove it, or correct `type`, which is alpaca_w_system"],
        ),
        (
            {"type": "alpaca", "chat_template": "chatml"},
            ["chat_template: belongs to types of conversations; remove it, or correct `type`, which is alpaca"],
        ),
        ({"type": "sharegpt_jokes", "chat_template": "chatml"}, []),
        (
            {"type": {"format": "{instruction}"}, "field": "t"},
            ["field: belongs to type completion; remove it, or correct `type`, which is a mapping"],
        ),
        (
            {"type": None, "field_messages": "m"},
            ["field_messages: belongs to type chat_template; remove it, or correct `type`, which is absent"],
        ),
        ({"split": "train-x[:1_0] + test"}, []),
        ({"type": "completion", "field": "t"}, []),
        ({"type": "pretrain", "text_column": "t"}, []),
        ({"type": "chat_template", "roles_to_train": ["assistant"]}, []),
        ({"type": "./mine.py:read", "field": "t", "field_messages": "m"}, []),
        ({"path": None, "data_files": ["x.jsonl"]}, []),
        ({"split": "train[:1%]+test[-10:]"}, []),
    ],
    ids=str,
)
def test_dataset_rules(dataset, sentences):
    whole = config(dataset=dataset)
    broken = [problem for rule in DATASET_RULES if (problem := rule(whole.data.datasets[0], whole))]
    assert [str(problem) for problem in broken] == sentences


@pytest.mark.parametrize(
    ("objective", "type", "keys"),
    [
        ("dpo", "chatml.argilla_chat", ["message_property_mappings", "roles", "field_chosen", "field_rejected"]),
        ("dpo", "llama3.ultra", ["message_property_mappings", "roles", "field_chosen", "field_rejected"]),
        ("reward", "bradley_terry.chatml.argilla_chat", ["roles", "field_chosen"]),
        ("kto", "chatml.argilla_chat", ["message_property_mappings", "roles"]),
        ("kto", "user_defined", ["field_prompt", "field_completion", "field_label", "completion_format"]),
        ("dpo", "chat_template", ["field_messages", "field_chosen", "split_thinking", "drop_system_message"]),
        ("orpo", "chat_template.argilla", ["field_rejected", "template_thinking_key"]),
    ],
)
def test_keys_that_a_reader_looks_at_are_accepted(objective, type, keys):
    assert sentences_of(objective, type, keys) == []


@pytest.mark.parametrize(
    ("objective", "type", "keys", "sentence"),
    [
        (
            "kto",
            "chatml.ultra",
            ["roles"],
            "roles: belongs to type chatml.argilla_chat or llama3.argilla_chat; "
            "remove it, or correct `type`, which is chatml.ultra",
        ),
        (
            "dpo",
            "user_defined",
            ["field_completion", "field_label", "field_prompt"],
            "field_completion: belongs to type user_defined of `objective` kto (so does `field_label`); "
            "remove it, or correct `type`, which is user_defined",
        ),
        (
            "orpo",
            "chat_template",
            ["field_messages"],
            "field_messages: belongs to type chat_template of `objective` sft or dpo or ipo or simpo or cpo or kd or "
            "grpo; remove it, or correct `type`, which is chat_template",
        ),
    ],
)
def test_keys_that_a_reader_leaves_alone_are_refused(objective, type, keys, sentence):
    assert sentences_of(objective, type, keys) == [sentence]


def sentences_of(objective, type, keys):
    values = {"message_property_mappings": {}, "roles": {}, "split_thinking": True, "drop_system_message": True}
    whole = config(objective=objective, dataset={"type": type} | {key: values.get(key, "x") for key in keys})
    broken = [problem for rule in DATASET_RULES if (problem := rule(whole.data.datasets[0], whole))]
    return [str(problem) for problem in broken]


def test_preference_rows_have_no_masks():
    whole = config(objective="dpo", dataset={"type": "chat_template", "roles_to_train": ["user"], "field_tools": "t"})
    broken = [problem for rule in DATASET_RULES if (problem := rule(whole.data.datasets[0], whole))]
    assert [str(problem) for problem in broken] == [
        "field_tools: says what a conversation trains (so does `roles_to_train`), and `objective` dpo trains answers; "
        "remove it"
    ]


def test_stream_holds_texts():
    whole = config(data={**STREAM, "pretraining_dataset": [{"path": "c", "type": "alpaca"}]}, optim={"max_steps": 5})
    broken = [problem for rule in DATASET_RULES if (problem := rule(whole.data.pretraining_dataset[0], whole))]
    assert [problem.allowed for problem in broken] == ["must be pretrain or completion in `pretraining_dataset`"]


def test_stream_may_have_the_keys_of_a_stream():
    whole = config(data=STREAM, optim={"max_steps": 5})
    assert [rule(whole.data.pretraining_dataset[0], whole) for rule in DATASET_RULES] == [None] * len(DATASET_RULES)


@pytest.mark.parametrize(
    ("sections", "names"),
    [
        ({}, []),
        ({"optim": {"num_epochs": 2}}, []),
        ({"optim": {"num_epochs": 2, "max_steps": 3}}, ["num_epochs"]),
        ({"output": {"evals_per_epoch": 2}, "optim": {"eval_batch_size": 1}}, ["evals_per_epoch", "eval_batch_size"]),
        ({"output": {"evals_per_epoch": 2}, "data": {"val_set_size": 1}}, []),
        ({"optim": {"optimizer": "sgd", "adam_beta1": 0.8, "adam_beta2": 0.9}}, ["adam_beta1", "adam_beta2"]),
        ({"optim": {"scheduler": "constant", "warmup_steps": 5}}, ["warmup_steps"]),
        ({"optim": {"optimizer": "schedule_free_sgd", "scheduler": "constant", "warmup_steps": 5}}, []),
        ({"optim": {"optimizer": "schedule_free_radam", "warmup_steps": 5}}, ["warmup_steps"]),
        ({"optim": {"optimizer": "lion_8bit", "adam_beta2": 0.9, "adam_epsilon": 1e-6}}, ["adam_epsilon"]),
        ({"optim": {"optimizer": "came_pytorch", "adam_beta3": 0.9, "adam_epsilon2": 1e-6}}, []),
        ({"optim": {"optimizer": "muon", "adam_beta1": 0.8, "adam_beta3": 0.9}}, ["adam_beta3"]),
        ({"optim": {"adam_epsilon2": 1e-6, "low_rank_modules": ["mlp"]}}, ["adam_epsilon2", "optim_target_modules"]),
        ({"optim": {"scheduler": "rex"}, "rates": {"cosine_min_ratio": 0.1}}, []),
        (
            {"optim": {"scheduler": "linear"}, "rates": {"cosine_min_ratio": 0.1, "quadratic_warmup": True}},
            ["cosine_min_lr_ratio", "lr_quadratic_warmup"],
        ),
        ({"rates": {"sweep_min": 0.1, "loraplus_embedding_rate": 0.1}}, ["log_sweep_min_lr", "loraplus_lr_embedding"]),
        ({"dataset": {"type": "completion"}, "data": {"excess_length": "drop"}}, ["excess_length_strategy"]),
        ({"data": {"group_by_length": True, "sample_packing": True}}, ["group_by_length"]),
        ({"data": {"group_by_length": False, "sample_packing": True}}, []),
        (
            {"data": {"keep_order": True, "shuffle": True, "group_by_length": True}},
            ["group_by_length", "shuffle_merged_datasets"],
        ),
        ({"data": {"pack_in_order": True}}, ["sample_packing_sequentially"]),
        ({"data": {**STREAM, "exact_deduplication": True}, "optim": {"max_steps": 1}}, ["dataset_exact_deduplication"]),
        ({"data": {"pretraining_sample_concatenation": True}}, ["pretraining_sample_concatenation"]),
        (
            {"data": {**STREAM, "push_to_hub": "me/x", "shard_num": 2}, "optim": {"max_steps": 5}},
            ["push_dataset_to_hub", "dataset_shard_num"],
        ),
        ({"data": {"eot_tokens": ["<end>"]}}, ["eot_tokens"]),
        ({"data": {"eot_tokens": ["<end>"]}, "dataset": {"type": "chat_template"}}, []),
        ({"data": {"eot_tokens": ["<end>"]}, "dataset": {"type": "llama2_chat"}}, []),
        ({"data": {"eot_tokens": ["<end>"]}, "dataset": {"type": "pygmalion"}}, []),
        ({"data": {"chat_template_kwargs": {"x": 1}}, "dataset": {"type": "./mine.py:read"}}, []),
        ({"data": {"chat_template_kwargs": {"x": 1}}, "dataset": {"type": "completion"}}, ["chat_template_kwargs"]),
        (
            {
                "data": {"eot_tokens": ["<end>"], "chat_template_kwargs": {"x": 1}},
                "dataset": {"type": "chat_template"},
                "objective": "dpo",
            },
            ["eot_tokens"],
        ),
    ],
    ids=str,
)
def test_without_effect_names_keys_that_change_nothing(sections, names):
    assert [problem.where for problem in without_effect(config(**sections))] == names
