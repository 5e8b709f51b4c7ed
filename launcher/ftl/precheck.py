"""What can be known before a job starts from the config, its files and what it asks of the machine, taken together."""

import json
import os
from importlib.util import find_spec
from pathlib import Path

from ftl import gpus
from ftl.cloud import CloudSection
from ftl.config.train import TrainConfig
from ftl.contract import HubRef, Resources, StoreRef, UrlRef
from ftl.errors import Problem
from ftl.references import Reference
from ftl.rewards import reward_problems
from ftl.sources.buckets import CREDENTIALS, bucket_problem
from ftl.trackers import TRACKERS, chosen

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def problems(config: TrainConfig, refs: list[Reference], resources: Resources) -> list[Problem]:
    """Each thing that would stop the job after it has started; `where` is the config key. Looks into no weights."""
    return [*file_problems(config, refs), *machine_problems(config, resources)]


def file_problems(config: TrainConfig, refs: list[Reference]) -> list[Problem]:
    """Those that no machine would change."""
    paths = {ref.key: ref.path for ref in refs}
    return [
        *_model_files(config, paths),
        *_initial_adapter(config, paths),
        *_untrained_tokens(config, paths),
        *_task_folders(refs),
        *reward_problems(config, refs),
        *_blind_base(config, paths),
    ]


def machine_problems(config: TrainConfig, resources: Resources) -> list[Problem]:
    """Those of the machine asked for."""
    found = _not_shared_out(config, resources)
    if config.ray.is_used and resources.processes > 1:
        allowed = "has no effect with use_ray, where ray_num_workers says how many there are"
        found.append(Problem("processes", str(resources.processes), allowed, "remove it from the cloud file"))
    if not resources.gpus:
        return [*found, *_without_gpu(config)]
    found += _wrong_kind(config, resources.gpu_kind)
    if resources.processes > 1:
        allowed = "counts processes where there is no GPU; with GPUs there is one a GPU"
        found = [*found, Problem("processes", str(resources.processes), allowed, "remove it from the cloud file")]
    return found


def tracker_problems(config: TrainConfig, cloud: CloudSection) -> list[Problem]:
    """Each password of a tracker that the job would not have: trackers then say so once, and get nothing."""
    found = []
    for name in chosen(config.tracking):
        needs = TRACKERS[name]
        if needs.secret is None or not needs.needs_secret(config.tracking) or _has_secret(needs.secret, cloud):
            continue
        if cloud.provider == "local":
            remedy = f"`export {needs.secret}=...`, or write {needs.without}"
            found.append(
                Problem(needs.key, allowed=f"needs {needs.secret}, which this shell does not have", remedy=remedy)
            )
        else:
            remedy = f"add `secrets: [{needs.secret}]` to it, or write {needs.without}"
            allowed = f"needs {needs.secret}, which is not among the secrets of the cloud file"
            found.append(Problem(needs.key, allowed=allowed, remedy=remedy))
    return found


def store_problems(stores: tuple[StoreRef, ...], cloud: CloudSection) -> list[Problem]:
    """What the job would lack to send itself to its stores."""
    return [*_token_problems(stores, cloud), *_bucket_problems(stores, cloud)]


def _bucket_problems(stores: tuple[StoreRef, ...], cloud: CloudSection) -> list[Problem]:
    """Buckets that are not there, as far as this machine may know."""
    found = []
    for ref in stores:
        if isinstance(ref, UrlRef):
            names = CREDENTIALS.get(ref.url.partition(":")[0], ())
            same_access = cloud.provider == "local" or any(name in cloud.secrets for name in names)
            found.append(bucket_problem(ref.url, "checkpoints", same_access=same_access))
    return [problem for problem in found if problem is not None]


def _token_problems(stores: tuple[StoreRef, ...], cloud: CloudSection) -> list[Problem]:
    """A token for the Hub that the job would not have."""
    pushes = any(isinstance(ref, HubRef) for ref in stores)
    if _has_secret("HF_TOKEN", cloud) or not (
        pushes or any(ref.url.startswith("hf:") for ref in stores if isinstance(ref, UrlRef))
    ):
        return []
    allowed = "needs HF_TOKEN, which is not among the secrets of the cloud file"
    remedy = "add `secrets: [HF_TOKEN]` to it"
    if cloud.provider == "local":
        allowed, remedy = "needs HF_TOKEN, which this shell does not have", "`export HF_TOKEN=...`, or `hf auth login`"
    if not pushes:
        return [Problem("checkpoints", cloud.checkpoints, allowed, remedy)]
    return [Problem("hub_model_id", allowed=allowed, remedy=f"{remedy}, or write push_to_hub: false")]


