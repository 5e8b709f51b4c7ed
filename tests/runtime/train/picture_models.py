"""Two tiny models of random weights that see pictures, their processors, and conversations about generated pictures."""

import json
from pathlib import Path

from ftl.sources.pictures import name_in_bundle

QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}{% if part.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}"
)
LLAVA_TEMPLATE = (
    "{% for m in messages %}{{ m.role | upper }}: {% for part in m.content if part.type == 'image' %}<image>\n"
    "{% endfor %}{% for part in m.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
    "{{ '</s>' if m.role == 'assistant' else ' ' }}{% endfor %}"
)
LLM = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 264}


def save_qwen2_vl(directory: Path) -> Path:
    from transformers import Qwen2VLConfig
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    special = ["<|endoftext|>", "<|im_end|>", "<|im_start|>", "<|vision_start|>", "<|vision_end|>"]
    special += ["<|image_pad|>", "<|video_pad|>"]
    tokenizer = _tokenizer(special, QWEN_TEMPLATE, pad_token=special[0], eos_token=special[1])
    ids = dict(zip(special, tokenizer.convert_tokens_to_ids(special), strict=True))
    config = Qwen2VLConfig(
        text_config={
            **LLM,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
            **{f"{role}_token_id": None for role in ("bos", "eos", "pad")},
        },
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 32,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    size = {"shortest_edge": 8 * 8, "longest_edge": 24 * 24}
    images = Qwen2VLImageProcessorPil(size=size, patch_size=4, temporal_patch_size=2, merge_size=2)
    return _save(directory, config, tokenizer, images, {})


def save_llava(directory: Path) -> Path:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    special = ["<s>", "</s>", "<pad>", "<image>"]
    tokenizer = _tokenizer(special, LLAVA_TEMPLATE, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        ),
        text_config=LlamaConfig(**LLM, num_attention_heads=2, num_key_value_heads=2, pad_token_id=258),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )
    images = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    settings = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return _save(directory, config, tokenizer, images, {"processor_class": "LlavaProcessor", **settings})


def rows() -> list[dict]:
    """Eight conversations: with one picture in a part, two from the column, one where <image> stands, and none."""
    found = []
    for i in range(8):
        answer = {"role": "assistant", "content": f"picture {'abcdefgh'[i]}"}
        parts = [{"type": "image", "path": f"{i}.png"}, {"type": "text", "text": "which?"}]
        kinds = [
            {"messages": [{"role": "user", "content": parts}, answer]},
            {"messages": [{"role": "user", "content": "which two?"}, answer], "images": [f"{i}.png", "0.png"]},
            {"messages": [{"role": "user", "content": "<image>\nthat?"}, answer], "image": f"{i}.png"},
            {"messages": [{"role": "user", "content": "none?"}, answer]},
        ]
        found.append(kinds[i % 4])
    return found


def save_pictures(directory: Path, *, in_bundle: bool = True) -> None:
    """Eight pictures of several sizes and colours, by their names in the rows or in a bundle."""
    from PIL import Image

    for i in range(8):
        name = name_in_bundle("datasets.0", f"{i}.png") if in_bundle else f"{i}.png"
        place = directory / name
        place.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (10 + 3 * i, 24 - 2 * i), (30 * i, 255 - 30 * i, 10 * i))
        image.paste((250, 250 - 20 * i, 0), (1, 1, 5 + i, 6))
        image.save(place)


def save_rows(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))


def _tokenizer(special, template, **roles):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: id for id, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, **roles)


def _save(directory, config, tokenizer, images, settings) -> Path:
    import torch
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    images.save_pretrained(directory)
    if settings:
        (directory / "processor_config.json").write_text(json.dumps(settings))
    return directory
