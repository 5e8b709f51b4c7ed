"""Rows with pictures, and batches of them: pictures are opened when their batch is made, and never kept.

Shapes: B rows, T tokens of the longest row; M trained tokens.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ftl.config.data import DataSection
from ftl.errors import ConfigError, Problem
from ftl.formats.example import Example, Picture, Segment
from ftl.sources.pictures import name_in_bundle
from ftl.tokens import MASKED, TokenizerView, Tokens, encode
from ftl_runtime.data.dataset import TokenRows

if TYPE_CHECKING:
    from PIL.Image import Image

_OF_TEXT = ("input_ids", "attention_mask", "text_replacement_offsets")
Processor = Any  # Any: transformers' processors, whose parts have no types


@dataclass(frozen=True)
class Chat:
    """A row: its text, and its pictures, whose paths are those of files."""

    where: str
    """For the user: the dataset, and which of its rows."""
    example: Example


@dataclass(frozen=True)
class PicturedRows:
    """The rows of `rows` as chats. `keys` are those of the datasets that its files hold, such as datasets.0."""

    rows: TokenRows
    keys: tuple[str, ...]
    find: Callable[[str], Path]
    """Where a file of the bundle is."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Chat:
        file, number = self.rows.place(row)
        key = self.keys[file]
        example = self.rows.files[file].chats[number]
        pictures = tuple(self._found(picture, key) for picture in example.pictures or ())
        return Chat(f"{key}, row {number + 1}", replace(example, pictures=pictures))

    def costs(self, rows: Sequence[int]) -> list[int]:
        return self.rows.costs(rows)

    def _found(self, picture: Picture, key: str) -> Picture:
        if picture.path is None:
            return picture
        return Picture(path=str(self.find(name_in_bundle(key, picture.path))))


