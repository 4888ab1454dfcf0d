"""Print how much pip fetched, from its log: `python scripts/downloaded.py .venv/pip.log`."""

import re
import sys
from pathlib import Path

UNITS = {"bytes": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}


def main(log: str) -> None:
    """Sum the sizes of the files that the log says were downloaded or taken from the cache."""
    text = Path(log).read_text(encoding="utf-8", errors="replace") if Path(log).is_file() else ""
    sizes = {"Downloading": 0.0, "Using cached": 0.0, "Processing": 0.0}
    for how, amount, unit in re.findall(r"(Downloading|Using cached) \S+ \(([\d.]+) (bytes|kB|MB|GB)\)", text):
        sizes[how] += float(amount) * UNITS[unit]
    local = {name for name in re.findall(r"Processing (\S+\.whl)", text) if Path(name).is_file()}
    sizes["Processing"] = sum(Path(name).stat().st_size for name in local) / 1e6
    print(
        f"installed: {sizes['Downloading']:.0f} MB downloaded, {sizes['Using cached']:.0f} MB from pip's cache, "
        f"{sizes['Processing']:.0f} MB from wheels on this machine"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
