"""Makes what the quickstart trains on, from something every machine has: the docstrings of Python's own library.

    data/texts.jsonl         every docstring with its name, one text a row       (pretrain.yml, `completion`)
    data/instructions.jsonl  "What does json.dumps do?" -> "json.dumps is a function: ..."   (cfg.yml, `alpaca`)
    model/                   config.json of a small Llama and a byte-level BPE tokenizer; no weights

Nothing is downloaded. Run it again and the same files come out, for the same Python.
"""

import ast
import hashlib
import inspect
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).parent
PACKAGES = ("asyncio", "collections", "concurrent/futures", "email", "html", "http", "importlib", "json", "logging")
PACKAGES += ("multiprocessing", "unittest", "urllib", "xml/dom", "xml/etree", "xml/sax")
NUM_INSTRUCTIONS = 2000
VOCAB_SIZE = 2048
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "vocab_size": VOCAB_SIZE,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}


def docstrings() -> Iterator[tuple[str, str, str]]:
    """(dotted name, kind, docstring) of every function, method and class of the library, in a fixed order."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted([*library.glob("*.py"), *(file for name in PACKAGES for file in (library / name).glob("*.py"))]):
        module = ".".join(path.relative_to(library).with_suffix("").parts).removesuffix(".__init__")
        if path.stem.startswith("_") and path.stem != "__init__":
            continue
        yield from _below(ast.parse(path.read_text(encoding="utf-8")), module)


def _below(node: ast.AST, name: str) -> Iterator[tuple[str, str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            dotted = f"{name}.{child.name}"
            text = ast.get_docstring(child)
            if text and len(text) >= 40:
                yield dotted, _kind(child, node), inspect.cleandoc(text)
            yield from _below(child, dotted)


def _kind(node: ast.AST, parent: ast.AST) -> str:
    if isinstance(node, ast.ClassDef):
        return "class"
    return "method" if isinstance(parent, ast.ClassDef) else "function"


def write_jsonl(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def train_tokenizer(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _question(name: str, kind: str, text: str) -> dict[str, str]:
    summary = text.split("\n\n")[0].replace("\n", " ")
    return {"instruction": f"What does {name} do?", "input": "", "output": f"{name} is a {kind}: {summary}"}


def _mixed(row: dict[str, str]) -> str:
    """A sort key in no order a reader would see, the same everywhere."""
    return hashlib.sha256(row["instruction"].encode()).hexdigest()


def main() -> None:
    found = {name: (kind, text) for name, kind, text in docstrings()}
    texts = [{"text": f"{name}\n\n{text}"} for name, (_, text) in found.items()]
    questions = [_question(name, kind, text) for name, (kind, text) in found.items()]
    short = sorted((row for row in questions if len(row["output"]) <= 300), key=_mixed)[:NUM_INSTRUCTIONS]
    write_jsonl(HERE / "data/texts.jsonl", texts)
    write_jsonl(HERE / "data/instructions.jsonl", short)

    model = HERE / "model"
    model.mkdir(exist_ok=True)
    prompts = [f"### Instruction:\n{row['instruction']}\n\n### Response:\n{row['output']}" for row in short]
    train_tokenizer([row["text"] for row in texts] + prompts).save(str(model / "tokenizer.json"))
    (model / "config.json").write_text(json.dumps(MODEL, indent=1))
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **SPECIAL}
    (model / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=1))
    print(f"{len(texts)} texts, {len(short)} instructions, a tokenizer of {VOCAB_SIZE} tokens")


if __name__ == "__main__":
    main()
