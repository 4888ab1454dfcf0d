"""Put a finished run into the package as fp16: `python scripts/ship.py RUN NAME --data DATA`.

The card's scores are those of the weights as shipped, through the pipeline that a user gets. `--bytes` takes one byte a
number of a matrix instead of two: for a model of two members.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path

from tuwen import card, checkpoint, dataset, evaluate, pipelines
from tuwen.files import write_atomic

LIMIT = 25_000_000  # bytes a model


def main() -> None:
    """Halve, copy, score, write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--baseline", help="a blind answering run to score beside")
    parser.add_argument("--split", help="to score on, instead of those that a run of the task is scored on")
    parser.add_argument("--judge", help="for R-precision of a drawing model")
    parser.add_argument("--json", type=Path, help="write the scores with their intervals here too")
    parser.add_argument("--bytes", action="store_true", help="matrices as int8 with a scale a row")
    parser.add_argument("--narrow", metavar="REGEX", help="with --bytes: matrices whose names match as 4 bits a number")
    args = parser.parse_args()
    config = checkpoint.read_config(args.run)
    out = checkpoint.SHIPPED / args.name
    out.mkdir(parents=True, exist_ok=True)
    tensors = checkpoint.read_tensors(args.run / checkpoint.WEIGHTS)
    matrices = [name for name, tensor in tensors.items() if tensor.ndim == 2]
    narrow = [name for name in matrices if args.narrow and re.search(args.narrow, name)]
    small = checkpoint.pack(tensors, narrow) if args.bytes else checkpoint.halve(tensors)
    checkpoint.write_tensors(out / checkpoint.WEIGHTS, small)
    checkpoint.write_config(out, {key: value for key, value in config.items() if key != "format"} | {"name": args.name})
    for name in ("tokenizer.json", "tokenizer_config.json", "recipe.yaml", "provenance.json"):
        shutil.copyfile(args.run / name, out / name)
    data = dataset.load(args.data)
    summary = json.loads((args.run / "scores.json").read_text(encoding="utf-8"))
    pipeline = pipelines.load(args.name)
    blind = pipelines.load(args.baseline) if args.baseline else None
    if isinstance(pipeline, pipelines.Vqa):
        summary["calibration"] = evaluate.calibrate(pipeline, data)
    for split in [args.split] if args.split else evaluate.scored_splits(pipeline, data):
        summary[split] = evaluate.score(pipeline, data, split, baseline=blind, judge=args.judge)
        for lang, metrics in summary[split]["per_language"].items():
            told = (f"{key} {value:.1f}" for key, value in metrics.items() if isinstance(value, float))
            print(split, lang, " ".join(told))
    if args.json:
        write_atomic(args.json, json.dumps(summary, ensure_ascii=False, indent=1))
    write_atomic(out / "README.md", card.write(out, data, summary))
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {size / 1e6:.2f} MB")
    if size > LIMIT:
        raise SystemExit(f"{out}: {size:,} bytes are more than {LIMIT:,}")


if __name__ == "__main__":
    main()
