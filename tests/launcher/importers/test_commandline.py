import pytest

from ftl.errors import ConfigError
from ftl.importers.commandline import parse_command, statements

SCRIPTS = ("train.py",)


@pytest.mark.parametrize(
    ("text", "launcher", "launcher_flags"),
    [
        ("train.py", (), {}),
        ("python train.py", ("python",), {}),
        ("torchrun --standalone --nnodes 1 --nproc-per-node=2 train.py", ("torchrun",), {"nproc_per_node": 2}),
        (
            "python -m torch.distributed.run --nproc_per_node 4 src/train.py",
            ("torch.distributed.run",),
            {"nproc_per_node": 4},
        ),
        (
            "accelerate launch --multi_gpu --num_processes=3 train.py",
            ("accelerate", "launch"),
            {"multi_gpu": True, "num_processes": 3},
        ),
        ("deepspeed --num_gpus=8 /opt/train.py", ("deepspeed",), {"num_gpus": 8}),
    ],
)
def test_launcher_and_its_flags_are_told_from_those_of_the_script(text, launcher, launcher_flags):
    command = parse_command(f"{text} --lr 1", SCRIPTS)
    assert command.launcher == launcher
    assert {key: command.launcher_flags[key] for key in launcher_flags} == launcher_flags
    assert command.flags == {"lr": 1}


def test_values_have_the_types_that_yaml_would_give_them():
    text = "train.py --a --b=8e-5 --c True --d false --e '[q_proj, v_proj]' --f x y --g -1 --h None --i 0.5 --j-k 'a b'"
    assert parse_command(text, SCRIPTS).flags == {
        "a": True,
        "b": 8e-5,
        "c": True,
        "d": False,
        "e": ["q_proj", "v_proj"],
        "f": ["x", "y"],
        "g": -1,
        "h": None,
        "i": 0.5,
        "j_k": "a b",
    }


def test_lines_variables_and_comments_are_read_as_a_shell_would():
    text = """
    # where things are
    export BASE=/data
    export NAME=run-1; cd $BASE
    WANDB_MODE=offline python train.py \\
        --model $BASE/model --out ${BASE}/$NAME-out \\
        --other $ELSEWHERE > log.txt 2>&1
    """
    command = parse_command(text, SCRIPTS)
    assert command.env == {"BASE": "/data", "NAME": "run-1", "WANDB_MODE": "offline"}
    assert command.flags == {"model": "/data/model", "out": "/data/run-1-out", "other": "$ELSEWHERE"}
    assert command.stray == ()


def test_arguments_without_a_flag_are_kept_apart():
    assert parse_command("train.py data --a 1", SCRIPTS).stray == ("data",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "python other.py --a 1",
            "command: starts no train.py; give the whole command in quotes, such as 'python train.py --flag value'",
        ),
        ("python train.py --a 'x", "command: python train.py --a 'x: cannot be read: no closing quotation"),
    ],
)
def test_what_is_no_training_is_refused(text, sentence):
    with pytest.raises(ConfigError) as caught:
        parse_command(text, SCRIPTS)
    assert str(caught.value) == sentence


def test_statements_are_split_where_a_shell_splits_them():
    assert statements("pip install x && a --b | tee log\nc") == [
        ["pip", "install", "x"],
        ["a", "--b"],
        ["tee", "log"],
        ["c"],
    ]
