"""What the REST takes and answers, with examples: OpenAPI is made of these. Add keys, never rename; absent is null."""

from __future__ import annotations

from datetime import date
from enum import Enum
from typing import Annotated

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from typing_extensions import Self

from tuwen import __version__

WORDS = 1_000  # characters of a query, a question, a prompt or a caption
ID = "3f1d0c6e5b7a4d2f9c8e1a0b3d5f7e9c2b4a6d8f0e1c3b5a7d9f2e4c6b8a0d1f"
ID_PATTERN = r"^[0-9a-f]{64}$"

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=WORDS)]
Day = Annotated[date, Field(ge=date(1800, 1, 1), le=date(2200, 1, 1))]
PictureId = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
# No slash or backslash, no control sign, not of dots alone: a name is a part of an address, and of a file's name.
NAME_PATTERN = r"^\.*[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*$"
AlbumName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=NAME_PATTERN)]


class Lang(str, Enum):
    """A language."""

    en = "en"
    zh = "zh"


class Mode(str, Enum):
    """How words find pictures: by meaning, by the words of captions, or by both."""

    vector = "vector"
    words = "words"
    hybrid = "hybrid"


class Sort(str, Enum):
    """The order of hits."""

    score = "score"
    date = "date"


class Shape(BaseModel):
    """The base of all: unknown keys are refused, so that a misspelt one is told."""

    model_config = ConfigDict(extra="forbid")


class Envelope(Shape):
    """What every answer carries."""

    version: str = Field(__version__, description="Of Tuwen.")
    warnings: list[str] = Field(default_factory=list, description="Plain lines for people.")


class Problem(Shape):
    """Any error, in one line that says the mend."""

    error: str = Field(examples=["q: at most 1000 characters, here are 10000"])
    request_id: str = Field(examples=["9f2c4be01d73a586"], description="Also in the log and in X-Request-ID.")


class Page(Shape):
    """Which part of the hits."""

    offset: int = Field(0, ge=0, le=100_000)
    k: int = Field(30, ge=1, le=200, description="Hits a page.")


class Wanted(Page):
    """What is looked for beside words and picture; all filters that are given must hold."""

    without: Text | None = Field(None, description="What should be absent.")
    mode: Mode = Mode.vector
    folder: Text | None = Field(None, description="An indexed folder, or one below it.")
    after: Day | None = Field(None, description="Taken on this day or later.", examples=["2024-01-01"])
    before: Day | None = Field(None, description="Taken on this day or earlier.")
    camera: Text | None = None
    format: Text | None = Field(None, examples=["JPEG"])
    min_side: int | None = Field(None, ge=1, le=100_000, description="Least pixels of the shorter side.")
    sort: Sort = Sort.score
    everything: bool = Field(False, alias="all", description="Hits below the no-match threshold too.")


class SearchWords(Wanted):
    """`GET /api/search`."""

    q: Text | None = Field(None, examples=["a dog in the water"])


class SearchPicture(Wanted):
    """`POST /api/search`: by a picture, or by a picture and words."""

    image: UploadFile
    q: Text | None = None
    weight: float = Field(0.5, ge=0, le=1, description="Share of the picture where words are given too.")


class OfPicture(Shape):
    """A request about one picture: an indexed one by `id`, or an `upload`."""

    id: PictureId | None = None
    upload: UploadFile | None = None

    @model_validator(mode="after")
    def one(self) -> Self:
        """Exactly one of them."""
        if (self.id is None) == (self.upload is None):
            raise ValueError("give id or upload, one of them")
        return self


class CaptionRequest(OfPicture):
    """`POST /api/caption`, as a form."""

    lang: Lang = Lang.en
    beams: int | None = Field(None, ge=1, le=10, description="Width of the search; default: the model's own.")


class AskRequest(OfPicture):
    """`POST /api/ask`, as a form."""

    question: Text = Field(examples=["what is the dog doing?"])
    k: int = Field(3, ge=1, le=20, description="Answers.")


