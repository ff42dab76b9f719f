"""The ways to reuse a network that are compared side by side: each regime at each depth and rate, as a named plan."""

from experiments.config import Decision
from mmd_jax.models.layered import Network
from mmd_jax.transfer.decision import stages_of
from mmd_jax.types import Plan

# The shares of the base that "top layers at several depths" freezes: those of `mmd_jax.transfer.decision.QUADRANT`.
SHARES = (0.4, 0.6, 1.0)
# Pretrained layers at the rate of new ones, as Yosinski et al. (2014) have it, beside the smaller rate of the sources.
FULL_RATE = 1.0


def candidates(network: Network, settings: Decision, *, augment: bool) -> dict[str, Plan]:
    """{name: plan} of every regime that an audit compares, from the cheapest step to the dearest.

    Args:
      network: whose layers the plans name.
      settings: `pretrained_rate` and `layer_decay` of the pretrained layers that are trained.
      augment: whether inputs can be augmented; then the regimes that train most of the network come with and without it.
    """

    def plan(regime: str, frozen: int = 0, rate: float = settings.pretrained_rate, augmented: bool = False) -> Plan:
        stages = stages_of(
            regime,
            network.layers,
            num_frozen=frozen,
            pretrained_rate=rate,
            layer_decay=settings.layer_decay,
            augment=augmented,
        )
        return Plan("given", regime, stages, "One of the ways that are compared.")

    most = {share: network.num_base if share == 1 else max(network.num_base - 1, 0) for share in SHARES}
    depths = sorted({min(round(share * network.num_base), most[share]) for share in SHARES}, reverse=True)
    depths = [depth for depth in depths if 0 < depth < len(network.layers) - 1]  # below: all; above: the linear probe
    plans = [plan("linear_probe"), *(plan("finetune_top", depth) for depth in depths)]
    plans += [plan("lp_ft"), plan("finetune_all"), plan("finetune_all", rate=FULL_RATE), plan("from_scratch")]
    if augment:
        plans += [plan("finetune_top", depth, augmented=True) for depth in depths[-1:]]
        plans += [plan("finetune_all", augmented=True), plan("finetune_all", rate=FULL_RATE, augmented=True)]
        plans += [plan("from_scratch", augmented=True)]
    return {name_of(one): one for one in plans}


def name_of(plan: Plan) -> str:
    """The plan in few words."""
    first, *_ = plan.stages
    words = [plan.regime]
    if plan.regime == "finetune_top":
        words.append(f"{len(first.frozen)} frozen")
    copied = [rate for stage in plan.stages for name, rate in stage.trained if name not in first.reinitialised]
    if copied and min(copied) == FULL_RATE:
        words.append("full rate")
    if any(stage.augment for stage in plan.stages):
        words.append("augmented")
    return " ".join(words)