@dataclass(frozen=True)
class PictureCollator:
    """Makes a batch of chats, padded at the end.

    Each picture stands for as many tokens as the processor says, none of which is trained. Beside input_ids_BT,
    labels_BT, attention_mask_BT (1 where there is a token) and what Collator gives of trained tokens, `pictures` holds
    what the model is to be given of the pictures by its own names.
    """

    processor: Processor
    view: TokenizerView
    data: DataSection
    pad_id: int

    def __call__(self, chats: Sequence[Chat]) -> dict[str, Any]:  # Any: tensors, and the int num_tokens
        pictured = [b for b, chat in enumerate(chats) if chat.example.pictures]
        examples = [chat.example for chat in chats]
        seen = self._seen([chats[b] for b in pictured]) if pictured else {}
        for b, offsets in zip(pictured, seen.get("text_replacement_offsets", [()] * len(pictured)), strict=True):
            examples[b] = expanded(examples[b], offsets)
        tokens = [self._without_pictures(row) for row in encode(examples, self.view)]
        if pictured:
            self._check_same([chats[b] for b in pictured], [tokens[b] for b in pictured], seen)
        batch = self._padded(tokens)
        batch["pictures"] = self._pictures(batch["input_ids"], pictured, seen)
        return batch

    def _seen(self, chats: Sequence[Chat]) -> dict[str, Any]:  # Any: whatever the processor gives
        texts = ["".join(segment.text for segment in chat.example.segments) for chat in chats]
        images = [[self._opened(picture, chat.where) for picture in chat.example.pictures or ()] for chat in chats]
        try:
            return dict(
                self.processor(
                    text=texts,
                    images=images,
                    text_kwargs={"padding": True, "add_special_tokens": False, "return_tensors": "pt"},
                    return_text_replacement_offsets=True,
                )
            )
        except (ValueError, TypeError, IndexError, NotImplementedError) as error:
            rows = ", ".join(chat.where for chat in chats)
            raise ConfigError(Problem(rows, f"the processor refuses the pictures: {_first_line(error)}")) from error

    def _opened(self, picture: Picture, where: str) -> "Image":
        from PIL import Image, ImageOps, UnidentifiedImageError

        source = picture.path if picture.content is None else io.BytesIO(picture.content)
        assert source is not None, "a picture is a path or a content"
        try:
            with Image.open(source) as opened:
                turned = ImageOps.exif_transpose(opened)
                image: Image.Image = (opened if turned is None else turned).convert("RGB")
        except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise ConfigError(Problem(where, f"a picture cannot be opened: {_first_line(error)}")) from error
        size = self.data.image_size
        if size is None:
            return image
        resampling = Image.Resampling[self.data.image_resampling.upper()]
        if isinstance(size, tuple):
            width, height = size
            return image.resize((width, height), resampling)
        return ImageOps.pad(image, (size, size), resampling)

    def _without_pictures(self, tokens: Tokens) -> Tokens:
        """No token of a picture is trained, whoever's message it is in."""
        of_pictures = {id for id in self.processor.image_token_ids if id is not None}
        labels = [MASKED if id in of_pictures else label for id, label in zip(tokens.ids, tokens.labels, strict=True)]
        return Tokens(tokens.ids, labels)

    def _check_same(
        self, chats: Sequence[Chat], tokens: Sequence[Tokens], seen: Mapping[str, Any]
    ) -> None:  # Any: as above
        """Raises ConfigError unless the processor makes the same tokens of the texts."""
        for chat, row, ids_T, mask_T in zip(chats, tokens, seen["input_ids"], seen["attention_mask"], strict=True):
            if ids_T[mask_T.bool()].tolist() != row.ids:
                given = f"a {type(self.processor).__name__} writes pictures into texts in a way that cannot be followed"
                raise ConfigError(Problem(chat.where, given, "take another base, or leave such rows out"))

    def _padded(self, tokens: Sequence[Tokens]) -> dict[str, Any]:  # Any: tensors, and an int
        lengths_B = [len(row.ids) for row in tokens]
        width = max(*lengths_B, self.data.sequence_len if self.data.pad_to_sequence_len else 1)
        input_ids_BT = np.full((len(tokens), width), self.pad_id, np.int64)
        labels_BT = np.full((len(tokens), width), MASKED, np.int64)
        attention_mask_BT = np.zeros((len(tokens), width), np.int64)
        for b, row in enumerate(tokens):
            input_ids_BT[b, : lengths_B[b]] = row.ids
            labels_BT[b, 1 : lengths_B[b]] = row.labels[1:]
            attention_mask_BT[b, : lengths_B[b]] = 1
        targets_N = np.roll(labels_BT.reshape(-1), -1)
        trained_rows_M = np.flatnonzero(targets_N != MASKED)
        return {
            "input_ids": torch.from_numpy(input_ids_BT),
            "labels": torch.from_numpy(labels_BT),
            "attention_mask": torch.from_numpy(attention_mask_BT),
            "trained_rows": torch.from_numpy(trained_rows_M),
            "trained_targets": torch.from_numpy(targets_N[trained_rows_M]),
            "num_tokens": sum(lengths_B),
        }

    def _pictures(self, input_ids_BT: torch.Tensor, pictured: list[int], seen: Mapping[str, Any]) -> dict[str, Any]:
        """What of the processor's output is not text. What it says of each token is laid where the tokens are."""
        found: dict[str, Any] = {}  # Any: tensors
        for name, value in seen.items():
            if name in _OF_TEXT:
                continue
            is_of_tokens = torch.is_tensor(value) and value.shape[:2] == seen["input_ids"].shape
            if is_of_tokens:
                laid = torch.zeros((*input_ids_BT.shape, *value.shape[2:]), dtype=value.dtype)
                for b, of_row, mask_T in zip(pictured, value, seen["attention_mask"], strict=True):
                    kept = of_row[mask_T.bool()]
                    laid[b, : len(kept)] = kept
                found[name] = laid
            else:
                found[name] = value
        return found


def expanded(example: Example, offsets: Sequence[Mapping[str, Any]]) -> Example:
    """The example with what stands for each picture in its place, untrained."""
    segments: list[Segment] = []
    places = [(*offset["span"], offset["replacement"]) for offset in offsets]
    done = 0
    for segment in example.segments:
        end = done + len(segment.text)
        start = done
        for first, stop, text in places:
            if done <= first < end:
                segments += [Segment(segment.text[start - done : first - done], segment.train), Segment(text, False)]
                start = stop
        segments.append(Segment(segment.text[start - done :], segment.train))
        done = end
    return replace(example, segments=tuple(segment for segment in segments if segment.text))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
