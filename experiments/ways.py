"""Ways to a classifier of the target's rows, each a function of the same labelled rows: reused networks, and boosted trees.

A way gives scores of the target's test rows, larger for rows that are more likely of class 1.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import phases
from experiments.config import Config
from experiments.fits import recipe
from experiments.phases import Loaded, Networks
from experiments.sources import Dataset
from mmd_jax.models.layered import Network
from mmd_jax.transfer import decision, finetune, inference
from mmd_jax.types import Plan, Rows, Stage, Variables

BOOSTING_RATES = (0.1, 0.03)
TREES, STEP, PATIENCE = 400, 25, 50  # at most; grown at a time; and without a lower validation loss


class Scored(NamedTuple):
    """What a way gives.

    Attributes:
      scores: of the target's test rows, [n].
      chosen: what was chosen on the validation rows or by the rule, for the record.
    """

    scores: np.ndarray
    chosen: str


class Topic(NamedTuple):
    """A source that was analysed, and a target with some labelled rows.

    Attributes:
      config: how networks are built, measured and trained.
      nets: for both.
      pretrained: the source's network.
      data: both data sets; the target's training rows are those with labels.
      key: of everything random in training on the target.
      done: what was fitted already, by the stages of its plan: the rule may choose what another way does anyway.
    """

    config: Config
    nets: Networks
    pretrained: Variables
    data: Loaded
    key: jax.Array
    done: dict[tuple[Stage, ...], Scored]


# Topic -> scores and what was chosen.
Way = Callable[[Topic], Scored]


def source_network(topic: Topic) -> Scored:
    """The source's network as it is."""
    return Scored(_scores(topic, topic.nets.source, topic.pretrained), "")


def of_regime(regime: str) -> Way:
    """A regime of the library: a new last layer, and the rest of the network frozen or trained further."""
    return lambda topic: fitted(topic, phases.given_plan(topic.config, topic.nets.target, regime, "A way."))


def chosen_by_rule(topic: Topic) -> Scored:
    """The plan that the config's rule chooses from the test on these rows, as the main job does."""
    keys, config, data = phases.make_keys(topic.config.seed), topic.config, topic.data
    assert data.source is not None
    measurement = phases.measure(config, keys.measure, topic.nets.source, topic.pretrained, data.source, data.target)
    similarity, plan = phases.decide(config, topic.nets.target, topic.pretrained, data, measurement, None)
    frozen = f", {len(plan.stages[0].frozen)} layers frozen" if plan.stages[0].frozen else ""
    return fitted(topic, plan)._replace(chosen=f"{similarity.kind}: {plan.regime}{frozen}")


def head_kept(topic: Topic) -> Scored:
    """All layers trained further from the source's weights, the last one too: source and target ask the same question."""
    [stage] = decision.stages_of("finetune_all", topic.nets.target.layers)
    rate = topic.config.decision.pretrained_rate
    trained = tuple((layer, rate) for layer, _ in stage.trained)
    stages = (stage._replace(reinitialised=(), trained=trained),)
    return fitted(topic, Plan("given", "finetune_all", stages, "The last layer is kept."))


def fitted(topic: Topic, plan: Plan) -> Scored:
    """Carries out a plan at each learning rate; the one with the lowest validation loss gives the scores."""
    config, target, network = topic.config, topic.data.target, topic.nets.target
    plan = phases.cached(config, network, plan, target)
    if plan.stages in topic.done:
        return topic.done[plan.stages]
    train, valid = phases.split(target, config.train, config.seed)
    settings = recipe(config.train)._replace(batch_size=batch_size(len(train.y)))
    best: tuple[float, float, Any] = (np.inf, 0.0, None)
    for rate in config.train.learning_rates:
        states = finetune.finetune(
            topic.key, network, topic.pretrained, plan, train, valid, learning_rate=rate, recipe=settings
        )
        [(state, _)] = deque(states, maxlen=1)
        if float(state.best_loss) < best[0]:
            best = (float(state.best_loss), rate, state.best)
    topic.done[plan.stages] = Scored(_scores(topic, network, best[2]), f"rate {best[1]:g}")
    return topic.done[plan.stages]


