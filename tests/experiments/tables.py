"""Small business tables with a planted rule: a row is late the likelier, the longer and the worse its carrier."""

import numpy as np

CARRIERS = ("AA", "B6", "DL", "UA")


def columns(seed, rows, *, shift=0.0, carriers=CARRIERS, days=20):
    """{name: list of text or None} of a table; some numbers and some names are missing."""
    random = np.random.default_rng(seed)
    distance = random.normal(1000 + shift, 300, rows)
    carrier = random.integers(0, len(carriers), rows)
    late = random.random(rows) < 1 / (1 + np.exp(-(distance - 1000) / 150 - 2.0 * (carrier - 1.5)))
    seats = random.integers(50, 300, rows)
    delay = np.where(late, random.integers(16, 90, rows), random.integers(-20, 15, rows))
    return {
        "delay": [str(v) for v in delay],
        "distance": [f"{v:.1f}" for v in distance],
        "seats": ["" if random.random() < 0.1 else str(v) for v in seats],
        "carrier": ["NA" if random.random() < 0.05 else carriers[c] for c in carrier],
        "origin": [("EWR", "JFK")[v] for v in random.integers(0, 2, rows)],
        "day": [str(v) for v in random.integers(1, days + 1, rows)],
        "tail": [f"N{i}" for i in range(rows)],
    }


def write(path, found, *, encoding="utf-8"):
    """The columns as a CSV file."""
    lines = [",".join(found), *(",".join(row) for row in zip(*found.values(), strict=True))]
    path.write_bytes("\n".join([*lines, ""]).encode(encoding))
    return path
