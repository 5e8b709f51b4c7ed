"""Whole trainings on conversations with pictures, against a loop written by hand with transformers' own processor."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")
pytestmark = pytest.mark.torch

import picture_models as pictures  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from ftl.errors import ConfigError  # noqa: E402

KEYS = {
    "data__datasets": [{"path": "bundle:rows.jsonl", "type": "chat_template"}],
    "data__processor": "AutoProcessor",
    "data__sample_packing": False,
    "data__val_set_size": 0,
    "data__sequence_len": 128,
    "data__shuffle": False,
    "data__keep_order": True,
    "optim__micro_batch_size": 2,
    "optim__num_epochs": 2,
    "optim__learning_rate": 1e-3,
    "optim__weight_decay": 0.0,
    "optim__scheduler": "constant",
    "output__save_steps": 2,
    "output__eval_strategy": "no",
    "output__eval_steps": None,
}


@pytest.fixture(scope="module", params=["qwen2_vl", "llava"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def vlm(kind, tmp_path_factory) -> Path:
    save = {"qwen2_vl": pictures.save_qwen2_vl, "llava": pictures.save_llava}[kind]
    directory = save(tmp_path_factory.mktemp(kind) / "base")
    pictures.save_pictures(directory.parent / "pictures", in_bundle=False)
    return directory


@pytest.fixture(scope="module")
def started(vlm, attempt_below, tmp_path_factory):
    """started(section__key=value): an attempt whose bundle has the rows and their pictures."""

    def start(**changes):
        attempt = attempt_below(tmp_path_factory.mktemp("pictures"), model=vlm, **{**KEYS, **changes})
        bundle = attempt.directory / "bundle"
        bundle.mkdir(parents=True)
        pictures.save_rows(bundle / "rows.jsonl")
        pictures.save_pictures(bundle)
        return attempt

    return start


@pytest.fixture(scope="module")
def trained(started):
    attempt = started()
    attempt.train()
    return attempt


@pytest.fixture(scope="module")
def by_hand(kind, vlm) -> dict[int, float]:
    """Step -> loss of a loop with nothing of ours in it but the rows."""
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_pretrained(vlm, dtype=torch.float32, attn_implementation="sdpa").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    batches = [batch_by_hand(kind, vlm, pictures.rows()[start : start + 2]) for start in (0, 2, 4, 6)]
    losses = {}
    for step in range(1, 5):
        pair = batches[:2] if step % 2 else batches[2:]
        num_trained = sum(int((labels[:, 1:] != -100).sum()) for _, labels in pair)
        total = 0.0
        for inputs, labels in pair:
            logits = model(**inputs, use_cache=False).logits[:, :-1].flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum") / num_trained
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses[step] = total
    return losses


def batch_by_hand(kind, vlm, rows):
    """What the model is given, and the labels: the answers and the token that ends them."""
    from PIL import Image
    from transformers import AutoImageProcessor, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(vlm)
    image_token = {"qwen2_vl": "<|image_pad|>", "llava": "<image>"}[kind]
    texts, names = [], []
    for row in rows:
        question, answer = row["messages"]
        mine = list(row.get("images", [row["image"]] if "image" in row else []))
        text = question["content"]
        if isinstance(text, list):
            mine, text = [text[0]["path"]], text[1]["text"]
        text = text.replace("<image>\n", "")
        parts = [*({"type": "image"} for _ in mine), {"type": "text", "text": text}]
        chat = [
            {"role": "user", "content": parts},
            {"role": "assistant", "content": [{"type": "text", "text": answer["content"]}]},
        ]
        texts.append(tokenizer.apply_chat_template(chat, tokenize=False))
        names += mine
    opened = [Image.open(vlm.parent / "pictures" / name).convert("RGB") for name in names]
    seen = AutoImageProcessor.from_pretrained(vlm, backend="pil")(opened, return_tensors="pt")
    sizes = [int(grid.prod()) // 4 for grid in seen["image_grid_thw"]] if kind == "qwen2_vl" else [4] * len(names)
    numbers = iter(sizes)
    texts = [
        "".join(part if part != image_token else part * next(numbers) for part in split(text, image_token))
        for text in texts
    ]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    width = max(map(len, ids))
    input_ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    labels = torch.full_like(input_ids, -100)
    for b, row in enumerate(rows):
        answer = tokenizer(row["messages"][1]["content"])["input_ids"] + [tokenizer.eos_token_id]
        start = next(t for t in range(width) if input_ids[b, t : t + len(answer)].tolist() == answer)
        labels[b, start : start + len(answer)] = torch.tensor(answer)
    inputs = {"input_ids": input_ids, "attention_mask": mask, **seen}
    if kind == "qwen2_vl":
        inputs["mm_token_type_ids"] = (input_ids == tokenizer.convert_tokens_to_ids(image_token)).long()
    return inputs, labels


def split(text, token):
    """The pieces of the text, each token a piece of its own."""
    pieces = text.split(token)
    return [item for piece in pieces[:-1] for item in (piece, token)] + pieces[-1:]


def weights(attempt) -> dict[str, torch.Tensor]:
    return load_file(attempt.run / "output" / "model.safetensors")


def is_of_encoder(name: str) -> bool:
    return any(part in name for part in ("visual", "vision_tower", "multi_modal_projector"))


def test_losses_are_those_of_a_loop_by_hand(trained, by_hand):
    assert trained.losses() == pytest.approx(by_hand, abs=2e-5)


def test_killed_run_goes_on_bit_for_bit(started, trained):
    attempt = started()
    attempt.train(stop_at=2)
    attempt.train()
    assert attempt.losses() == trained.losses()
    assert all(torch.equal(weights(attempt)[name], weight) for name, weight in weights(trained).items())


def test_finished_model_is_whole_with_what_reads_its_pictures(kind, vlm, trained):
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    output = trained.run / "output"
    AutoModelForImageTextToText.from_pretrained(output)
    assert AutoTokenizer.from_pretrained(output).chat_template
    ours, base = (AutoImageProcessor.from_pretrained(place, backend="pil").to_dict() for place in (output, vlm))
    assert ours == base
    assert (output / "processor_config.json").exists() == (kind == "llava")
    assert any(
        not torch.equal(weight, load_base(vlm)[name])
        for name, weight in weights(trained).items()
        if is_of_encoder(name)
    )


def load_base(vlm):
    return load_file(vlm / "model.safetensors")


def test_frozen_encoders_stay_as_they_are(vlm, started):
    attempt = started(trained__freezes_encoders=True, optim__max_steps=1)
    attempt.train()
    before = load_base(vlm)
    same = {name: torch.equal(weight, before[name]) for name, weight in weights(attempt).items()}
    assert all(same[name] == is_of_encoder(name) for name in same)


@pytest.mark.parametrize("targets", [None, ["q_proj", "v_proj"]], ids=["all linear", "by name"])
def test_adapter_sits_on_the_language_model_where_encoders_are_frozen(started, targets):
    lora = {"kind": "lora", "rank": 2, "target_modules": targets, "target_linear": targets is None}
    attempt = started(adapter=lora, trained__freezes_encoders=True, optim__max_steps=2)
    attempt.train()
    names = load_file(attempt.run / "output" / "adapter_model.safetensors").keys()
    assert names and not any(is_of_encoder(name) for name in names)
    assert (attempt.run / "output" / "preprocessor_config.json").exists()


def test_picture_that_cannot_be_opened_is_told_with_its_row(started):
    from ftl.sources.pictures import name_in_bundle

    attempt = started()
    broken = attempt.directory / "bundle" / name_in_bundle("datasets.0", "4.png")
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(ConfigError, match=r"datasets\.0, row 5: a picture cannot be opened: "):
        attempt.train()


def test_base_that_sees_no_pictures_is_refused(base, started):
    attempt = started(model__base=str(base))
    with pytest.raises(ConfigError, match="processor_type: base_model is a llama, which sees no pictures"):
        attempt.train()
