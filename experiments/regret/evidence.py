"""One cell: what is known before anything is trained on the target, and what each rule would choose for it."""

from dataclasses import replace
from typing import Any

import jax

from experiments import phases
from experiments.candidates import roles
from experiments.measure import deciding_test, measure
from experiments.plans import plan_by_rule
from experiments.regret.outcomes import Setting
from experiments.signals import OF_LAYERS, deepest, signals
from experiments.verdicts import judge
from mmd_jax.transfer import decision
from mmd_jax.types import Rows, Similarity

UNKNOWN = Similarity("unknown", "The network came without source rows.")


def evidence(setting: Setting) -> dict[str, Any]:
    """All that is known before anything is trained on the target: distances, tests, scores; and what each rule makes of it.

    Returns:
      {"distances": {representation: MMD²}, "pvalues": {representation: p}, "similarity": {"pvalue": kind, "verdict": kind},
      "signals": of `experiments.signals.signals`, "deepest": {score: the way that freezes up to where it is highest}, "roles": of
      `experiments.candidates.roles`, "choices": {rule and what it was asked with: name of a way}}
    """
    config, data, nets = setting.config, setting.data, setting.nets
    target, keys = data.target, phases.make_keys(config.seed)
    distances, pvalues = {}, {}
    similar = {"pvalue": UNKNOWN, "verdict": UNKNOWN}
    if data.source is not None:
        measurement = measure(config, keys.measure, nets.source, setting.variables, data.source, target)
        results = {"inputs": measurement.inputs, **measurement.layers}
        distances = {name: float(result.statistic) for name, result in results.items()}
        pvalues = {name: float(result.pvalue) for name, result in results.items()}
        where = config.decision.representation
        about: dict[str, Any] = {"representation": where, "m": measurement.m, "n": measurement.n}
        result = deciding_test(config, measurement)
        judged = judge(config, keys.measure, nets.source, setting.variables, data.source, target, measurement)
        similar = {
            "pvalue": decision.similarity(result, alpha=config.test.alpha, **about),
            "verdict": decision.similarity_of_verdict(judged.verdict, **about),
        }
    rows, classes = Rows(target.train_x, target.train_y), len(target.class_names)
    said = signals(
        jax.random.fold_in(keys.measure, 1),
        nets.source,
        setting.variables,
        rows,
        num_classes=classes,
        source_head=data.source is not None,
    )
    return {
        "num_classes": classes,
        "distances": distances,
        "pvalues": pvalues,
        "similarity": {name: known.kind for name, known in similar.items()},
        "signals": said,
        "deepest": {
            score: deepest(
                {place: of[score] for place, of in said.items() if score in of}, nets.source, settings=config.decision
            )
            for score in OF_LAYERS
        },
        "roles": roles(nets.target, config.decision, setting.plans),
        "choices": {
            f"{rule}, {name}": way_of(setting, rule, known) for rule in decision.MAPS for name, known in similar.items()
        },
    }


def way_of(setting: Setting, rule: str, similarity: Similarity) -> str:
    """The way that a rule's plan is; without augmentation where none of the ways has it."""
    config, target = setting.config, setting.data.target
    augment = None if any(" augmented" in name for name in setting.plans) else False
    config = replace(config, decision=replace(config.decision, augment=augment))
    plan = plan_by_rule(config, rule, setting.nets.target, similarity, target)
    return next(name for name, known in setting.plans.items() if known.stages == plan.stages)
