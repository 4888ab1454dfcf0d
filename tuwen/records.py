"""The rows of a data set: a picture with its captions and questions (DESIGN, section 1)."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_serializer

HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
FORMAT = 1


def guess_language(text: str) -> str:
    """`"zh"` where the text holds any Han character, else `"en"`."""
    return "zh" if HAN.search(text) else "en"


class Row(BaseModel):
    """Base of the row types: unknown keys survive a round trip, absent ones are not written."""

    model_config = ConfigDict(extra="allow")

    @model_serializer(mode="wrap")
    def _drop_absent(self, handler: Any) -> dict[str, Any]:
        own = type(self).model_fields
        return {
            key: value for key, value in handler(self).items() if key not in own or (value is not None and value != [])
        }


class Caption(Row):
    """One sentence about a picture. `source` is `human`, `model:NAME` or `questions`."""

    text: str
    lang: str = ""
    source: str = "human"

    def model_post_init(self, context: Any) -> None:
        if not self.lang:
            self.lang = guess_language(self.text)


class Question(Row):
    """One question with one answer string an annotator."""

    question: str
    answers: list[str] = Field(default_factory=list)
    id: str | None = None
    question_type: str | None = None
    source: str = "human"

    @field_validator("id", mode="before")
    @classmethod
    def _id_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value


class Picture(Row):
    """One line of `metadata.jsonl`. Only `file_name` is required, relative to `root` or to the data set's folder."""

    file_name: str = Field(min_length=1)
    id: str | None = None
    root: str | None = None
    split: str | None = None
    group: str | None = None
    captions: list[Caption] = Field(default_factory=list)
    qa: list[Question] = Field(default_factory=list)
    regions: str | None = None

    @field_validator("id", "group", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value

    @field_validator("captions", mode="before")
    @classmethod
    def _widen_strings(cls, value: Any) -> Any:
        if isinstance(value, list):
            return [{"text": item} if isinstance(item, str) else item for item in value]
        return value

    @property
    def key(self) -> tuple[str | None, str]:
        """What makes it the same picture in two imports: the root's name and the file's path below it."""
        return (self.root, self.file_name)

    def human(self, lang: str | None = None) -> list[Caption]:
        """The captions that people wrote, of one language or of all."""
        return [c for c in self.captions if c.source == "human" and (lang is None or c.lang == lang)]


class Manifest(Row):
    """`dataset.json`: where the pictures lie and which feature matrices go with the rows."""

    format: int = FORMAT
    name: str = ""
    roots: dict[str, str] = Field(default_factory=dict)
    features: dict[str, str] = Field(default_factory=dict)