def ray_problems(config: TrainConfig, cloud: CloudSection) -> list[Problem]:
    """Whether this machine lacks Ray where the job is to run on it."""
    if not config.ray.is_used or cloud.provider != "local" or find_spec("ray") is not None:
        return []
    allowed = "needs the ray package, which is not installed here"
    return [Problem("use_ray", allowed=allowed, remedy="`pip install 'ftl-launcher[scale]'`, or remove it")]


_LOGINS = {"WANDB_API_KEY": ".netrc", "COMET_API_KEY": ".comet.config", "HF_TOKEN": ".cache/huggingface/token"}
"""Files of the home directory that a tracker's own login command writes."""


def _has_secret(name: str, cloud: CloudSection) -> bool:
    if cloud.provider != "local":
        return name in cloud.secrets or name in cloud.env
    return bool(os.environ.get(name)) or name in cloud.env or (Path.home() / _LOGINS[name]).is_file()


def _model_files(config: TrainConfig, paths: dict[str, Path]) -> list[Problem]:
    """What a local base model or tokenizer lacks."""
    found: list[Problem] = []
    base = paths.get("base_model")
    if base is not None:
        if not (base / "config.json").is_file():
            found.append(Problem("base_model", config.model.base, "must be a directory with a config.json"))
        elif not _is_model_config(base / "config.json"):
            given = f"{config.model.base}/config.json"
            found.append(Problem("base_model", given, "must be a JSON object with a `model_type`", "copy it again"))
        elif not config.model.reinit_weights and not any(base.glob("*.safetensors")):
            remedy = "to start from random weights set reinit_weights: true"
            found.append(Problem("base_model", config.model.base, "has no *.safetensors weights", remedy))
    key = _tokenizer_key(config)
    tokenizer = paths.get(key)
    if tokenizer is not None and not any((tokenizer / name).is_file() for name in _TOKENIZER_FILES):
        remedy = "name a directory or repository that has one with tokenizer_config"
        found.append(Problem(key, str(tokenizer.name), "has no tokenizer", remedy))
    return found


def _initial_adapter(config: TrainConfig, paths: dict[str, Path]) -> list[Problem]:
    """What a local adapter lacks that is to be gone on from, or says otherwise than the keys beside it."""
    directory, adapter = paths.get("lora_model_dir"), config.adapter
    if directory is None or adapter is None:
        return []
    files = ("adapter_config.json", "adapter_model.safetensors")
    missing = [name for name in files if not (directory / name).is_file()]
    if missing:
        return [Problem("lora_model_dir", adapter.initial, f"has no {missing[0]}, so it is not an adapter")]
    try:
        own = json.loads((directory / "adapter_config.json").read_bytes())
    except (OSError, ValueError):
        return [Problem("lora_model_dir", adapter.initial, "has an adapter_config.json that cannot be read")]
    pairs = (("rank", "lora_r", own.get("r")), ("alpha", "lora_alpha", own.get("lora_alpha")))
    return [
        Problem(key, f"{getattr(adapter, name):g}", f"must be {theirs}, as in lora_model_dir", "remove it")
        for name, key, theirs in pairs
        if name in adapter.model_fields_set and theirs not in (None, getattr(adapter, name))
    ]


def _task_folders(refs: list[Reference]) -> list[Problem]:
    """Folders of lm-eval's tasks that hold none."""
    return [
        Problem(ref.key, ref.given, "must be a folder with the YAML files of tasks, and their data")
        for ref in refs
        if ref.key.startswith("lm_eval_tasks.") and not any(ref.path.glob("**/*.y*ml"))
    ]


def _is_model_config(file: Path) -> bool:
    try:
        config = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and isinstance(config.get("model_type"), str)


def _untrained_tokens(config: TrainConfig, paths: dict[str, Path]) -> list[Problem]:
    """Tokens that a local tokenizer does not have, whose embeddings an adapter would leave as they were drawn."""
    special = config.model.special_tokens
    roles = (special.bos_token, special.eos_token, special.unk_token)  # padding is never looked at, so it may be random
    wanted = [token for token in (*roles, *special.additional_special_tokens, *config.model.tokens) if token]
    file = paths.get(_tokenizer_key(config), Path()) / "tokenizer.json"
    if config.adapter is None or config.adapter.modules_to_save or not wanted or not file.is_file():
        return []
    known = _vocabulary(file) | set(config.model.renamed_tokens.values())
    new = [token for token in dict.fromkeys(wanted) if token not in known]
    if not new or not known:
        return []
    allowed = f"must name the embeddings: {', '.join(new)} would be new, and an adapter leaves them random"
    remedy = "write lora_modules_to_save: [embed_tokens, lm_head]"
    return [Problem("lora_modules_to_save", allowed=allowed, remedy=remedy)]


