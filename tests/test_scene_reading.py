"""The checker of drawn scenes: what it reads from pixels, and what it holds against a sentence."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import combinations
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from scene_reader import fits, ground, mentions, relation, side

from tuwen.scenes import COLOURS, GROUNDS, SHAPES, Scene, Thing, draw_scene, make_row, to_json
from tuwen.scenes.faults import find_faults
from tuwen.scenes.reader import UNKNOWN, read_scene
from tuwen.scenes.request import ATTRIBUTES, Group, Request, _faults, arrange, ask_for, satisfies, understand
from tuwen.scenes.request import fits as named
from tuwen.scenes.world import clear

SEED = 4711


def same(read: Scene, true: Scene) -> bool:
    """Whether each thing was read where it is, of its kind and size, and the ground too."""
    left = list(read.things)
    for thing in true.things:
        near = min(left, key=lambda one: abs(one.x - thing.x) + abs(one.y - thing.y), default=None)
        if near is None or (near.shape, near.colour, near.size) != (thing.shape, thing.colour, thing.size):
            return False
        if max(abs(near.x - thing.x), abs(near.y - thing.y), abs(near.r - thing.r)) > 0.02:
            return False
        left.remove(near)
    return not left and read.ground == true.ground


@pytest.mark.parametrize(("size", "n"), [(32, 20), (64, 30), (128, 8)])
def test_what_was_drawn_is_read(size: int, n: int) -> None:
    scenes = [make_row(number, SEED)[0] for number in range(n)]
    right = [same(read_scene(draw_scene(scene, size)), scene) for scene in scenes]
    assert right.count(True) == n
    assert not same(scenes[0], scenes[1])


def test_every_kind_on_every_ground() -> None:
    read: Counter[bool] = Counter()
    for number, shape in enumerate(SHAPES):
        for place, colour in enumerate(COLOURS):
            true = Scene(
                (Thing(shape, colour, "small", 0.3, 0.4, 0.11 + 0.003 * place),), list(GROUNDS)[(number + place) % 4]
            )
            read[same(read_scene(draw_scene(true, 64)), true)] += 1
    assert read == {True: 64}


def degrade(picture: Image.Image, seed: int) -> Image.Image:
    """Soft, noisy and off in colour, as a generator's sample."""
    draw = np.random.default_rng(seed)
    soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.7)), np.float64)
    return Image.fromarray(
        (soft + draw.normal(0, 5, soft.shape) + draw.uniform(-6, 6, 3)).clip(0, 255).astype(np.uint8)
    )


def test_soft_and_noisy_pictures_are_read_too() -> None:
    scenes = [make_row(number, SEED)[0] for number in range(25)]
    right = [same(read_scene(degrade(draw_scene(scene, 64), n)), scene) for n, scene in enumerate(scenes)]
    assert sum(right) >= 24


def test_what_is_no_shape_is_not_named() -> None:
    empty = Image.new("RGB", (64, 64), GROUNDS["mint"])
    assert read_scene(empty) == Scene((), "mint")
    specks = empty.copy()
    ImageDraw.Draw(specks).rectangle((10, 10, 13, 13), fill=COLOURS["red"])  # 16 pixels of 4,096
    assert read_scene(specks).things == ()
    bar = empty.copy()
    ImageDraw.Draw(bar).rectangle((4, 30, 60, 36), fill=COLOURS["red"])
    (thing,) = read_scene(bar).things
    assert (thing.shape, thing.colour) == (UNKNOWN, "red")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    found = read_scene(Image.fromarray(noise))
    assert {thing.shape for thing in found.things} <= {UNKNOWN}
    halves = draw_scene(Scene((Thing("circle", "red", "large", 0.5, 0.5, 0.25),), "sand"), 64)
    halves.paste(
        draw_scene(Scene((Thing("circle", "blue", "large", 0.5, 0.5, 0.25),), "sand"), 64).crop((32, 0, 64, 64)),
        (32, 0),
    )
    assert sorted(thing.colour for thing in read_scene(halves).things) == ["blue", "red"]  # two things, not one


def test_sentences_are_understood_as_an_independent_reader_does() -> None:
    looked: Counter[str] = Counter()
    for number in range(200):
        scene, picture = make_row(number, SEED)
        truth = json.loads(json.dumps(to_json(scene)))
        for caption in picture.captions:
            request = understand(caption.text)
            assert request is not None, caption.text
            named = [(n, key) for n, key in mentions(caption.text) if any(key)]
            assert [(group.count, group.key) for group in request.groups] == named, caption.text
            assert request.count == len(scene.things)
            assert request.ground == ground(caption.text), caption.text
            if fact := relation(caption.text):
                ((first, name, second),) = request.relations
                assert (request.groups[first].key, request.groups[second].key) == (fact[0], fact[2]), caption.text
                pairs = [
                    (a, b) for a in truth["objects"] if fits(fact[0], a) for b in truth["objects"] if fits(fact[2], b)
                ]
                assert all(side(a, name.split()[0], b) for a, b in pairs)
                looked[f"relation {name}"] += 1
            else:
                assert request.relations == ()
            assert satisfies(scene, request) == []
            looked[caption.lang] += 1
    assert looked["en"] == looked["zh"] == 1000
    assert min(looked[f"relation {name}"] for name in ("left of", "right of", "above", "below")) > 50


