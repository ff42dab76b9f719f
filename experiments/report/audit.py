"""The page of an audit."""

from pathlib import Path
from typing import Any

from experiments import workdir


def write(directory: str | Path) -> None:
    workdir.write_bytes(Path(directory) / "report.html", b"to come")


def as_text(audit: dict[str, Any]) -> str:
    """The table of ways, for a terminal."""
    lines = [f"{'way':38} {'epochs':>6} {'steps':>6} {'valid loss':>10} {'test':>6}  interval"]
    for way in audit["ways"]:
        test = way["test"]
        share = "" if test is None else f"{test['estimate']:>6.3f}  {test['low']:.3f} … {test['high']:.3f}"
        mark = " *" if way["way"] == audit["winner"] else ""
        loss = "–" if way["valid_loss"] is None else f"{way['valid_loss']:.4f}"
        lines.append(f"{way['way'] + mark:38} {way['epochs']:>6} {way['steps']:>6} {loss:>10} {share}")
    lines += [f"{c['by']:20} → {c['way']} ({c['at']}): {c['regret']}" for c in audit["choices"]]
    return "\n".join([*lines, audit["reason"]])
