"""Places of pictures in texts, and pictures as the processor gets them."""

import io

import pytest

torch = pytest.importorskip("torch")
PIL = pytest.importorskip("PIL")
pytestmark = pytest.mark.torch

from PIL import Image  # noqa: E402

from ftl.config.data import DataSection  # noqa: E402
from ftl.formats.example import Example, Picture, Segment  # noqa: E402
from ftl_runtime.data.chats import Chats, ChatWriter  # noqa: E402
from ftl_runtime.data.pictured import PictureCollator, expanded  # noqa: E402


def offset(start: int, stop: int, text: str) -> dict:
    return {"span": (start, stop), "replacement": text}


def test_what_stands_for_pictures_is_untrained_whoevers_message_it_is_in() -> None:
    example = Example((Segment("a#b#", True), Segment("c#", False), Segment("d", True)))
    given = expanded(example, [offset(1, 2, "XX"), offset(3, 4, "Y"), offset(5, 6, "ZZZ")])
    assert [(segment.text, segment.train) for segment in given.segments] == [
        *[("a", True), ("XX", False), ("b", True), ("Y", False)],
        *[("c", False), ("ZZZ", False), ("d", True)],
    ]


def test_chats_are_read_back_with_the_pictures_that_rows_hold(tmp_path) -> None:
    writer = ChatWriter(tmp_path)
    pictures = (Picture(path="a.png"), Picture(content=b"\x00\xff{"))
    first = Example(
        (Segment("x", False), Segment("y", True)), bos=False, num_eos=0, is_one_text=True, pictures=pictures
    )
    second = Example((Segment("\u2615", True),), bos=False, num_eos=0, is_one_text=True, pictures=())
    for example in (first, second):
        writer.add(example)
    writer.close()
    assert [Chats(tmp_path)[1], Chats(tmp_path)[0]] == [second, first]


@pytest.mark.parametrize(
    ("size", "expected", "corner"),
    [(None, (4, 2), (255, 255, 255)), ([6, 3], (6, 3), (255, 255, 255)), (8, (8, 8), (0, 0, 0))],
    ids=["as it is", "stretched", "square with black above"],
)
def test_pictures_are_brought_to_image_size(size, expected, corner) -> None:
    content = io.BytesIO()
    Image.new("L", (4, 2), 255).save(content, "PNG")
    collator = PictureCollator(None, None, DataSection(image_size=size, processor="AutoProcessor"), 0)
    image = collator._opened(Picture(content=content.getvalue()), "row 1")
    assert (image.size, image.mode, image.getpixel((0, 0))) == (expected, "RGB", corner)
