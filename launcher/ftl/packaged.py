"""Finds the data folders that ship with ftl: images, cloud_templates, examples, deepspeed_configs."""

from pathlib import Path


def packaged(name: str) -> Path:
    """The folder `name`, in the installed wheel (ftl/_data) or else in the checkout this module was loaded from.

    An editable install has no ftl/_data: the build backend copies the folders only into wheels.
    Raises FileNotFoundError when neither has it.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "_data" / name, here.parents[1] / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"{name} is neither in {here / '_data'} nor in {here.parents[1]}")
