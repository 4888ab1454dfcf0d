"""Every public layout, brought into the one format: foreign files in, rows out (DESIGN, section 1)."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuwen.dataset import MANIFEST, ROWS, Dataset, add_root, content_hashes, copied, read, save
from tuwen.errors import DataError, suggest
from tuwen.importers.ai_challenger import read_ai_challenger
from tuwen.importers.coco import read_coco
from tuwen.importers.common import Imported, ImportOptions, read_json, split_name
from tuwen.importers.cuhk_pedes import read_cuhk_pedes
from tuwen.importers.daquar import read_daquar
from tuwen.importers.easy_vqa import read_easy_vqa
from tuwen.importers.flickr8k import read_flickr8k
from tuwen.importers.flickr8k_cn import read_flickr8k_cn
from tuwen.importers.folder import read_folder
from tuwen.importers.huggingface import read_huggingface
from tuwen.importers.karpathy import read_karpathy
from tuwen.importers.locate import DEPTH, Finder
from tuwen.importers.merging import join
from tuwen.importers.precomputed import read_precomputed
from tuwen.importers.regions import read_region_files
from tuwen.importers.text_pairs import read_text_pairs
from tuwen.importers.vqa2 import read_vqa2
from tuwen.progress import track
from tuwen.records import Manifest

IMPORTERS: dict[str, Callable[[Path, ImportOptions], Imported]] = {
    "ai-challenger": read_ai_challenger,
    "coco": read_coco,
    "cuhk-pedes": read_cuhk_pedes,
    "daquar": read_daquar,
    "easy-vqa": read_easy_vqa,
    "flickr8k": read_flickr8k,
    "flickr8k-cn": read_flickr8k_cn,
    "folder": read_folder,
    "huggingface": read_huggingface,
    "karpathy": read_karpathy,
    "precomputed": read_precomputed,
    "regions": read_region_files,
    "text-pairs": read_text_pairs,
    "vqa2": read_vqa2,
}


@dataclass
class ImportReport:
    """What an import did. `skipped` is `[{why, count, examples}]`; the totals are those of the whole data set."""

    format: str
    dest: str
    added: int
    merged: int
    captions_added: int
    questions_added: int
    kept_splits: int
    pictures: int
    captions: int
    questions: int
    regions: int  # pictures that have them
    splits: dict[str, int] = field(default_factory=dict)
    languages: dict[str, int] = field(default_factory=dict)
    skipped: list[dict[str, Any]] = field(default_factory=list)


def run_import(
    format: str,
    src: Path | str,
    dest: Path | str,
    images: Path | str | None = None,
    split: str | None = None,
    copy: bool = False,
    annotations: Sequence[Path | str] | Path | str | None = None,
) -> ImportReport:
    """Bring one foreign layout into the data set at `dest`, which is made, or joined picture by picture.

    `split`: only rows of that split; those whose layout names none are put into it. Nothing is written on an error.

    Raises:
        DataError: unknown format, a path that is missing, a file that is not of the format, or no picture found.
    """
    if format not in IMPORTERS:
        raise DataError(f"no importer '{format}'{suggest(format, IMPORTERS)} (there are {', '.join(IMPORTERS)})")
    src, dest = Path(src), Path(dest)
    given = [annotations] if isinstance(annotations, (str, Path)) else list(annotations or ())
    options = ImportOptions(
        dest, dest, Path(images) if images else None, split_name(split), copy, [Path(p) for p in given]
    )
    _check_paths(src, dest, options)
    old = read(dest) if (dest / ROWS).is_file() else None
    with ExitStack() as stack:
        options.staging = Path(tempfile.mkdtemp(prefix=".tuwen-import-", dir=_standing(dest)))
        stack.callback(shutil.rmtree, options.staging, ignore_errors=True)
        if old is not None:
            options.present = old.pictures
            options.features = {name: dest.absolute() / path for name, path in old.manifest.features.items()}
        imported = _run(format, src, options)
        listed = len(imported.pictures)
        _keep_split(imported, options)
        new = _place(imported, old, options)
        if not new.pictures:
            raise DataError(_nothing(src, imported, options, listed))
        if options.copy:
            _stage_copies(new, options)
        if old is not None:  # a matrix of a known name holds the rows of the old one too
            again = {name: path for name, path in new.manifest.features.items() if name in old.manifest.features}
            old.manifest.features.update(again)
        whole, done = join(old or Dataset(dest, Manifest(name=imported.name), []), new)
        _commit(whole, options)
    for name in done.kept_splits:
        imported.skipped.add("another split than the picture already has, which stays", name)
    return ImportReport(
        format=format,
        dest=str(dest),
        added=done.added,
        merged=done.met,
        captions_added=done.captions,
        questions_added=done.questions,
        kept_splits=len(done.kept_splits),
        pictures=len(whole),
        captions=sum(len(picture.captions) for picture in whole.pictures),
        questions=sum(len(picture.qa) for picture in whole.pictures),
        regions=sum(picture.regions is not None for picture in whole.pictures),
        splits=whole.splits(),
        languages=dict(Counter(caption.lang for _, caption in whole.captions(human=False))),
        skipped=imported.skipped.as_list(),
    )


def _run(format: str, src: Path, options: ImportOptions) -> Imported:
    try:
        return IMPORTERS[format](src, options)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:  # foreign data of another shape
        why = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise DataError(f"{src}: not as FORMAT {format} expects it ({why}); choose another FORMAT or SRC") from error


def _check_paths(src: Path, dest: Path, options: ImportOptions) -> None:
    if not src.exists():
        raise DataError(f"{src}: no such file or folder; name what to import as SRC")
    if dest.exists() and not dest.is_dir():
        raise DataError(f"{dest}: a file; name a folder for the data set as DEST")
    if (dest / MANIFEST).is_file() and not (dest / ROWS).is_file():
        held = read_json(dest / MANIFEST)  # ours, of an import that was killed, or Karpathy's file of that name
        if not isinstance(held, dict) or "format" not in held:
            raise DataError(f"{dest / MANIFEST}: would be overwritten; name another folder as DEST")
    if options.images is not None and not options.images.is_dir():
        raise DataError(f"{options.images}: no such folder; name the folder of the pictures with --images")
    for path in options.annotations:
        if not path.exists():
            raise DataError(f"{path}: no such file; name the answers with --annotations")


def _standing(path: Path) -> Path:
    """The folder itself, or the nearest above it that is there: on its disk, so that a rename suffices."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _keep_split(imported: Imported, options: ImportOptions) -> None:
    if options.split is None:
        return
    kept = []
    for picture in imported.pictures:
        if picture.split in (None, options.split):
            picture.split = options.split
            kept.append(picture)
        else:
            imported.skipped.add(f"of split {picture.split}, not {options.split}", picture.file_name)
    imported.pictures = kept


