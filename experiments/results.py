"""What a run writes down: decision.json once it has decided, evidence.npz with every array that a picture needs, result.json."""

import platform
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import workdir
from experiments.config import Config
from experiments.evaluation import negative_transfer
from experiments.fits import Arm
from experiments.measure import Measurement
from experiments.verdicts import Judged
from mmd_jax.intervals import holm
from mmd_jax.models import leaves
from mmd_jax.types import Plan, Similarity, Stage, TwoSampleResult

NUM_SAMPLES = 16  # Images of each domain that the report shows.


class Decided(NamedTuple):
    """What decision.json holds.

    Attributes:
      two_sample: the tests, as they stand in result.json; none where nothing was measured.
      verdict: whether the difference matters, and where the margin comes from; none where there was no margin.
      similarity: what is known of P = Q.
      plan: what follows from it.
      about_data: sizes, classes and notes of both data sets.
    """

    two_sample: dict[str, Any] | None
    verdict: dict[str, Any] | None
    similarity: Similarity
    plan: Plan
    about_data: dict[str, Any]


class Outcome(NamedTuple):
    """Both arms on the target's test rows.

    Attributes:
      accuracy: of `evaluation.compare`.
      labels: true classes, [n].
      chosen: predicted by the reused network, [n].
      from_scratch: predicted by the network trained from scratch, [n].
    """

    accuracy: dict[str, Any]
    labels: np.ndarray
    chosen: np.ndarray
    from_scratch: np.ndarray


def write_decided(
    directory: Path,
    measurement: Measurement | None,
    judged: Judged | None,
    similarity: Similarity,
    plan: Plan,
    data: Any,
) -> None:
    """Writes the arrays of the measurement to evidence.npz, then decision.json: its presence means that both are whole."""
    arrays: dict[str, np.ndarray] = {}
    two_sample = None
    if measurement is not None:
        sizes = {"m": measurement.m, "n": measurement.n}
        layers = {name: numbers(result) for name, result in measurement.layers.items()}
        adjusted = holm([layer["pvalue"] for layer in layers.values()])
        two_sample = {
            "inputs": {**numbers(measurement.inputs), **sizes},
            "layers": {
                name: {**layer, **sizes, "pvalue_holm": float(p)}
                for (name, layer), p in zip(layers.items(), adjusted, strict=True)
            },
            "note": measurement.note,
        }
        arrays["null/inputs"] = np.asarray(measurement.inputs.null)
        arrays |= {f"null/layers/{name}": np.asarray(result.null) for name, result in measurement.layers.items()}
    about: dict[str, Any] = {"note": data.note}
    for name, rows in (("source", data.source), ("target", data.target)):
        if rows is None:
            continue
        about[name] = {
            "train_rows": len(rows.train_y),
            "test_rows": len(rows.test_y),
            "classes": rows.class_names,
            "shape": rows.train_x.shape[1:],
        }
        if rows.image:
            # Spread over the classes: files of a folder, for one, come sorted by class.
            by_class = np.argsort(rows.train_y, kind="stable")
            shown = by_class[np.linspace(0, len(by_class) - 1, min(NUM_SAMPLES, len(by_class))).astype(int)]
            arrays[f"samples/{name}"] = rows.train_x[shown]
    workdir.write_npz(directory / "evidence.npz", arrays)
    verdict = None if judged is None else {**judged.verdict._asdict(), "margin_from": judged.margin_from}
    content = {"two_sample": two_sample, "verdict": verdict, "similarity": similarity, "plan": plan, "data": about}
    workdir.write_json(directory / "decision.json", content)


def read_decided(directory: Path) -> Decided:
    """The decision that this work directory holds to."""
    content = workdir.read_json(directory / "decision.json")
    plan = content["plan"]
    stages = tuple(
        Stage(
            **{
                **stage,
                "frozen": tuple(stage["frozen"]),
                "trained": tuple((layer, rate) for layer, rate in stage["trained"]),
                "reinitialised": tuple(stage["reinitialised"]),
            }
        )
        for stage in plan["stages"]
    )
    similarity = Similarity(**content["similarity"])
    return Decided(
        content["two_sample"], content.get("verdict"), similarity, Plan(**{**plan, "stages": stages}), content["data"]
    )


