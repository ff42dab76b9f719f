"""A whole ranking: all entries by distance, the nearest examined, and what follows; the content of ranking.json."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax

from experiments import evaluation, sources, workdir
from experiments.collection import adding, examining, nearness, settings, store
from experiments.collection.advice import advise
from experiments.config import Data


@dataclass(frozen=True)
class Wanted:
    """What `rank` is asked."""

    target: Data = field(default_factory=Data)
    top: int = 5
    """So many of the nearest entries' networks run on the target."""
    alpha: float = 0.05
    """Level of tests and intervals."""
    permutations: int = 999
    seed: int = 0
    """Of the target's split and limits, and of what is drawn."""
    data_dir: str = "data"
    """Where `make data` put the real data sets."""


def ranking(library: Path, wanted: Wanted) -> dict[str, Any]:
    """Both stages of a ranking, and what follows from them; what ranking.json holds."""
    format = settings.read(library)
    if not store.names(library):
        raise ValueError(f"the library {library} has no entry yet: add one first")
    adding.refuse_table(wanted.target)
    target, name = sources.load(wanted.target, seed=wanted.seed, data_dir=wanted.data_dir), wanted.target.name
    near = nearness.nearest(library, format, target, name=name)
    key = jax.random.key(wanted.seed)
    found, bars, refused = examining.examine(
        key, library, format, near, target, name=name,
        top=wanted.top, alpha=wanted.alpha, permutations=wanted.permutations,
    )  # fmt: skip
    if not found:
        raise ValueError(
            "none of the nearest entries can be run: " + "; ".join(f"{n}: {why}" for n, why in refused.items())
        )
    advice = advise(
        [one.name for one in found], [one.correct for one in found], bars.inputs,
        [bars.untrained[one.name] for one in found],
        alpha=wanted.alpha, groups=bars.groups,
    )  # fmt: skip
    correct = {one.name: one.correct for one in found}
    return workdir.plain(
        {
            "library": library,
            "format": format,
            "entries": len(near.names),
            "target": f"{name}, classes {', '.join(target.class_names)}",
            "wanted": asdict(wanted),
            "rows": len(target.train_y),
            "note": near.note,
            "alpha": wanted.alpha,
            "near": {"names": near.names, "mmd2": near.mmd2},
            "examined": examining.as_table(found),
            "left_out": {**near.damaged, **refused},
            "advice": {
                **advice._asdict(),
                "standings": [
                    {
                        **standing._asdict(),
                        "interval": evaluation.binomial(correct[standing.name], 1 - wanted.alpha, groups=bars.groups),
                    }
                    for standing in advice.standings
                ],
            },
        }
    )
