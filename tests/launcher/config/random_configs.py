"""Random configs: known keys with wild values, broken text, and bytes. Shared by test_fuzz.py and fuzz_config.py."""

from typing import Any

import yaml
from hypothesis import strategies as st

from ftl.config.flat import DATASET, NESTED, TRAIN, VALUES
from ftl.config.tables.convert import CONVERT

KNOWN_WORDS = [
    *("lora", "qlora", "dpo", "grpo", "adamw_hf", "paged_adamw_8bit", "xformers", "full", "auto", "no", "jinja"),
    *("chat_template", "chatml", "sharegpt", "sharegpt_simple.load_role", "sharegpt:chat", "alpaca", "completion"),
    *("train[:1%]", "unsloth", "bfloat16", "steps", "epoch", "best", "axolotl.integrations.liger.LigerPlugin"),
    *("deepspeed_configs/zero3.json", "tokenizer_default", "stepwise_supervised", "2e-5", "0.1", "-1", "cosine"),
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, 2, -1, 0.5, 1e-4, 2.5, 8, 2**31, 2**64, 10**30, -0.0, 1e308]),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(KNOWN_WORDS),
    st.text(max_size=12),
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:  # Any: what YAML holds
    names = st.one_of(st.sampled_from(sorted({name for names in NESTED.values() for name in names})), st.text())
    return st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3))


VALUES_OF_ANY_KIND = st.recursive(SCALARS, _containers, max_leaves=6)
DATASETS = st.dictionaries(
    st.one_of(st.sampled_from(DATASET.names()), st.sampled_from(["path", "type", "roles_to_train"])),
    VALUES_OF_ANY_KIND,
    max_size=6,
)
TOP_KEYS = st.one_of(
    st.sampled_from(TRAIN.names()),
    st.sampled_from(sorted(TRAIN.derived)),
    st.sampled_from(sorted({*CONVERT, *VALUES})),
    st.text(max_size=8),
)
CONFIGS = st.builds(
    lambda base, more: base | more,
    st.fixed_dictionaries(
        {},
        optional={
            "base_model": st.just("./model"),
            "learning_rate": st.just(1e-4),
            "datasets": st.one_of(st.lists(DATASETS, max_size=3), DATASETS),
            "test_datasets": st.lists(DATASETS, max_size=2),
            "pretraining_dataset": st.one_of(st.lists(DATASETS, max_size=2), DATASETS, st.text()),
        },
    ),
    st.dictionaries(TOP_KEYS, VALUES_OF_ANY_KIND, max_size=10),
)
# One or two keys beside what is needed: most of these load, and are looked at by every rule.
TAME = st.builds(
    lambda more, dataset: {
        "base_model": "./model",
        "learning_rate": 1e-4,
        "datasets": [{"path": "a.jsonl", "type": "alpaca"} | dataset],
        **more,
    },
    st.dictionaries(TOP_KEYS, SCALARS, max_size=2),
    st.dictionaries(st.sampled_from(DATASET.names()), SCALARS, max_size=1),
)
YAML_TEXTS = st.one_of(TAME, CONFIGS).map(
    lambda config: yaml.safe_dump(config, allow_unicode=True, sort_keys=False).encode()
)
TATTERED = st.builds(
    lambda text, at, junk: text[: at % (len(text) + 1)] + junk + text[at % (len(text) + 1) :],
    YAML_TEXTS,
    st.integers(min_value=0, max_value=4000),
    st.one_of(
        st.binary(max_size=8), st.sampled_from([b": ", b"- ", b"\t", b"&a ", b"*a ", b"<<: ", b"!!x ", b"{", b'"'])
    ),
)
FILES = st.one_of(YAML_TEXTS, TATTERED, st.binary(max_size=200))
DOTTED = st.one_of(
    TOP_KEYS,
    st.builds("{}.{}.{}".format, st.sampled_from(["datasets", "special_tokens"]), st.integers(-1, 3), TOP_KEYS),
    st.builds("{}.{}".format, TOP_KEYS, TOP_KEYS),
)
OVERRIDES = st.lists(st.tuples(DOTTED, st.one_of(st.sampled_from(KNOWN_WORDS), st.text(max_size=12))), max_size=3)