def _place(imported: Imported, old: Dataset | None, options: ImportOptions) -> Dataset:
    """The rows as a data set in DEST: each listed name found on disk, under a root; absent ones skipped."""
    dest = options.dest
    manifest = Manifest(name=imported.name, features=dict(imported.features))
    if old is not None:
        manifest.roots = dict(old.manifest.roots)
    if imported.made:
        for picture in imported.pictures:
            if Path(picture.file_name).is_absolute():
                picture.root = add_root(manifest, dest, Path(picture.file_name).parent)
                picture.file_name = Path(picture.file_name).name
        return Dataset(dest, manifest, imported.pictures)
    known = [old.root(name) for name in (*old.manifest.roots, None)] if old is not None else []
    known += [Path(origin) for origin in copied(old.manifest).values()] if old is not None else []
    named = options.images is not None and not imported.located
    folders = [options.images] if named and options.images is not None else [*imported.folders, *known]
    finder = Finder(folders, [p.file_name for p in imported.pictures], depth=None if named else DEPTH)
    roots: dict[Path, str | None] = {}
    found = []
    for picture in track(imported.pictures, len(imported.pictures), "finding pictures"):
        place = (folders[0].absolute(), picture.file_name) if imported.located else finder.find(picture.file_name)
        if place is None:
            imported.skipped.add("no such picture on disk", picture.file_name)
            continue
        folder, picture.file_name = place
        if folder not in roots:
            inside = folder.resolve().is_relative_to(dest.resolve())
            roots[folder] = None if inside else add_root(manifest, dest, folder)
        if roots[folder] is None:
            picture.file_name = (folder.resolve() / picture.file_name).relative_to(dest.resolve()).as_posix()
        picture.root = roots[folder]
        found.append(picture)
    used = {picture.root for picture in found}
    manifest.roots = {name: path for name, path in manifest.roots.items() if name in used}
    return Dataset(dest, manifest, found)


