"""What the config, its files and the machine asked for say together, before anything starts."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from ftl import precheck
from ftl.cloud import CloudSection
from ftl.config.train import TrainConfig
from ftl.contract import Resources, UrlRef
from ftl.references import references


def problems(root: Path, gpus: int = 0, gpu_kind: str | None = None, **sections: dict[str, object]) -> list[str]:
    nested: dict[str, object] = {
        "model": {"base": "./model", **sections.pop("model", {})},
        "data": {"datasets": [{"path": "./rows.jsonl", "type": "alpaca"}]},
        "optim": {"learning_rate": 1e-3},
        **sections,
    }
    config = TrainConfig.model_validate(nested)
    refs, missing = references(config, root / "cfg.yml")
    assert missing == []
    return [str(problem) for problem in precheck.problems(config, refs, Resources(gpus=gpus, gpu_kind=gpu_kind))]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    for name in ("tokenizer.json", "model.safetensors"):
        (tmp_path / "model" / name).write_text("{}")
    (tmp_path / "model/config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "rows.jsonl").write_text("{}\n")
    return tmp_path


def test_whole_model_has_no_problem(root: Path) -> None:
    assert problems(root) == []


def test_model_without_weights_is_found_unless_they_are_drawn_at_random(root: Path) -> None:
    (root / "model/model.safetensors").unlink()
    assert problems(root) == [
        "base_model: ./model: has no *.safetensors weights; to start from random weights set reinit_weights: true"
    ]
    assert problems(root, model={"reinit_weights": True}) == []


def test_directory_that_is_no_model_is_found(root: Path) -> None:
    (root / "model/config.json").unlink()
    assert problems(root) == ["base_model: ./model: must be a directory with a config.json"]


@pytest.mark.parametrize("text", ["", '{"model_type": "lla', "[]", "{}"])
def test_broken_config_of_a_model_is_found(root: Path, text: str) -> None:
    (root / "model/config.json").write_text(text)
    assert problems(root) == [
        "base_model: ./model/config.json: must be a JSON object with a `model_type`; copy it again"
    ]


def test_model_without_tokenizer_is_found_unless_another_is_named(root: Path) -> None:
    (root / "model/tokenizer.json").unlink()
    (found,) = problems(root)
    assert found.startswith("base_model: model: has no tokenizer; ")
    (root / "other").mkdir()
    (root / "other/tokenizer.json").write_text("{}")
    assert problems(root, model={"tokenizer": "./other"}) == []


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"model": {"attention": "flash_attention_2"}}, "attn_implementation"),
        ({"model": {"attention": "flex_attention"}}, "attn_implementation"),
        ({"precision": {"compute": "fp16"}}, "precision"),
        ({"precision": {"tf32": True}}, "tf32"),
        ({"precision": {"fp8": True}}, "fp8"),
    ],
    ids=["flash attention", "flex attention", "fp16", "tf32", "fp8"],
)
def test_setting_for_gpus_is_found_on_a_machine_without(
    root: Path, sections: dict[str, dict[str, object]], key: str
) -> None:
    (found,) = problems(root, **{name: dict(section) for name, section in sections.items()})
    assert found.startswith(f"{key}: ")
    assert problems(root, gpus=1, **sections) == []


BF16 = {"precision": {"compute": "bf16"}}


@pytest.mark.parametrize(
    ("kind", "sections", "told"),
    [
        (
            "T4",
            BF16,
            "precision: bf16: needs compute capability 8.0, and T4 has 7.5; "
            "use fp16 or auto, or ask for an A10G or newer",
        ),
        (
            "V100",
            {"model": {"attention": "flash_attention_2"}},
            "attn_implementation: flash_attention_2: needs compute capability 8.0, and V100 has 7.0; "
            "use sdpa, or ask for an A10G or newer",
        ),
        (
            "B200",
            {"model": {"attention": "flash_attention_3"}},
            "attn_implementation: flash_attention_3: needs a Hopper GPU, and B200 is none; "
            "remove it, or ask for an H100",
        ),
        (
            "Tesla T4",
            {"precision": {"tf32": True}},
            "tf32: true: needs compute capability 8.0, and T4 has 7.5; remove it",
        ),
        (
            "A100-80GB",
            {"precision": {"fp8": True}},
            "fp8: true: needs compute capability 8.9, and A100-80GB has 8.0; remove it, or ask for an H100",
        ),
        ("A100-80GG", BF16, "gpu: 'A100-80GG': is no GPU; did you mean `A100-80GB`?"),
    ],
    ids=["bf16", "flash attention", "flash attention 3", "tf32", "fp8", "misspelt"],
)
def test_setting_that_the_gpu_asked_for_lacks_is_found(
    root: Path, kind: str, sections: dict[str, dict[str, object]], told: str
) -> None:
    sections = {name: dict(section) for name, section in sections.items()}
    assert problems(root, gpus=1, gpu_kind=kind, **sections) == [told]


@pytest.mark.parametrize("kind", ["A10G", "H100", "MI300X", None])
def test_gpu_that_can_or_is_not_known_has_no_problem(root: Path, kind: str | None) -> None:
    sections = {"model": {"attention": "flash_attention_2"}, "precision": {"compute": "bf16", "tf32": True}}
    assert problems(root, gpus=1, gpu_kind=kind, **sections) == []


def test_processes_beside_gpus_are_told(root: Path) -> None:
    config = TrainConfig.model_validate(
        {"model": {"base": "b"}, "data": {"datasets": []}, "optim": {"learning_rate": 1}}
    )
    assert precheck.machine_problems(config, Resources(processes=2)) == []
    assert [str(problem) for problem in precheck.machine_problems(config, Resources(gpus=1, processes=2))] == [
        "processes: 2: counts processes where there is no GPU; with GPUs there is one a GPU; "
        "remove it from the cloud file"
    ]


LORA = {"kind": "lora"}


@pytest.mark.parametrize(
    ("files", "section", "told"),
    [
        ([], {}, ["lora_model_dir: old: has no adapter_config.json, so it is not an adapter"]),
        (["adapter_config.json", "adapter_model.safetensors"], {"alpha": 16.0}, []),
        (
            ["adapter_config.json", "adapter_model.safetensors"],
            {"rank": 8},
            ["lora_r: 8: must be 4, as in lora_model_dir; remove it"],
        ),
    ],
    ids=["no adapter", "fits", "other rank"],
)
def test_adapter_to_go_on_from_is_looked_into(root: Path, files: list[str], section: dict, told: list[str]) -> None:
    (root / "old").mkdir()
    for name in files:
        (root / "old" / name).write_text('{"r": 4, "lora_alpha": 16}')
    assert problems(root, adapter={**LORA, "initial": "old", **section}) == told


def test_new_tokens_under_an_adapter_need_their_embeddings_trained(root: Path) -> None:
    (root / "model/tokenizer.json").write_text(
        '{"model": {"vocab": {"a": 0, "<|im_end|>": 1}}, "added_tokens": [{"content": "<|im_start|>"}]}'
    )
    tokens = {"special_tokens": {"eos_token": "<|im_end|>", "pad_token": "<pad>"}, "tokens": ["<|im_start|>", "<tool>"]}
    assert problems(root, model=dict(tokens), adapter=LORA) == [
        "lora_modules_to_save: must name the embeddings: <tool> would be new, and an adapter "
        "leaves them random; write lora_modules_to_save: [embed_tokens, lm_head]"
    ]
    assert problems(root, model=dict(tokens)) == []
    assert problems(root, model={**tokens, "renamed_tokens": {7: "<tool>"}}, adapter=LORA) == []
    assert problems(root, model=dict(tokens), adapter={**LORA, "modules_to_save": ["embed_tokens", "lm_head"]}) == []


def tracker_problems(provider: str, secrets: tuple[str, ...] = (), **tracking: object) -> list[str]:
    config = TrainConfig.model_validate(
        {
            "model": {"base": "./model"},
            "data": {"datasets": [{"path": "./rows.jsonl", "type": "alpaca"}]},
            "optim": {"learning_rate": 1e-3},
            "tracking": tracking,
        }
    )
    return [str(p) for p in precheck.tracker_problems(config, CloudSection(provider=provider, secrets=secrets))]


def test_tracker_whose_password_the_job_would_not_have_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", "in this shell")
    monkeypatch.delenv("COMET_API_KEY", raising=False)
    assert tracker_problems("docker", wandb_project="p") == [
        "wandb_project: needs WANDB_API_KEY, which is not among the secrets of the cloud file; "
        "add `secrets: [WANDB_API_KEY]` to it, or write wandb_mode: offline"
    ]
    assert tracker_problems("docker", ("WANDB_API_KEY",), wandb_project="p") == []
    assert tracker_problems("docker", wandb_project="p", wandb_mode="offline") == []
    assert tracker_problems("docker", wandb_project="p", wandb=False) == []
    assert tracker_problems("docker", mlflow=True, tensorboard=True, trackio=True) == []
    assert tracker_problems("local", wandb_project="p") == []
    assert "COMET_API_KEY, which this shell does not have" in tracker_problems("local", comet=True)[0]
    (tmp_path / ".comet.config").write_text("[comet]\n")
    assert tracker_problems("local", comet=True) == []


@pytest.mark.parametrize("address", ["hf://user/model", "hf://buckets/user", "hf://buckets/", "ftp://host/place"])
def test_place_for_checkpoints_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match=r"must be(gin)? "):
        CloudSection(provider="docker", checkpoints=address)


def test_bucket_of_the_hub_needs_its_token() -> None:
    address = "hf://buckets/user/name"
    stores = (UrlRef(url=address),)
    cloud = CloudSection(provider="docker", checkpoints=address)
    assert [str(problem) for problem in precheck.store_problems(stores, cloud)] == [
        "checkpoints: hf://buckets/user/name: needs HF_TOKEN, which is not among the secrets of the cloud file; add "
        "`secrets: [HF_TOKEN]` to it"
    ]
    trusted = CloudSection(provider="docker", checkpoints=address, secrets=("HF_TOKEN",))
    assert precheck.store_problems(stores, trusted) == []
