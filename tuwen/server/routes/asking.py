"""`/api/caption`, `/api/ask`, `/api/draw`: what the models say of a picture, and what they draw."""

from __future__ import annotations

import base64
import io
from typing import Annotated, Any

from fastapi import APIRouter, Form

from tuwen.pipelines.drawer import tell_faults
from tuwen.server.desk import Desk
from tuwen.server.schemas import (
    Answers,
    AskRequest,
    Attention,
    CaptionRequest,
    Captions,
    Drawing,
    Drawings,
    DrawRequest,
    Sentence,
)
from tuwen.server.shared import ASK, CAPTION, DRAW

FORM = "multipart/form-data"


def router(desk: Desk) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["models"])

    @routes.post("/api/caption")
    async def caption(asked: Annotated[CaptionRequest, Form(media_type=FORM)]) -> Captions:
        """Captions of an indexed or an uploaded picture."""

        def act() -> Captions:
            model = desk.shared.model(CAPTION)
            with desk.picture(asked.id, asked.upload) as path:
                said = desk.shared.caption(path, asked.lang.value, asked.beams)
            texts = [Sentence(text=one.text, score=round(one.score, 4)) for one in said.texts]
            return Captions(texts=texts, lang=asked.lang, model=model.name)

        return await desk.making.run(act)

    @routes.post("/api/ask")
    async def ask(asked: Annotated[AskRequest, Form(media_type=FORM)]) -> Answers:
        """Answers to a question about an indexed or an uploaded picture, and where the model looked."""

        def act() -> Answers:
            model = desk.shared.model(ASK)
            with desk.picture(asked.id, asked.upload) as path:
                answer = desk.shared.answer(path, asked.question, asked.k)
            return Answers(
                question=asked.question,
                sure=bool(answer.sure),
                best=[Sentence(text=one.text, score=round(float(one.score), 4)) for one in answer.best],
                attention=_attention(answer.attention),
                model=model.name,
            )

        return await desk.making.run(act)

    @routes.post("/api/draw")
    async def draw(asked: DrawRequest) -> Drawings:
        """Small pictures drawn from a sentence; the same seed draws the same ones."""

        def act() -> Drawings:
            model = desk.shared.model(DRAW)
            drawn = desk.shared.draw(asked.prompt, asked.n, asked.seed)
            strange = list(model.unknown_words(asked.prompt))
            told = [f"model '{model.name}' does not know: {', '.join(strange)}"] if strange else []
            pictures = [
                Drawing(png=_data_url(one.image), prompt=one.prompt, seed=one.seed, wrong=one.wrong) for one in drawn
            ]
            return Drawings(pictures=pictures, warnings=told + tell_faults(drawn), model=model.name)

        return await desk.making.run(act)

    return routes


def _attention(seen: Any) -> Attention | None:
    """Plain numbers of an answer's attention."""
    if seen is None:
        return None
    rows, columns = seen.grid if seen.grid is not None else (None, None)
    boxes = [tuple(float(edge) for edge in box) for box in seen.boxes] if seen.boxes is not None else None
    return Attention(rows=rows, columns=columns, boxes=boxes, weights=[round(float(w), 6) for w in seen.weights])


def _data_url(image: Any) -> str:
    out = io.BytesIO()
    image.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