def _nothing(src: Path, imported: Imported, options: ImportOptions, listed: int) -> str:
    absent = imported.skipped.counts.get("no such picture on disk", 0)
    if absent:
        first = imported.skipped.examples["no such picture on disk"][0]
        where = options.images or "the folders beside it"
        return (
            f"{src}: none of its {absent} pictures (such as {first}) is in {where}; name their folder with --images DIR"
        )
    if listed:
        return f"{src}: none of its {listed} pictures is of split '{options.split}'; name another with --split"
    why = "; ".join(f"{item['why']} ({item['examples'][0]})" for item in imported.skipped.as_list()[:2])
    return f"{src}: no picture to import{': ' + why if why else ''}; name another SRC or FORMAT"


def _stage_copies(new: Dataset, options: ImportOptions) -> None:
    """Copy the pictures of foreign roots to `images/ROOT/` of the data set, and note where they came from."""
    origins = {}
    for picture in track(new.pictures, len(new.pictures), "copying pictures"):
        if picture.root is None:
            continue
        source, target = new.path(picture), f"images/{picture.root}/{picture.file_name}"
        origins[f"images/{picture.root}"] = str(new.root(picture.root).resolve())
        staged = options.staging / target
        staged.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source, staged)
        except OSError as error:
            raise DataError(f"{source}: can't be copied ({error.strerror or error})") from None
        picture.file_name, picture.root = target, None
    new.manifest = new.manifest.model_copy(update={"roots": {}, "copied": origins})


def _note_contents(whole: Dataset) -> None:
    """Rows without a split keep their picture's hash, by which they get one: else each `load` would read every file."""
    unsplit = [
        i for i, p in enumerate(whole.pictures) if not (p.split or p.group or (p.model_extra or {}).get("sha256"))
    ]
    hashes = content_hashes(whole, [whole.pictures[i] for i in unsplit])
    for i, digest in zip(unsplit, track(hashes, len(unsplit), "reading pictures"), strict=True):
        whole.pictures[i] = whole.pictures[i].model_copy(update={"sha256": digest})


def _commit(whole: Dataset, options: ImportOptions) -> None:
    """Move staged files in, then write the rows; on a failure the files go out again."""
    moved: list[Path] = []
    made = not options.dest.exists()
    try:
        for path in sorted(options.staging.rglob("*")):
            target = options.dest / path.relative_to(options.staging)
            if path.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                moved += [] if target.exists() else [target]
                path.replace(target)
        _note_contents(whole)
        save(whole)
    except BaseException as error:
        for target in moved:
            target.unlink(missing_ok=True)
        if made:
            shutil.rmtree(options.dest, ignore_errors=True)
        if isinstance(error, OSError):
            raise DataError(f"{options.dest}: can't be written ({error.strerror or error})") from None
        raise


__all__ = ["IMPORTERS", "ImportReport", "run_import"]
