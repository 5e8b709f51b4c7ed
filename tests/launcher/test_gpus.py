import pytest

from ftl import gpus


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("T4", "T4"),
        ("Tesla T4", "T4"),
        ("V100-SXM2-32GB", "V100-32GB"),
        ("a100", "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("A100 80GB PCIe", "A100-80GB"),
        ("A10G", "A10G"),
        ("L40S:4", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("RTX A6000", "RTXA6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX6000-Ada"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("gh200", "GH200"),
    ],
)
def test_gpu_is_found_by_the_names_people_use(name: str, kind: str) -> None:
    found = gpus.find_gpu(name)
    assert found is not None
    assert found.name == kind


def test_kind_not_in_the_table_is_unknown_and_no_problem() -> None:
    assert gpus.find_gpu("MI300X") is None
    assert gpus.misspelt("MI300X") is None


def test_misspelt_kind_is_told_with_the_closest() -> None:
    assert str(gpus.misspelt("A100-80GG")) == "gpu: 'A100-80GG': is no GPU; did you mean `A100-80GB`?"
    assert gpus.misspelt("A100-80GB") is None


@pytest.mark.parametrize(
    ("name", "abilities"),
    [
        ("V100", []),
        ("T4", []),
        ("A100-40GB", ["bf16", "tf32", "flash_attention_2"]),
        ("A10G", ["bf16", "tf32", "flash_attention_2"]),
        ("L4", ["bf16", "tf32", "fp8", "flash_attention_2"]),
        ("RTX4090", ["bf16", "tf32", "fp8", "flash_attention_2"]),
        ("H100", ["bf16", "tf32", "fp8", "flash_attention_2", "flash_attention_3"]),
        ("H200", ["bf16", "tf32", "fp8", "flash_attention_2", "flash_attention_3"]),
        ("B200", ["bf16", "tf32", "fp8", "flash_attention_2"]),
    ],
)
def test_abilities_follow_the_generation(name: str, abilities: list[str]) -> None:
    kind = gpus.find_gpu(name)
    assert kind is not None
    has = {
        "bf16": kind.has_bf16,
        "tf32": kind.has_tf32,
        "fp8": kind.has_fp8,
        "flash_attention_2": kind.has_flash_attention_2,
        "flash_attention_3": kind.has_flash_attention_3,
    }
    assert [name for name, it_has in has.items() if it_has] == abilities


def test_kinds_by_memory_come_smallest_first() -> None:
    assert [kind.name for kind in gpus.with_memory(81)] == ["GH200", "H200", "B200", "B300"]
    assert [kind.name for kind in gpus.with_memory(32, 40)] == ["V100-32GB", "RTX5090", "A100-40GB"]
