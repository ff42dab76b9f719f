"""The end of the report: what it takes to repeat the run, and to trust it."""

import json
from typing import Any

from experiments.report import words
from experiments.report.markup import Html, join, table, tag
from experiments.report.run import Run

PHASES = {
    "load": "loading the data",
    "pretrain": "pretraining on the source",
    "measure": "measuring and deciding",
    "reuse": "training by the plan",
    "from_scratch": "training from scratch, for comparison",
    "evaluate": "testing both networks",
}


def section(run: Run) -> Html:
    """Command, settings, data, machine, versions, times and checks."""
    result = run.result
    times, parameters = result["seconds"], result["num_parameters"]
    return join(
        [
            tag("h2", "How this was made"),
            tag("p", "The command that repeats it (all settings stand below):"),
            tag("pre", result["command"] or f"python -m experiments.transfer --config configs/{result['name']}.py"),
            tag("h3", "Checks and sizes"),
            table(
                (),
                [
                    ("Frozen layers unchanged", frozen(result["frozen_unchanged"])),
                    (
                        "Parameters",
                        f"{parameters['total']:,} in the network, {parameters['trained']:,} of them trained "
                        f"({words.percent(parameters['trained'] / max(1, parameters['total']))})",
                    ),
                    ("Seed", result["seed"]),
                    ("Device", result["device"]),
                    ("Versions", ", ".join(f"{name} {version}" for name, version in result["versions"].items())),
                    (
                        "Time",
                        f"{words.seconds(sum(times.values()))} in all: "
                        + ", ".join(f"{PHASES.get(name, name)} {words.seconds(value)}" for name, value in times.items())
                        + " (where the run was resumed: of its last start)",
                    ),
                ],
            ),
            tag("h3", "Data"),
            data_table(run),
            tag("p", tag("b", "Notes on the data. "), result["data"]["note"]) if result["data"].get("note") else None,
            tag("h3", "Settings that matter"),
            table((), settings(run.config)),
            tag(
                "details",
                tag("summary", "All settings (config.json)"),
                tag("pre", json.dumps(run.config, indent=1, ensure_ascii=False)),
            ),
            tag(
                "p",
                "Every number here is in result.json, every array behind a picture in evidence.npz, and the pictures "
                "themselves are in figures/, beside this page. The trained network is in model/: ",
                tag("code", "python -m experiments.predict MODEL DATA"),
                " applies it to new rows.",
            ),
        ]
    )


def frozen(unchanged: bool | None) -> str:
    """The check after each stage, in words."""
    if unchanged is None:
        return "nothing was frozen, so there was nothing to check"
    if unchanged:
        return (
            "yes: after each stage every frozen number (weights and batch statistics) was bit for bit "
            "what it was at the start"
        )
    return "NO: a frozen number changed, so the numbers above are not those of the plan"


def data_table(run: Run) -> Html:
    """Sizes of both data sets."""
    rows = []
    for which in ("source", "target"):
        if about := run.result["data"].get(which):
            shape = " × ".join(str(size) for size in about["shape"])
            rows.append(
                (
                    f"{which}: {run.config[which]['name']}",
                    f"{about['train_rows']:,}",
                    f"{about['test_rows']:,}",
                    f"{len(about['classes'])}: {words.listed(about['classes'])}",
                    shape,
                )
            )
    return table(("", "Training rows", "Test rows", "Classes", "Shape of a row"), rows, numbers=(1, 2))


def settings(config: dict[str, Any]) -> list[tuple[str, str]]:
    """What a reader asks for first."""
    model, test, decision, train = (config[name] for name in ("model", "test", "decision", "train"))
    network = f"the user's own, {model['factory']}" if model["factory"] else model["name"]
    if not model["factory"]:
        network += f", width {model['width']}" if model["name"] == "cnn8" else f", hidden layers {model['hidden']}"
    chosen = f"regime {decision['regime']}, chosen by the user" if decision["regime"] else f"rule {decision['rule']}"
    found = [
        ("Network", network + (f", weights from {model['weights']}" if model["weights"] else "")),
        (
            "Test",
            f"{test['resampling'].replace('_', ' ')}, {test['permutations']:,} times, level {test['alpha']:g}, at most "
            f"{test['max_rows']:,} rows of each sample, looks at: {decision['representation']}",
        ),
        ("Decision", chosen + (f", assumed {decision['assume']}" if decision["assume"] else "")),
        ("Training on the target", training(train)),
    ]
    if config["source"] is not None and not model["weights"]:
        found.append(("Pretraining on the source", training(config["pretrain"])))
    return found


def training(train: dict[str, Any]) -> str:
    """One training section in a line."""
    clip = f"gradients clipped at norm {train['clip_norm']:g}" if train["clip_norm"] else "no clipping"
    rates = ", ".join(f"{rate:g}" for rate in train["learning_rates"])
    return (
        f"{train['optimizer']}, learning rates {rates}, at most {train['epochs']} epochs of batches of "
        f"{train['batch_size']}, stopped after {train['patience']} without a better validation loss, "
        f"{words.percent(train['validation_fraction'])} of the training rows held out for validation, weight decay "
        f"{train['weight_decay']:g}, {clip}, {train['precision']}"
    )