class Hit(Shape):
    """A picture that fits."""

    id: str = Field(examples=[ID], description="sha256 of its content.")
    file: str = Field(examples=["/home/me/pictures/lake.jpg"])
    score: float = Field(examples=[0.412], description="Cosine; with mode=words or hybrid the rank's own score.")
    rank: int = Field(examples=[1], description="From 1, over all pages.")
    caption: str | None = Field(None, examples=["A dog jumps into a lake."])
    width: int | None = Field(None, examples=[1024])
    height: int | None = Field(None, examples=[768])
    date: str | None = Field(None, examples=["2024-08-03T14:20:11"])
    thumbnail: str = Field(examples=[f"/api/pictures/{ID}/thumbnail"], description="Add ?side=.")


class Hits(Envelope):
    """A page of hits."""

    hits: list[Hit]
    more: bool = Field(examples=[True], description="Whether another page follows.")


class Groups(Envelope):
    """Near-duplicates: each group at least two pictures."""

    groups: list[list[Hit]]


class Sentence(Shape):
    """A text with its score."""

    text: str = Field(examples=["a dog jumps into the water"])
    score: float = Field(examples=[-0.61])


class Captions(Envelope):
    """Captions of one picture, best first; scores are log probabilities, normalised by length."""

    texts: list[Sentence]
    lang: Lang
    model: str = Field(examples=["captioning"])


class Attention(Shape):
    """Where the model looked: weights of a grid over the picture, row by row, or of boxes."""

    rows: int | None = Field(None, examples=[9])
    columns: int | None = Field(None, examples=[9])
    boxes: list[tuple[float, float, float, float]] | None = Field(
        None, description="xyxy in pixels of the upright picture; null with a grid."
    )
    weights: list[float] = Field(description="Sum 1; rows x columns of them, or one a box.")


class Answers(Envelope):
    """Answers to one question, best first. `best` is never empty; `sure` says whether it passed the threshold."""

    question: str = Field(examples=["what is the dog doing?"])
    sure: bool
    best: list[Sentence]
    attention: Attention | None = None
    model: str = Field(examples=["vqa"])


class DrawRequest(Shape):
    """What to draw."""

    prompt: Text = Field(examples=["a large red circle above a small blue star"])
    n: int = Field(4, ge=1, le=16)
    seed: int = Field(0, ge=0, le=2**31 - 1)


class Drawing(Shape):
    """A drawn picture."""

    png: str = Field(examples=["data:image/png;base64,iVBORw0KGgo="], description="A data URL.")
    prompt: str
    seed: int
    wrong: list[str] | None = Field(None, description="What is not as asked, where it was read back; else null.")


class Drawings(Envelope):
    """Drawn pictures."""

    pictures: list[Drawing]
    model: str = Field(examples=["text-to-image"])


class Caption(Shape):
    """A caption of a picture. `source`: human, or model:NAME."""

    text: str
    lang: str = Field(examples=["en"])
    source: str = Field(examples=["human"])
    at: str | None = Field(None, description="When it was noted; null where a data set gave it.")


class PictureRow(Envelope):
    """All that the index knows of a picture."""

    id: str = Field(examples=[ID])
    file: str = Field(description="Of `files` the first that is there.")
    files: list[str] = Field(description="Every copy.")
    captions: list[Caption]
    width: int | None = None
    height: int | None = None
    format: str | None = Field(None, examples=["JPEG"])
    size: int | None = Field(None, description="Bytes.")
    date: str | None = None
    camera: str | None = Field(None, examples=["NIKON D90"])
    latitude: float | None = None
    longitude: float | None = None
    thumbnail: str
    picture: str = Field(examples=[f"/api/pictures/{ID}/file"])
    similar: str = Field(examples=[f"/api/similar/{ID}"])


class Correction(Shape):
    """A caption as a person wants it."""

    text: Text = Field(examples=["A brown dog jumps off the pier."])
    lang: Lang = Lang.en


class Corrected(Shape):
    """A picture whose captions a person wrote or corrected."""

    id: str
    file: str | None = Field(description="Null where it is gone.")
    captions: list[Caption] = Field(description="As people want them.")
    made: list[Caption] = Field(description="As models made them.")
    thumbnail: str