def batch_size(rows: int) -> int:
    """A twentieth of the rows, 8 … 256: few rows in large batches would make epochs of a step, and no training."""
    return min(max(rows // 20, 8), 256)


def _scores(topic: Topic, network: Network, variables: Variables) -> np.ndarray:
    logs = inference.log_probabilities(network, variables, topic.data.target.test_x)
    return logs[:, 1] - logs[:, 0]


def boosting(topic: Topic) -> Scored:
    """Gradient boosting on the target's labelled rows."""
    train, valid = phases.split(topic.data.target, topic.config.train, topic.config.seed)
    return _boosted(topic, train, valid)


def source_boosting(topic: Topic) -> Scored:
    """Gradient boosting on the source's rows alone, as it is."""
    assert topic.data.source is not None
    train, valid = phases.split(topic.data.source, topic.config.pretrain, topic.config.seed)
    return _boosted(topic, train, valid)


def boosting_on_both(topic: Topic) -> Scored:
    """Gradient boosting on the rows of both, chosen on the target's validation rows."""
    assert topic.data.source is not None
    train, valid = phases.split(topic.data.target, topic.config.train, topic.config.seed)
    other, _ = phases.split(topic.data.source, topic.config.pretrain, topic.config.seed)
    both = Rows(np.concatenate([train.x, other.x]), np.concatenate([train.y, other.y]))
    return _boosted(topic, both, valid)


def _boosted(topic: Topic, train: Rows, valid: Rows) -> Scored:
    """scikit-learn's histogram boosting, codes as categories; rate and number of trees by the loss on validation rows."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    count = len(topic.config.model.categories)
    codes = list(range(train.x.shape[1] - count, train.x.shape[1]))
    seed = int(jax.random.randint(topic.key, (), 0, 2**31 - 1))
    best: tuple[float, str, np.ndarray] = (np.inf, "", np.zeros(len(topic.data.target.test_y)))
    # On one thread: its threads wait for each other in a loop, and on a machine with other work that takes ten times as long.
    with threadpool_limits(1, user_api="openmp"):
        for rate in BOOSTING_RATES:
            trees = HistGradientBoostingClassifier(
                learning_rate=rate,
                categorical_features=codes or None,
                early_stopping=False,
                warm_start=True,
                random_state=seed,
            )
            for most in range(STEP, TREES + 1, STEP):
                trees.set_params(max_iter=most).fit(train.x, train.y)
                losses = [_loss(np.ravel(odds), valid.y) for odds in trees.staged_decision_function(valid.x)]
                number = int(np.argmin(losses))
                if most - number > PATIENCE:
                    break
            if losses[number] < best[0]:
                staged = trees.staged_decision_function(topic.data.target.test_x)
                odds = np.ravel(next(found for i, found in enumerate(staged) if i == number))
                best = (losses[number], f"rate {rate:g}, {number + 1} trees", odds)
    return Scored(best[2], best[1])


def _loss(odds: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy of log-odds, nats a row."""
    return float(np.logaddexp(0, np.where(labels == 1, -odds, odds)).mean())


WAYS: dict[str, Way] = {
    "source network": source_network,
    "linear_probe": of_regime("linear_probe"),
    "finetune_all": of_regime("finetune_all"),
    "chosen": chosen_by_rule,
    "head kept": head_kept,
    "from_scratch": of_regime("from_scratch"),
    "source boosting": source_boosting,
    "boosting": boosting,
    "boosting on both": boosting_on_both,
}
# Those that look at no label of the target.
AS_IS = ("source network", "source boosting")


def with_rows(target: Dataset, rows: np.ndarray) -> Dataset:
    """The target with some of its training rows."""
    groups = None if target.train_groups is None else target.train_groups[rows]
    return target._replace(
        train_x=target.train_x[rows],
        train_y=target.train_y[rows],
        train_groups=groups,
        train_rows=target.train_rows[rows],
    )


def without_margin(config: Config) -> Config:
    """The config with the deciding p-value, which is what `chosen_by_rule` asks."""
    return replace(config, decision=replace(config.decision, similarity="pvalue", margin=None, margin_from=""))