def numbers(result: TwoSampleResult) -> dict[str, Any]:
    """One test as result.json has it."""
    assert result.null is not None
    num = int(np.size(result.null))
    bandwidth = np.ravel(np.asarray(result.bandwidth)).tolist()
    return {
        "mmd2_unbiased": float(result.statistic),
        "mmd_biased": float(result.mmd_biased),
        # The fraction that it is, and not that fraction in float32.
        "pvalue": round(float(result.pvalue) * (num + 1)) / (num + 1),
        "threshold": float(result.threshold),
        "reject": bool(result.reject),
        "permutations": num,
        "bandwidth": bandwidth[0] if len(bandwidth) == 1 else bandwidth,
    }


def write(
    config: Config,
    directory: Path,
    decided: Decided,
    chosen: Arm,
    from_scratch: Arm,
    outcome: Outcome,
    seconds: dict[str, float],
    command: str,
) -> None:
    """Completes evidence.npz and writes result.json, whose presence means that the numbers are final."""
    arrays = workdir.read_npz(directory / "evidence.npz")
    arrays |= {
        "test/labels": outcome.labels,
        "test/chosen": outcome.chosen.astype(np.int32),
        "test/from_scratch": outcome.from_scratch.astype(np.int32),
    }
    workdir.write_npz(directory / "evidence.npz", arrays)
    result = {
        "name": config.name,
        "command": command,
        "two_sample": decided.two_sample,
        "verdict": decided.verdict,
        "similarity": decided.similarity,
        "plan": summary(decided.plan),
        "accuracy": outcome.accuracy,
        "negative_transfer": negative_transfer(outcome.accuracy, reused=decided.plan.regime != "from_scratch"),
        "learning_rate": {"chosen": chosen.learning_rate, "from_scratch": from_scratch.learning_rate},
        "validation_loss": {"chosen": chosen.valid_loss, "from_scratch": from_scratch.valid_loss},
        "frozen_unchanged": chosen.frozen_unchanged,
        "num_parameters": count_parameters(chosen),
        "data": decided.about_data,
        "seconds": seconds,
        "seed": config.seed,
        "device": f"{jax.devices()[0].device_kind} ({jax.default_backend()}, {jax.device_count()} device(s))",
        "versions": versions(),
    }
    workdir.write_json(directory / "result.json", result)


def summary(plan: Plan) -> dict[str, Any]:
    """A plan as result.json has it: the stages in full, and beside them what holds for the whole of it."""

    def union(names: list[tuple[str, ...]]) -> list[str]:
        return list(dict.fromkeys(name for group in names for name in group))

    trained = union([tuple(layer for layer, _ in stage.trained) for stage in plan.stages])
    frozen = union([stage.frozen for stage in plan.stages])
    return {
        "rule": plan.rule,
        "regime": plan.regime,
        "reason": plan.reason,
        "frozen": [layer for layer in frozen if layer not in trained],
        "trained": trained,
        "reinitialised": union([stage.reinitialised for stage in plan.stages]),
        "augment": any(stage.augment for stage in plan.stages),
        "cached": any(stage.cached for stage in plan.stages),
        "stages": plan.stages,
    }


def count_parameters(arm: Arm) -> dict[str, int]:
    """{"total", "trained"}: parameters of the network, and those trained in any stage of its plan."""
    params = {"params": arm.variables["params"]}
    trained = {layer for stage in arm.plan.stages for layer, _ in stage.trained}
    found = {"total": leaves.named_leaves(params), "trained": leaves.take(params, trained)}
    return {name: sum(int(np.size(leaf)) for leaf in tree.values()) for name, tree in found.items()}


def versions() -> dict[str, str]:
    """Of Python and of the packages that numbers depend on."""
    packages = ("mmd_jax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # a checkout that is run without being installed
            found[name] = "not installed"
    return found
