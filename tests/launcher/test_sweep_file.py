"""A sweep file and the combinations it makes."""

from pathlib import Path

import pytest

from ftl.errors import ConfigError
from ftl.sweep import Combination, read_sweep


def combinations(tmp_path: Path, text: str) -> list[Combination]:
    (tmp_path / "sweep.yml").write_text(text)
    return read_sweep(tmp_path / "sweep.yml")


def refusals(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        combinations(tmp_path, text)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in error.value.problems]


def test_each_value_meets_each_of_the_others_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = combinations(tmp_path, "lora_r: [8, 16]\nlearning_rate: [1e-4, 3e-4]\n")
    assert [each.values for each in found] == [
        {"lora_r": 8, "learning_rate": 1e-4},
        {"lora_r": 8, "learning_rate": 3e-4},
        {"lora_r": 16, "learning_rate": 1e-4},
        {"lora_r": 16, "learning_rate": 3e-4},
    ]
    assert [each.number for each in found] == [1, 2, 3, 4]


def test_values_below_the_underscore_change_together(tmp_path: Path) -> None:
    text = "_:\n  - {lora_r: 8, lora_alpha: 16}\n  - {lora_r: 64}\nseed: [1, 2]\n"
    assert [each.values for each in combinations(tmp_path, text)] == [
        {"lora_r": 8, "lora_alpha": 16, "seed": 1},
        {"lora_r": 8, "lora_alpha": 16, "seed": 2},
        {"lora_r": 64, "seed": 1},
        {"lora_r": 64, "seed": 2},
    ]


def test_setting_names_the_line_of_its_value(tmp_path: Path) -> None:
    text = "seed:\n  - 1\n  - 2\n_:\n  - lora_r: 8\n    lora_alpha: 16\n"
    _, second = combinations(tmp_path, text)
    origins = {setting.key: setting.origin.removeprefix(f"{tmp_path}/") for setting in second.settings}
    assert origins == {"seed": "sweep.yml:3", "lora_r": "sweep.yml:5", "lora_alpha": "sweep.yml:6"}


def test_list_is_one_value_where_a_key_takes_lists(tmp_path: Path) -> None:
    first, second = combinations(tmp_path, "lora_target_modules: [[q_proj], [q_proj, v_proj]]\n")
    assert first.values == {"lora_target_modules": ["q_proj"]}
    assert second.label == "lora_target_modules=[q_proj,v_proj]"


def test_slug_is_the_label_where_a_directory_can_be_called_that(tmp_path: Path) -> None:
    (plain,) = combinations(tmp_path, "lora_r: [8]\nlearning_rate: [2e-4]\n")
    assert plain.slug == "lora_r=8,learning_rate=0.0002"
    one, other = combinations(tmp_path, "base_model: [a/b, a-b]\n")
    assert one.slug.startswith("base_model=a-b-")
    assert other.slug == "base_model=a-b"
    (long,) = combinations(tmp_path, f"base_model: [{'x' * 300}]\n")
    assert len(long.slug) == 87  # 80 characters, a dash, six of a hash


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lora_r: 8\n", "sweep.yml:1: lora_r = 8: must be a list of values to try; write `lora_r: [8, ...]`"),
        ("lora_r: []\n", "sweep.yml:1: lora_r = []: must have at least one value"),
        ("seed:\n- 1\n- 2\n- 1\n", "sweep.yml:4: seed = 1: the same value stands above; remove one"),
        ("_: [3]\n", "sweep.yml:1: _ = 3: must be keys that change together, `{lora_r: 8, lora_alpha: 16}`"),
        ("seed: [1]\n_: [{seed: 2}]\n", "sweep.yml:2: seed: stands below `_` and by itself; remove one of them"),
        (
            "seed: [1, 2, 3]\nlora_r: [" + ", ".join(map(str, range(1, 36))) + "]\n",
            "sweep.yml: 3 seed x 35 lora_r = 105 combinations: at most 100 are tried; "
            "leave values out, or make two files of it",
        ),
    ],
    ids=["scalar", "empty", "twice", "joint scalar", "joint and single", "too many"],
)
def test_mistake_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    assert refusals(tmp_path, text) == [told]


def test_true_and_1_are_two_values(tmp_path: Path) -> None:
    assert len(combinations(tmp_path, "val_set_size: [1, true, 1.0]\n")) == 3
