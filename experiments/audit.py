"""Which way to reuse the network is best on this target, and what would each rule's choice have cost?

    python -m experiments.audit --config configs/quickstart.py [--audit.minutes 5] [--workdir DIR] [--field.sub value]

Every regime is tried on the target, by successive halving within a budget: all of them a little, the best of them longer.
Any config of `experiments.transfer` will do. The same command goes on where it was stopped.
"""

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from experiments import config as configs
from experiments import phases, plans, signals, workdir
from experiments.auditing.contest import hold
from experiments.auditing.regret import Choice
from experiments.auditing.summary import about_contest, summarise
from experiments.config import Config, Decision, wants_verdict
from experiments.errors import reported
from experiments.measure import measure
from experiments.phases import Loaded, Networks
from experiments.report import audit as report
from experiments.verdicts import judge
from mmd_jax.transfer import decision
from mmd_jax.types import Plan, Rows, Similarity, Variables


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with reported():
        argv = sys.argv[1:] if argv is None else list(argv)
        config, directory = configs.load(argv, suffix="-audit")
        run(config, directory, shlex.join(["python", "-m", "experiments.audit", *argv]))


def run(config: Config, directory: Path, command: str = "") -> None:
    """One audit, from data to report; the same call again goes on where it stopped, or only remakes a missing report."""
    # Who decides is not asked here: all are.
    config = replace(config, decision=replace(config.decision, rule=plans.AUDIT, regime=""))
    data = phases.load(config)
    given, config = config, phases.with_table(config, data)
    nets = phases.build(config, data)
    phases.open_workdir(given, directory)
    phases.save_splits(directory, data)
    phases.save_tensors(config, directory, nets)
    if not (directory / "audit.json").exists():
        compute(config, directory, nets, data, command)
    if not (directory / "report.html").exists():
        report.write(directory)
    print(f"{report.as_text(workdir.read_json(directory / 'audit.json'))}\nReport: {directory / 'report.html'}")


def compute(config: Config, directory: Path, nets: Networks, data: Loaded, command: str) -> None:
    """Everything up to audit.json."""
    keys, target = phases.make_keys(config.seed), data.target
    variables = phases.pretrain(config, directory, keys.pretrain, nets, data)
    known = known_similarities(config, nets, variables, data)
    chosen = rules_plans(config, nets, data, known)
    ways = plans.ways(config, nets.target, target, chosen.values())
    choices = [Choice(by, str(plans.same_way(ways, plan))) for by, plan in chosen.items()]
    scores, note = known_scores(config, nets, variables, data)
    choices += choices_by_scores(scores, nets, config.decision)
    place = phases.audit_ground(config, directory, nets, variables, data)
    contest = hold(
        place,
        ways,
        config.audit,
        test=Rows(target.test_x, target.test_y),
        finish=[choice.way for choice in choices],
    )
    header = about(config, data, known, command) | about_contest(place) | {"scores": scores, "scores_note": note}
    found = summarise(header, contest, labels=target.test_y, groups=target.test_groups, choices=choices)
    workdir.write_json(directory / "audit.json", found)


def known_similarities(config: Config, nets: Networks, variables: Variables, data: Loaded) -> dict[str, Similarity]:
    """{how: what is known of P = Q}: by the p-value, by the verdict where there is a margin, or without either."""
    if data.source is None or config.decision.assume is not None:
        return {"": plans.similarity_known(config, None, None)}
    key = phases.make_keys(config.seed).measure
    measurement = measure(config, key, nets.source, variables, data.source, data.target)
    found = {"p-value": plans.similarity_known(config, measurement, None)}
    if wants_verdict(config):
        judged = judge(config, key, nets.source, variables, data.source, data.target, measurement)
        found["verdict"] = plans.similarity_known(config, measurement, judged)
    return found


def rules_plans(config: Config, nets: Networks, data: Loaded, known: dict[str, Similarity]) -> dict[str, Plan]:
    """{who chooses: the plan}: each rule, under each thing that is known."""
    return {
        f"{rule}, {how}" if how else rule: plans.cached(
            config, nets.target, plans.plan_by_rule(config, rule, nets.target, similarity, data.target), data.target
        )
        for rule in decision.RULES
        for how, similarity in known.items()
    }


def known_scores(
    config: Config, nets: Networks, variables: Variables, data: Loaded
) -> tuple[dict[str, dict[str, float]], str]:
    """{representation: {score: value}} of the target's training rows, before they train anything; or why there are none."""
    key = jax.random.fold_in(phases.make_keys(config.seed).measure, 0xA0D17)
    target = data.target
    try:
        found = signals.signals(
            key,
            nets.source,
            variables,
            Rows(target.train_x, target.train_y),
            num_classes=len(target.class_names),
            pooling=config.test.pooling,
            source_head=data.source is not None,
        )
    except ValueError as error:
        return {}, f"No scores: {error}."
    return found, ""


def choices_by_scores(scores: Mapping[str, Mapping[str, float]], nets: Networks, settings: Decision) -> list[Choice]:
    """What each score of layers would choose: to freeze all layers up to the one where it is highest."""
    layers = {name: values for name, values in scores.items() if name != signals.OUTPUTS}
    choices = []
    for score in signals.OF_LAYERS if layers else ():
        values = {name: found[score] for name, found in layers.items()}
        if any(math.isfinite(value) for value in values.values()):
            choices.append(Choice(score, signals.deepest(values, nets.target, settings=settings)))
    return choices


def about(config: Config, data: Loaded, known: dict[str, Similarity], command: str) -> dict[str, Any]:
    """What the report needs to know beside the contest."""
    target = data.target
    return {
        "name": config.name,
        "network": config.model.factory or config.model.name,
        "source": None if config.source is None else config.source.name,
        "target": config.target.name,
        "classes": list(target.class_names),
        "num_train": len(target.train_y),
        "num_test": len(target.test_y),
        "evidence": {how: similarity.evidence for how, similarity in known.items()},
        "note": data.note,
        "seed": config.seed,
        "command": command,
    }


if __name__ == "__main__":
    main()
