"""Every benchmark, one after the other: prints their tables and writes benchmarks/RESULTS.md with machine facts.

A section is replaced when its benchmark has run; the others stay as they are, each with the machine it is from.

python benchmarks/all.py [--quick] [--only simulator] [--gpu gpu.json]
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from results import Table, parser, printed_machine, save_json

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
SCRIPTS = ("versus_torch", "overhead", "simulator", "startup", "fidelity", "tuning", "cuts", "flow")
HEAD = """\
# Results

Written by `make bench` (`benchmarks/all.py`); what a figure means is in its script's head. Let the machine rest
meanwhile: a load (that of the last minute, before each part) far above what a benchmark itself causes stretches times,
and moves ratios too, in favour of whoever runs fewer processes.
"""


def sections(text: str) -> dict[str, str]:
    """The parts of RESULTS.md by the benchmark that wrote them."""
    parts = re.split(r"^<!-- (\w+) -->\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def section(tables: Sequence[Table], about: str) -> str:
    """Tables under the machine that they are from."""
    return about + "\n" + "\n".join(table.markdown() for table in tables) + "\n"


def write(found: dict[str, str], file: Path = RESULTS) -> None:
    """Put new sections into RESULTS.md, in the order of the scripts."""
    kept = sections(file.read_text(encoding="utf-8")) if file.exists() else {}
    kept |= found
    parts = [f"<!-- {name} -->\n{kept[name].strip()}\n" for name in (*SCRIPTS, "gpu") if name in kept]
    file.write_text("\n".join([HEAD, *parts]), encoding="utf-8")


def of_gpu(file: Path) -> str:
    """The section that ``gpu.py`` has measured elsewhere."""
    told = json.loads(file.read_text(encoding="utf-8"))
    about = ", ".join(f"{name} {value}" for name, value in told["machine"].items())
    return section([Table(**table) for table in told["tables"]], about + "\n")


def arguments() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--only", default="", metavar="NAMES", help=f"of {', '.join(SCRIPTS)}; or none")
    made.add_argument("--gpu", type=Path, metavar="FILE", help="take in what gpu.py has written")
    return made


def main() -> None:
    options = arguments().parse_args()
    names = [name for name in SCRIPTS if not options.only or name in options.only.split(",")]
    if not names and options.only != "none":
        sys.exit(f"there is no benchmark {options.only!r}; there are {', '.join(SCRIPTS)}")
    everything: list[Table] = []
    if options.gpu:
        write({"gpu": of_gpu(options.gpu)})
    for name in names:
        begun, about = time.perf_counter(), printed_machine()
        module = importlib.import_module(name)
        tables = module.run(module.arguments().parse_args(["--quick"] if options.quick else []))
        about += f"\n`benchmarks/{name}.py`" + ", quick" * options.quick
        about += f", {time.perf_counter() - begun:.0f} s\n"
        print(section(tables, about), flush=True)
        write({name: section(tables, about)})
        everything += tables
        if options.json:
            save_json(everything, options.json)


if __name__ == "__main__":
    main()