class Corrections(Envelope):
    """All that people corrected."""

    corrections: list[Corrected]
    needed: int = Field(50, description="Pictures with human captions that tuning takes at least.")


class Exported(Envelope):
    """A data set on the server's machine that `tuwen tune --data` takes."""

    data: str = Field(examples=["/home/me/tuwen.db.corrections"])
    pictures: int
    captions: int


class TuneRequest(Shape):
    """How to tune; all of it may stay away."""

    lang: Lang | None = Field(None, description="Captions of this language alone.")
    epochs: float | None = Field(None, ge=0.1, le=1000, description="Passes over the captions; default: by size.")
    seed: int = Field(0, ge=0, le=2**31 - 1)


class TuneState(str, Enum):
    """Of the one job."""

    idle = "idle"
    running = "running"
    done = "done"
    failed = "failed"


class Tune(Envelope):
    """The tuning job: `before`, `after` and `interval` are percent by score (`i2t_r1` ... `rsum`)."""

    state: TuneState
    seconds: float | None = Field(None, description="Since it began, or what it took.")
    step: int | None = Field(None, description="Of the training, as far as it is.")
    pictures: int | None = None
    run: str | None = Field(None, examples=["/home/me/tuwen.db.tuned-1"])
    error: str | None = Field(None, description="One line, where it failed.")
    before: dict[str, float] | None = None
    after: dict[str, float] | None = None
    interval: dict[str, tuple[float, float]] | None = Field(None, description="95% of the difference.")
    verdict: str | None = Field(None, examples=["improved"])
    words: list[str] | None = Field(None, description="The verdict as a sentence, in English and in Chinese.")
    n_train: int | None = None
    n_test: int | None = None
    use: str | None = Field(None, examples=["tuwen index /home/me/pictures --db tuwen.db --model tuwen.db.tuned-1"])
    report: str | None = Field(None, description="A page on the server's machine.")


class AlbumHead(Shape):
    """An album in the list of albums."""

    name: str = Field(examples=["Holidays"])
    count: int
    cover: str | None = Field(None, description="The thumbnail of its first picture.")


class Albums(Envelope):
    """All albums, by name."""

    albums: list[AlbumHead]


class AlbumNew(Shape):
    """A new album."""

    name: AlbumName = Field(examples=["Holidays"])
    ids: list[PictureId] = Field(default_factory=list, max_length=10_000)


class AlbumChange(Shape):
    """What becomes of an album: `ids` replaces all, `add` and `remove` change some, `name` renames."""

    name: AlbumName | None = None
    ids: list[PictureId] | None = Field(None, max_length=10_000)
    add: list[PictureId] = Field(default_factory=list, max_length=10_000)
    remove: list[PictureId] = Field(default_factory=list, max_length=10_000)


class Album(Envelope):
    """An album. `missing`: how many of its pictures the index no longer holds."""

    name: str
    ids: list[str]
    hits: list[Hit]
    missing: int = 0


class Model(Shape):
    """A model of the server. `loaded`: used already; `why`: in one line, where it cannot be had."""

    name: str
    languages: list[str] | None = None
    loaded: bool
    why: str | None = None


class Stats(Envelope):
    """The index's state."""

    db: str
    pictures: int = Field(description="Different contents that can be searched.")
    files: int
    failed: list[dict[str, str]] = Field(description="Files that cannot be read: {file, why}; the first 100.")
    failed_count: int
    folders: list[str] = Field(description="Indexed folders.")
    captions: int
    formats: dict[str, int]
    cameras: dict[str, int]
    first_date: str | None = None
    last_date: str | None = None
    bytes: int = Field(description="The index on disk.")
    index_model: str
    models: dict[str, Model] = Field(description="By task: search, caption, ask, draw.")


class Health(Shape):
    """Alive."""

    status: str = Field("ok", examples=["ok"])
    version: str = __version__


def thumbnail_url(id: str) -> str:
    """Where a picture's thumbnail lies."""
    return f"/api/pictures/{id}/thumbnail"
