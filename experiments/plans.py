"""From what is known of P = Q, and from settings, to plans: what a rule makes of it, or what the user named."""

from collections.abc import Iterable, Mapping

from experiments.candidates import candidates, name_of
from experiments.config import Config
from experiments.measure import Measurement, deciding_test
from experiments.sources import Dataset
from experiments.verdicts import Judged
from mmd_jax.models.layered import Network
from mmd_jax.transfer import decision
from mmd_jax.transfer.prefix import with_caching
from mmd_jax.types import Plan, Similarity, Stage

# It trains, where the rules of the library only look something up.
AUDIT = "audit"
RULES = (*decision.RULES, AUDIT)


def is_audited(config: Config) -> bool:
    """Whether the plan is the one that wins when every way is tried."""
    return config.decision.rule == AUDIT and not config.decision.regime


def similarity_known(config: Config, measurement: Measurement | None, judged: Judged | None) -> Similarity:
    """What is known of P = Q: what the user assumes, what the verdict says, or the deciding test."""
    settings = config.decision
    if settings.assume is not None:
        return Similarity(settings.assume, f"The user assumes that source and target are {settings.assume}.")
    if measurement is None:
        return Similarity("unknown", "The network came without source rows, so nothing could be measured.")
    name, m, n = settings.representation, measurement.m, measurement.n
    if judged is not None:
        return decision.similarity_of_verdict(judged.verdict, representation=name, m=m, n=n)
    result = deciding_test(config, measurement)
    return decision.similarity(result, representation=name, alpha=config.test.alpha, m=m, n=n)


def chosen_plan(config: Config, network: Network, similarity: Similarity, target: Dataset) -> Plan:
    """The plan that the user named, or that the config's rule makes of what is known."""
    settings = config.decision
    if settings.regime:
        reason = f"The user chose the regime {settings.regime}."
        plan = given_plan(config, network, settings.regime, reason, augment=bool(settings.augment))
    else:
        plan = plan_by_rule(config, settings.rule, network, similarity, target)
    return cached(config, network, plan, target)


def plan_by_rule(config: Config, rule: str, network: Network, similarity: Similarity, target: Dataset) -> Plan:
    """What a rule makes of what is known, with the config's thresholds and overrides."""
    if rule == AUDIT:
        raise ValueError(
            "decision.rule = 'audit' tries every way on the target, which here is not done; expected "
            f"{', '.join(decision.RULES)}"
        )
    settings = config.decision
    return decision.decide(
        rule,
        similarity,
        network,
        num_rows=len(target.train_y),
        num_classes=len(target.class_names),
        small=settings.small,
        large=settings.large,
        small_per_class=settings.small_per_class,
        pretrained_rate=settings.pretrained_rate,
        num_frozen=settings.num_frozen,
        frozen=settings.frozen,
        layer_decay=settings.layer_decay,
        augment=settings.augment,
    )


def given_plan(config: Config, network: Network, regime: str, reason: str, *, augment: bool = False) -> Plan:
    """The plan of a regime that no rule chose; finetune_top freezes the base unless the config says how many layers."""
    settings = config.decision
    stages = decision.stages_of(
        regime,
        network.layers,
        num_frozen=network.num_base if settings.num_frozen is None else settings.num_frozen,
        frozen=settings.frozen,
        pretrained_rate=settings.pretrained_rate,
        layer_decay=settings.layer_decay,
        augment=augment,
    )
    return Plan("given", regime, stages, reason)


def cached(config: Config, network: Network, plan: Plan, target: Dataset) -> Plan:
    """The plan, with its decision for or against caching the frozen prefix."""
    return with_caching(
        plan,
        network,
        target.train_x[:1],
        num_rows=len(target.train_y),
        limit_bytes=config.train.cache_limit_mb * 1e6,
        cache=config.train.cache,
    )


def ways(config: Config, network: Network, target: Dataset, others: Iterable[Plan] = ()) -> dict[str, Plan]:
    """{name: plan} of every way to reuse the network that an audit tries, each with its decision on caching.

    Args:
      config: its rates and caching.
      network: with a last layer for the target's classes.
      target: the new data.
      others: plans that should be among them, such as those that rules choose.
    """
    known = candidates(network, config.decision, augment=target.image)
    named = [*known.items(), *((name_of(plan), plan) for plan in others)]
    found: dict[str, Plan] = {}
    for name, plan in named:
        plan = cached(config, network, plan, target)
        if same_way(found, plan) is None:  # where a cache takes augmentation away, two are one
            found[name if name not in found else f"{name} ({len(found)})"] = plan
    return found


def same_way(found: Mapping[str, Plan], plan: Plan) -> str | None:
    """The name of the plan that does the same, if there is one."""

    def content(plan: Plan) -> list[Stage]:
        return [stage._replace(cache_reason="") for stage in plan.stages]

    return next((name for name, known in found.items() if content(known) == content(plan)), None)