def _blind_base(config: TrainConfig, paths: dict[str, Path]) -> list[Problem]:
    """Pictures for a local model that sees none."""
    file = paths.get("base_model", Path()) / "config.json"
    if config.data.processor is None or not file.is_file():
        return []
    try:
        settings = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return []  # told of elsewhere
    if not isinstance(settings, dict) or "vision_config" in settings:
        return []
    allowed = (
        f"needs a base that sees pictures, and base_model is a {settings.get('model_type')} without a vision_config"
    )
    return [Problem("processor_type", config.data.processor, allowed, "remove it, or take another base")]


def _tokenizer_key(config: TrainConfig) -> str:
    return "tokenizer_config" if config.model.tokenizer else "base_model"


def _vocabulary(file: Path) -> set[str]:
    """The tokens of a tokenizer.json; empty where it cannot be read as one."""
    try:
        tokenizer = json.loads(file.read_bytes())
        pieces = tokenizer["model"]["vocab"]
        names = pieces if isinstance(pieces, dict) else [piece for piece, _ in pieces]
        return {*names, *(token["content"] for token in tokenizer["added_tokens"])}
    except (OSError, ValueError, KeyError, TypeError):
        return set()  # whoever loads it says what is wrong with it


def _without_gpu(config: TrainConfig) -> list[Problem]:
    """Settings that a machine without a GPU cannot honour."""
    found: list[Problem] = []
    if config.model.attention in ("flash_attention_2", "flash_attention_3", "flex_attention"):
        found.append(Problem("attn_implementation", config.model.attention, "needs a GPU", "ask for one, or use sdpa"))
    if config.precision.compute == "fp16":
        found.append(Problem("precision", "fp16", "needs a GPU", "ask for one, or use bf16 or fp32"))
    if config.precision.fp8:
        found.append(Problem("fp8", "true", "needs a GPU", "ask for an H100, or remove it"))
    if config.precision.tf32:
        found.append(Problem("tf32", "true", "needs a GPU", "ask for one, or remove it"))
    return found


def _not_shared_out(config: TrainConfig, resources: Resources) -> list[Problem]:
    """Whether so many processes cannot work on each copy of the model, where it is known how many there will be."""
    gpus = resources.gpus if isinstance(resources.gpus, int | str) else len(resources.gpus)
    num = config.ray.num_workers if config.ray.is_used else gpus or resources.processes
    sizes = {"tensor_parallel_size": config.parallel.tensor_size, "context_parallel_size": config.parallel.context_size}
    allowed = f"must divide the {num} processes that train together, one a GPU where there are GPUs"
    return [
        Problem(key, str(size), allowed, "change it, or ask for more of them")
        for key, size in sizes.items()
        if isinstance(num, int) and num % size
    ]


def _wrong_kind(config: TrainConfig, name: str | None) -> list[Problem]:
    """Settings that the GPU asked for cannot honour. Nothing is said of one that is not named or not known."""
    kind = gpus.find_gpu(name) if name else None
    if kind is None:
        problem = gpus.misspelt(name) if name else None
        return [problem] if problem else []
    has = f"needs compute capability 8.0, and {kind.name} has {kind.capability[0]}.{kind.capability[1]}"
    found: list[Problem] = []
    if config.precision.compute == "bf16" and not kind.has_bf16:
        found.append(Problem("precision", "bf16", has, "use fp16 or auto, or ask for an A10G or newer"))
    if config.precision.fp8 and not kind.has_fp8:
        needed = f"needs compute capability 8.9, and {kind.name} has {kind.capability[0]}.{kind.capability[1]}"
        found.append(Problem("fp8", "true", needed, "remove it, or ask for an H100"))
    if config.precision.tf32 and not kind.has_tf32:
        found.append(Problem("tf32", "true", has, "remove it"))
    if config.model.attention == "flash_attention_2" and not kind.has_flash_attention_2:
        found.append(Problem("attn_implementation", "flash_attention_2", has, "use sdpa, or ask for an A10G or newer"))
    if config.model.attention == "flash_attention_3" and not kind.has_flash_attention_3:
        hopper = f"needs a Hopper GPU, and {kind.name} is none"
        found.append(Problem("attn_implementation", "flash_attention_3", hopper, "remove it, or ask for an H100"))
    return found
