"""The ways to reuse a network that are compared side by side: each regime at each depth and rate, as a named plan."""

from collections.abc import Mapping

from experiments.config import Decision
from mmd_jax.models.layered import Network
from mmd_jax.transfer.decision import stages_of
from mmd_jax.types import Plan, Stage

# The shares of the base that "top layers at several depths" freezes: those of `mmd_jax.transfer.decision.QUADRANT`.
SHARES = (0.4, 0.6, 1.0)
# Pretrained layers at the rate of new ones, as Yosinski et al. (2014) have it, beside the smaller rate of the sources.
FULL_RATE = 1.0


def candidates(network: Network, settings: Decision, *, augment: bool) -> dict[str, Plan]:
    """{name: plan} of every regime that an audit compares; those that augment come last.

    Args:
      network: whose layers the plans name.
      settings: `pretrained_rate` and `layer_decay` of the pretrained layers that are trained.
      augment: whether inputs can be augmented; then the regimes that train most of the network come with and without it.
    """

    def plan(regime: str, frozen: int = 0, rate: float = settings.pretrained_rate, augmented: bool = False) -> Plan:
        stages = _stages(network, settings, regime, frozen, rate, augmented)
        return Plan("given", regime, stages, "One of the ways that are compared.")

    depths = sorted({_depth(network, share) for share in SHARES}, reverse=True)
    depths = [depth for depth in depths if 0 < depth < len(network.layers) - 1]  # below: all; above: the linear probe
    plans = [plan("linear_probe"), *(plan("finetune_top", depth) for depth in depths)]
    plans += [plan("lp_ft"), plan("finetune_all"), plan("finetune_all", rate=FULL_RATE), plan("from_scratch")]
    if augment:
        plans += [plan("finetune_top", depth, augmented=True) for depth in depths[-1:]]
        plans += [plan("finetune_all", augmented=True), plan("finetune_all", rate=FULL_RATE, augmented=True)]
        plans += [plan("from_scratch", augmented=True)]
    named = {name_of(one): one for one in plans}
    # Where pretrained layers learn at the full rate anyway, two are one.
    assert len(named) == len({one.stages for one in plans})
    return named


def roles(network: Network, settings: Decision, plans: Mapping[str, Plan]) -> dict[str, str]:
    """{a way that any network has: its name among `plans`}: depths as shares of the base, "finetune_top 0.4".

    Where two shares freeze the same layers, or a network is not augmented, several roles are one plan.
    """

    def found(regime: str, share: float = 0.0, rate: float = settings.pretrained_rate, augmented: bool = False) -> str:
        depth = _depth(network, share)
        for augment in (augmented, False):
            stages = _stages(network, settings, regime, depth, rate, augment)
            if same := [name for name, plan in plans.items() if plan.stages == stages]:
                return same[0]
        raise ValueError(f"no plan freezes {depth} layers for {regime}; there are {', '.join(plans)}")

    there = {f"finetune_top {share:g}": found("finetune_top", share) for share in SHARES}
    there |= {regime: found(regime) for regime in ("linear_probe", "lp_ft", "finetune_all", "from_scratch")}
    there["finetune_all full rate"] = found("finetune_all", rate=FULL_RATE)
    there[f"finetune_top {SHARES[0]:g} augmented"] = found("finetune_top", SHARES[0], augmented=True)
    there["finetune_all augmented"] = found("finetune_all", augmented=True)
    there["finetune_all full rate augmented"] = found("finetune_all", rate=FULL_RATE, augmented=True)
    there["from_scratch augmented"] = found("from_scratch", augmented=True)
    return there


def _depth(network: Network, share: float) -> int:
    """How many layers a share of the base is; less than all of it leaves a layer to train, however small the base."""
    most = network.num_base if share == 1 else max(network.num_base - 1, 0)
    return min(round(share * network.num_base), most)


def _stages(
    network: Network, settings: Decision, regime: str, frozen: int, rate: float, augmented: bool
) -> tuple[Stage, ...]:
    return stages_of(
        regime,
        network.layers,
        num_frozen=frozen,
        pretrained_rate=rate,
        layer_decay=settings.layer_decay,
        augment=augmented,
    )


def name_of(plan: Plan) -> str:
    """The plan in few words."""
    first, *_ = plan.stages
    words = [plan.regime]
    if plan.regime == "finetune_top":
        words.append(f"{len(first.frozen)} frozen")
    copied = [rate for stage in plan.stages for name, rate in stage.trained if name not in first.reinitialised]
    if copied and max(copied) == FULL_RATE:
        words.append("full rate")
    if any(stage.augment for stage in plan.stages):
        words.append("augmented")
    return " ".join(words)
