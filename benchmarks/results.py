"""Tables of figures: printed, written as JSON, put into RESULTS.md; and what machine they are from."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Table:
    """Rows of figures by column; ``formats`` says how a column's numbers are written."""

    title: str
    rows: Sequence[Mapping[str, Any]]
    note: str = ""
    formats: Mapping[str, str] = field(default_factory=dict)

    def markdown(self) -> str:
        columns = list(dict.fromkeys(column for row in self.rows for column in row))
        lines = [f"## {self.title}", "", *([self.note, ""] if self.note else [])]
        if not columns:
            return "\n".join([*lines, "No figures."]) + "\n"
        lines += ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        lines += ["| " + " | ".join(self._cell(row.get(c, ""), c) for c in columns) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"

    def _cell(self, value: Any, column: str) -> str:
        return format(value, self.formats[column]) if column in self.formats and value != "" else str(value)


def machine() -> dict[str, Any]:
    """What the figures depend on; nothing that names the machine."""
    found = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "load": f"{os.getloadavg()[0]:.1f}",
        "date": date.today().isoformat(),
    }
    if torch.cuda.is_available():
        found |= {"GPU": torch.cuda.get_device_name(0), "CUDA": torch.version.cuda}
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        return names[0] if names else platform.machine()
    told = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
    return told.stdout.strip() or platform.machine()


def parser(doc: str) -> argparse.ArgumentParser:
    """What all benchmarks take."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="fewer cases")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return made


def printed_machine() -> str:
    return ", ".join(f"{name} {value}" for name, value in machine().items()) + "\n"


def save_json(tables: Sequence[Table], file: Path) -> None:
    told = {"machine": machine(), "tables": [asdict(table) for table in tables]}
    file.write_text(json.dumps(told, indent=1, default=str) + "\n", encoding="utf-8")


def main(run: Callable[[argparse.Namespace], Sequence[Table]], parser: argparse.ArgumentParser) -> None:
    """A benchmark that has nothing else to do than to run."""
    options = parser.parse_args()
    finish(run(options), options)


def finish(tables: Sequence[Table], options: argparse.Namespace) -> None:
    print(printed_machine())
    print("\n".join(table.markdown() for table in tables))
    if options.json:
        save_json(tables, options.json)