def test_plain_sentences() -> None:
    assert understand("a red circle") == Request((Group(1, (None, "red", "circle")),))
    assert understand("Two small stars") == Request((Group(2, ("small", None, "star")),))
    assert understand("红色的大圆形") == Request((Group(1, ("large", "red", "circle")),))
    assert understand("three shapes: two rings and a black shape") == Request(
        (Group(2, (None, None, "ring")), Group(1, (None, "black", None)))
    )
    assert understand("a dog on a red sofa") is None
    assert understand("一只狗") is None


STAR = Thing("star", "red", "large", 0.3, 0.3, 0.25)
RING = Thing("ring", "blue", "small", 0.8, 0.5, 0.12)
BOTH = Scene((STAR, RING), "sand")


@pytest.mark.parametrize(
    ("drawn", "wrong"),
    [
        (BOTH, []),
        (Scene((RING, STAR), "sand"), []),  # the order says nothing
        (replace(BOTH, ground="mint"), ["ground"]),
        (Scene((replace(STAR, colour="blue"), RING), "sand"), ["colour"]),
        (Scene((replace(STAR, shape=UNKNOWN), RING), "sand"), ["shape"]),
        (Scene((replace(STAR, size="small"), RING), "sand"), ["size"]),
        (Scene((replace(STAR, x=0.8), replace(RING, x=0.3)), "sand"), ["relation"]),
        (Scene((replace(STAR, x=0.75), RING), "sand"), ["relation"]),  # too near to be left of it
        (Scene((replace(STAR, x=0.615), RING), "sand"), []),  # 0.185 apart: within the reading's tolerance
        (Scene((replace(STAR, colour="blue"), replace(RING, colour="red")), "sand"), ["colour"]),
        (Scene((STAR,), "sand"), ["count", "colour", "shape", "size", "relation"]),  # nothing of the ring is there
        (Scene((STAR, RING, RING), "sand"), ["count"]),
        (Scene((), "sand"), ["count", "colour", "shape", "size", "relation"]),
        (Scene((replace(RING, colour="red"),) * 9, "grey"), ["count", "colour", "shape", "size", "relation", "ground"]),
    ],
)
def test_what_is_wrong_is_named(drawn: Scene, wrong: list[str]) -> None:
    request = understand("a large red star to the left of a small blue ring, the background is sand")
    assert request is not None
    assert satisfies(drawn, request) == wrong
    assert set(wrong) <= set(ATTRIBUTES)


def test_only_what_is_said_counts() -> None:
    request = understand("一个红色五角星和一个圆环。")
    assert request == Request((Group(1, (None, "red", "star")), Group(1, (None, None, "ring"))))
    other = Scene((replace(STAR, size="small", x=0.8), replace(RING, colour="green", x=0.1)), "grey")
    assert satisfies(other, request) == []
    assert satisfies(other, ask_for(BOTH)) == ["colour", "size", "relation", "ground"]
    assert satisfies(BOTH, ask_for(BOTH)) == []


def test_a_request_for_a_dozen_is_answered_at_once() -> None:
    dozen = understand("four red circles, four blue stars and four green squares")
    assert dozen is not None
    assert dozen.count == 12
    assert satisfies(BOTH, dozen) == ["count"]  # every order of twelve would take hours


def test_a_relation_of_a_group_holds_for_all_of_it() -> None:
    request = understand("Two red stars are above a blue ring.")
    assert request is not None
    one, two = replace(STAR, x=0.2, y=0.1), replace(STAR, x=0.7, y=0.2)
    assert satisfies(Scene((one, two, RING), "sand"), request) == []
    assert satisfies(Scene((one, replace(two, y=0.6), RING), "sand"), request) == ["relation"]


def test_things_are_laid_out_as_a_request_wants_them() -> None:
    request = understand("A red star is above a blue ring, and there is also a red star.")
    assert request is not None
    things = [replace(thing, x=0.5, y=0.5, r=0.12) for thing in (STAR, RING, STAR)]
    for seed in range(20):
        moved = arrange(things, request, Random(seed), 64)
        assert moved is not None
        assert _faults(request, request.wanted, moved) == []
        assert all((thing.x * 64) % 1 == 0 and 0.11 < thing.x < 0.89 for thing in moved)
        assert all(clear(one, other) for one, other in combinations(moved, 2))
    assert arrange([replace(thing, r=0.35) for thing in things], request, Random(0), 64) is None
    assert named(STAR, (None, "red", "star"))
    assert not named(STAR, (None, "red", "ring"))


def test_faults_of_a_picture_for_a_sentence() -> None:
    picture = draw_scene(Scene((Thing("star", "blue", "large", 0.5, 0.5, 0.24),), "grey"))
    assert find_faults(picture, "a large blue star") == []
    assert find_faults(picture, "两个蓝色五角星") == ["count", "colour", "shape"]
    assert find_faults(picture, "a dog on the beach") is None
