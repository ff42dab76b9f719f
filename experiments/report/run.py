"""What the report reads: the files of a finished run."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import workdir

INPUTS = "inputs"
AUDIT = "audit"  # the rule that tries every way
MAPS = (
    "patent",
    "quadrant",
)  # the rules that ask for size and similarity; a test holds them to mmd_jax.transfer.decision
_FIT = re.compile(r"(?P<arm>reuse|from_scratch|pretrain)-rate(?P<rate>.+)-stage(?P<stage>\d+)")


class Run(NamedTuple):
    """The files of a work directory, read.

    Attributes:
      config: config.json.
      result: result.json.
      metrics: the rows of metrics.jsonl.
      evidence: the arrays of evidence.npz by name; any may be missing (rows that are not images, no source rows).
      audit: audit.json, where the rule `audit` chose.
    """

    config: dict[str, Any]
    result: dict[str, Any]
    metrics: list[dict[str, Any]]
    evidence: dict[str, np.ndarray]
    audit: dict[str, Any] | None = None


class Curve(NamedTuple):
    """One learning rate of one arm, its stages joined.

    Attributes:
      arm: "reuse", "from_scratch" or "pretrain".
      rate: the learning rate, as it stands in the fit's name.
      step: training steps since the first stage began, [k].
      loss: on validation rows, nats a row, [k].
      accuracy: on validation rows, share, [k].
      boundaries: the steps at which a later stage began.
      kept: whether this rate's network is the one that was kept.
    """

    arm: str
    rate: str
    step: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    boundaries: tuple[int, ...]
    kept: bool


class Measured(NamedTuple):
    """One two-sample test. See `mmd_jax.types.TwoSampleResult`; a number is NaN where it could not be computed.

    Attributes:
      name: "inputs", or the layer.
      statistic: unbiased estimate of MMD².
      mmd_biased: biased estimate of MMD.
      threshold: of the statistic.
      pvalue: unadjusted.
      pvalue_holm: adjusted over the layers; none for the inputs.
      reject: at the unadjusted level.
      bandwidth: of the kernel; several are summed over.
      permutations: resampled statistics.
      null: these statistics, [B], or none.
      decides: whether the plan rests on this test.
    """

    name: str
    statistic: float
    mmd_biased: float
    threshold: float
    pvalue: float
    pvalue_holm: float | None
    reject: bool
    bandwidth: tuple[float, ...]
    permutations: int
    null: np.ndarray | None
    decides: bool


def read(directory: str | Path) -> Run:
    """Reads a finished run.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is damaged.
    """
    directory = Path(directory)
    result = workdir.read_json(directory / "result.json")
    return Run(
        workdir.read_json(directory / "config.json"),
        result,
        workdir.read_metrics(directory / "metrics.jsonl"),
        workdir.read_npz(directory / "evidence.npz"),
        workdir.read_json(directory / "audit.json") if result["plan"]["rule"] == AUDIT else None,
    )


def measured(run: Run) -> list[Measured]:
    """Every test of the run, the inputs first, then the layers in the network's order; empty where none was made."""
    two_sample = run.result["two_sample"]
    if two_sample is None:
        return []
    deciding = run.config["decision"]["representation"] if pvalue_decides(run) or verdict_decides(run) else None
    found = [(INPUTS, f"null/{INPUTS}", two_sample["inputs"])]
    found += [(name, f"null/layers/{name}", numbers) for name, numbers in two_sample["layers"].items()]
    return [
        Measured(
            name,
            number(numbers["mmd2_unbiased"]),
            number(numbers["mmd_biased"]),
            number(numbers["threshold"]),
            number(numbers["pvalue"]),
            None if key == f"null/{INPUTS}" else number(numbers["pvalue_holm"]),
            bool(numbers["reject"]),
            tuple(number(h) for h in _listed(numbers["bandwidth"])),
            numbers["permutations"],
            run.evidence.get(key),
            name == deciding,
        )
        for name, key, numbers in found
    ]


def asks_similarity(run: Run) -> bool:
    """Whether the plan is that of a rule which asks how similar the data are."""
    return run.result["plan"]["rule"] in MAPS


def pvalue_decides(run: Run) -> bool:
    """Whether a p-value is behind the plan: there was a test, no assumption in its place, and a rule that asked."""
    return (
        run.result["two_sample"] is not None
        and run.result.get("verdict") is None
        and run.config["decision"]["assume"] is None
        and asks_similarity(run)
    )


def verdict_decides(run: Run) -> bool:
    """Whether a verdict is behind the plan."""
    return run.result.get("verdict") is not None and run.config["decision"]["assume"] is None and asks_similarity(run)


def curves(run: Run) -> list[Curve]:
    """Every learning curve, in the order in which the fits were made."""
    fits: dict[tuple[str, str], dict[int, list[dict[str, Any]]]] = {}
    for row in run.metrics:
        if match := _FIT.fullmatch(str(row.get("fit"))):
            stages = fits.setdefault((match["arm"], match["rate"]), {})
            stages.setdefault(int(match["stage"]), []).append(row)
    kept = _kept(run, fits)
    found = []
    for (arm, rate), stages in fits.items():
        steps: list[int] = []
        boundaries = []
        for stage in sorted(stages):
            begin = steps[-1] if steps else 0
            if begin:
                boundaries.append(begin)
            steps += [begin + int(row["step"]) for row in stages[stage]]
        rows = [row for stage in sorted(stages) for row in stages[stage]]
        loss, accuracy = (
            np.array([number(row.get(name)) for row in rows]) for name in ("valid_loss", "valid_accuracy")
        )
        found.append(Curve(arm, rate, np.array(steps), loss, accuracy, tuple(boundaries), kept[arm] == rate))
    return found


def number(value: float | None) -> float:
    """JSON has null where a number was not finite."""
    return float("nan") if value is None else float(value)


def _kept(run: Run, fits: dict[tuple[str, str], dict[int, list[dict[str, Any]]]]) -> dict[str, str | None]:
    """The learning rate that each arm kept: as recorded, and for pretraining by the same rule, the lowest loss."""
    rates = run.result["learning_rate"]
    losses = {
        rate: min((number(row.get("valid_loss")) for row in stages[max(stages)]), default=float("inf"))
        for (arm, rate), stages in fits.items()
        if arm == "pretrain"
    }
    return {
        "reuse": f"{rates['chosen']:g}",
        "from_scratch": f"{rates['from_scratch']:g}",
        "pretrain": min(losses, key=lambda rate: losses[rate], default=None),
    }


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
