"""Carrying out a plan: each stage is a generator of states, one a compiled chunk of steps.

What leaves the generator is a value: the caller prints, saves, or stops. A state that was saved and is given back goes on
bit for bit as if it had never left, because a step always runs in the same compiled form.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from mmd_jax.models import leaves
from mmd_jax.models.layered import Network
from mmd_jax.transfer.augment import augmented
from mmd_jax.transfer.freezing import check_frozen, frozen_hashes, stage_labels, staged_optimizer
from mmd_jax.transfer.inference import Watch
from mmd_jax.transfer.objectives import CLASSIFICATION
from mmd_jax.transfer.prefix import num_prefix, prefix_rows
from mmd_jax.transfer.recipe import Recipe, check_recipe, data_order, rate_factors, schedule
from mmd_jax.transfer.train import TrainState, at_rate, init_state, rate_of, train_step
from mmd_jax.types import Objective, Plan, Rows, Stage, Tree, Variables

# (compute, rows) -> compute(rows), computed now or before.
Keep = Callable[[Callable[[Rows], Rows], Rows], Rows]


class FitState(NamedTuple):
    """Where a stage stands; all that is needed to go on with it.

    Attributes:
      train: after the last step.
      best: the variables with the lowest validation loss so far, those before the first step among them; without validation
        rows, those after the last step.
      best_loss: their validation loss, nats a row; infinite without validation rows. Shape [].
      best_step: the step at which they stood. Shape [], int32.
    """

    train: TrainState
    best: Variables
    best_loss: Array
    best_step: Array


class Prepared(NamedTuple):
    """A stage before its first step, whatever the learning rate.

    Attributes:
      stage: the stage.
      variables: those it starts from, with fresh weights in its re-initialised layers.
      frozen: {path: sha256} of what it must not change.
      start: the layer whose inputs the rows are: 0, or the first after a cached prefix.
      train, valid: the rows; none to validate on where the last state is wanted, whatever its loss.
      order_key, step_key: of the order of the data, and of whatever is random in a step.
    """

    stage: Stage
    variables: Variables
    frozen: dict[str, str]
    start: int
    train: Rows
    valid: Rows | None
    order_key: Array
    step_key: Array


class NonFiniteLossError(FloatingPointError):
    """The training or validation loss is NaN or infinite."""


def finetune(
    key: Array,
    network: Network,
    variables: Variables,
    plan: Plan,
    train: Rows,
    valid: Rows,
    *,
    learning_rate: float,
    recipe: Recipe = Recipe(),  # noqa: B008 (immutable)
    objective: Objective = CLASSIFICATION,
) -> Iterator[tuple[FitState, dict[str, float]]]:
    """Carries out every stage of a plan; the last state's `.best` is the fine-tuned network.

    Args:
      key: consumed; initialises new layers, orders the data, and drives whatever is random in training.
      network: the network, with a last layer for the target's classes.
      variables: of that network, pretrained but for the layers that the plan re-initialises.
      plan: of `decide`.
      train: rows to train on.
      valid: rows whose loss says when to stop and which state was best.
      learning_rate: of new layers; pretrained ones take the plan's share of it.
      recipe: everything else.
      objective: what is minimised.

    Yields:
      (FitState, {"stage", "step", "loss", "grad_norm", "valid_loss", and what the objective reports: of a classifier
      "accuracy", "valid_accuracy"}) once a chunk.

    Raises:
      NonFiniteLossError: when a loss becomes NaN or infinite; the state yielded before is the last good one.
      RuntimeError: if a frozen leaf changed.

    Example:
      >>> from mmd_jax.models.mlp import mlp
      >>> from mmd_jax.transfer.decision import stages_of
      >>> x, y = np.eye(4, dtype=np.float32), np.arange(4, dtype=np.int32) % 2
      >>> network = mlp(2, hidden=(8,))
      >>> variables = network.init(jax.random.key(0), x)
      >>> plan = Plan("given", "linear_probe", stages_of("linear_probe", network.layers), "an example")
      >>> rows = Rows(x, y)
      >>> run = finetune(jax.random.key(1), network, variables, plan, rows, rows, learning_rate=0.1)
      >>> *_, (state, metrics) = run
      >>> bool((state.best["params"]["fc1"]["kernel"] == variables["params"]["fc1"]["kernel"]).all())
      True
    """
    objective.check(network, train, valid)
    check_recipe(recipe)
    for number, stage in enumerate(plan.stages):
        stage_key = jax.random.fold_in(key, number)
        prepared = prepare(stage_key, network, variables, stage, train, valid, recipe=recipe, objective=objective)
        state = begin_fit(network, prepared, learning_rate=learning_rate, recipe=recipe, objective=objective)
        chunks = fit(network, prepared, state, recipe=recipe, objective=objective)
        for state, metrics in chunks:
            yield state, {"stage": number, **metrics}
        check_frozen(prepared.frozen, state.best, stage)
        variables = state.best


def prepare(
    key: Array,
    network: Network,
    variables: Variables,
    stage: Stage,
    train: Rows,
    valid: Rows | None,
    *,
    recipe: Recipe,
    objective: Objective = CLASSIFICATION,
    watch: Watch = iter,
    keep: Keep = lambda compute, rows: compute(rows),
) -> Prepared:
    """Everything about a stage that does not depend on the learning rate.

    Args:
      key: of the stage, the same at each resumption. Fresh weights, the order of the data and each step's randomness are
        functions of it, so two arms with one key start from the same head and see the same batches.
      network: the network.
      variables: trained so far; of re-initialised layers only the names are looked at.
      stage: the stage; where it is cached, the rows pass through its frozen prefix here.
      train, valid: the network's own inputs; `valid` none: the fit has a fixed length, and its last state is kept.
      recipe: for its precision.
      objective: for what the network takes of a row.
      watch: as in `inference.in_batches`, for the progress of caching.
      keep: called as keep(compute, rows) for compute(rows), the rows as they leave a cached prefix: a caller may have them.

    Raises:
      ValueError: a stage that caches or augments rows which the network does not take as they are, such as pairs.
    """
    init_key, order_key, step_key = jax.random.split(key, 3)
    if stage.reinitialised:
        fresh = jax.jit(network.init)(init_key, jnp.asarray(objective.inputs(train.x[:1])))
        kept = tuple(name for name in network.layers if name not in stage.reinitialised)
        variables = leaves.replace(fresh, variables, kept)
    variables = jax.tree.map(jnp.asarray, dict(variables))
    start = num_prefix(network, stage) if stage.cached else 0
    _check_inputs(stage, start, train, objective)
    if start:
        compute = partial(prefix_rows, network, variables, stage, precision=recipe.precision, watch=watch)
        train, valid = keep(compute, train), None if valid is None else keep(compute, valid)
    return Prepared(stage, variables, frozen_hashes(variables, stage), start, train, valid, order_key, step_key)


def _check_inputs(stage: Stage, start: int, train: Rows, objective: Objective) -> None:
    """Refuses to pass rows through the network, or to augment them, that are something else than its inputs."""
    row = train.x[:1]
    if (start or stage.augment) and objective.inputs(row).shape[1:] != row.shape[1:]:
        asked = "cached" if start else "augment"
        raise ValueError(
            f"the stage's `{asked}` is on, but a row of shape {list(row.shape[1:])} is not one input of the network, as with "
            f"pairs; use stage._replace({asked}=False)"
        )


def begin_fit(
    network: Network,
    prepared: Prepared,
    *,
    learning_rate: float,
    recipe: Recipe,
    objective: Objective = CLASSIFICATION,
) -> FitState:
    """The state before the first step of a stage: fresh optimizer, and the starting variables as the best so far."""
    variables = prepared.variables
    optimizer = _optimizer(stage_labels(variables["params"], prepared.stage), recipe)
    train = init_state(variables, optimizer, learning_rate=learning_rate)
    if prepared.valid is None:
        return FitState(train, variables, jnp.float32(np.inf), jnp.int32(0))
    found = objective.validate(network, variables, prepared.valid, start=prepared.start, precision=recipe.precision)
    loss = found["loss"]
    # Nothing is smaller than NaN: weights that start without a finite loss must lose to any that have one.
    return FitState(train, variables, jnp.float32(loss if np.isfinite(loss) else np.inf), jnp.int32(0))


def fit(
    network: Network, prepared: Prepared, state: FitState, *, recipe: Recipe, objective: Objective = CLASSIFICATION
) -> Iterator[tuple[FitState, dict[str, float]]]:
    """Trains one stage from where `state` stands to its end: the last epoch, or `recipe.patience` epochs without progress.

    Args:
      network: the network.
      prepared: the stage, made anew by `prepare` at each resumption.
      state: of `begin_fit`, or one that this generator yielded.
      recipe: the settings.
      objective: what is minimised.

    Yields:
      (FitState, metrics) once a chunk; nothing if `state` is already at the end.

    Raises:
      NonFiniteLossError: when a loss becomes NaN or infinite.
    """
    train, valid, start = prepared.train, prepared.valid, prepared.start
    total, chunk, patience = schedule(len(train.y), recipe, validated=valid is not None)
    step, best_step = int(state.train.step), int(state.best_step)
    static = compiled_for(network, prepared, recipe, objective)
    while step < total and step - best_step < patience:
        rows = data_order(prepared.order_key, len(train.y), step, chunk, min(recipe.batch_size, len(train.y)))
        rates = rate_factors(recipe, step, chunk, total)
        trained, metrics = run_chunk(state.train, train.x[rows], train.y[rows], rates, prepared.step_key, **static)
        metrics = {name: float(value) for name, value in metrics.items()}
        step += chunk
        loss = 0.0
        if valid is not None:
            found = objective.validate(network, trained.variables, valid, start=start, precision=recipe.precision)
            metrics |= {f"valid_{name}": value for name, value in found.items()}
            loss = found["loss"]
        if not np.isfinite(metrics["loss"] + loss):
            raise NonFiniteLossError(
                f"the loss became {metrics['loss']}{'' if valid is None else f' (validation {loss})'} between steps "
                f"{step - chunk} and {step} at learning rate {float(rate_of(trained)):g}; "
                "lower the learning rate, or clip gradients"
            )
        if valid is None:
            best_step = step
            state = FitState(trained, trained.variables, state.best_loss, jnp.int32(step))
        elif loss < float(state.best_loss):
            best_step = step
            state = FitState(trained, trained.variables, jnp.float32(loss), jnp.int32(step))
        else:
            state = state._replace(train=trained)
        yield state, {"step": step, **metrics}


def compiled_for(
    network: Network, prepared: Prepared, recipe: Recipe, objective: Objective = CLASSIFICATION
) -> dict[str, Any]:
    """What a chunk is compiled for, as the static arguments of `run_chunk`; fits that agree in it share one program."""
    # What a compiled chunk does not depend on is taken out.
    stage = Stage(prepared.stage.frozen, prepared.stage.trained, augment=prepared.stage.augment)
    recipe = recipe._replace(epochs=0, patience=0, schedule="", warmup_epochs=0.0)
    return {"network": network, "stage": stage, "recipe": recipe, "start": prepared.start, "objective": objective}


@partial(jax.jit, static_argnames=("network", "stage", "recipe", "start", "objective"))
def run_chunk(
    state: TrainState,
    x: Array,
    y: Array,
    factors: Array,
    key: Array,
    *,
    network: Network,
    stage: Stage,
    recipe: Recipe,
    start: int = 0,
    objective: Objective = CLASSIFICATION,
) -> tuple[TrainState, dict[str, Array]]:
    """`train_step` over the leading axis of x [steps, batch, ...] and y [steps, batch]; metrics are means over the steps.

    Args:
      state: the state so far; the learning rate in it is the schedule's highest, and stays.
      x, y: the batches.
      factors: of `rate_factors`, [steps].
      key: of the stage.
      network, stage, recipe, start, objective: of `compiled_for`.
    """
    step = make_step(network, stage, recipe, state.variables["params"], start=start, objective=objective)
    rate = rate_of(state)

    def one(state: TrainState, batch: tuple[Array, Array, Array]) -> tuple[TrainState, dict[str, Array]]:
        x, y, factor = batch
        state, metrics = step(at_rate(state, factor * rate), (x, y), key)
        return at_rate(state, rate), metrics

    state, metrics = jax.lax.scan(one, state, (x, y, factors))
    return state, jax.tree.map(lambda values: values.mean(), metrics)


def make_step(
    network: Network,
    stage: Stage,
    recipe: Recipe,
    params: Tree,
    *,
    start: int = 0,
    objective: Objective = CLASSIFICATION,
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """`train_step` for one stage: a pure function (state, (x [batch, ...], y [batch]), key) -> (state, metrics).

    Args:
      network: the network.
      stage: what is frozen and what is trained, at which share of the learning rate.
      recipe: optimizer, clipping and precision.
      params: the network's parameters, for their names only.
      start: the layer whose inputs x are.
      objective: what is minimised.
    """
    labels = stage_labels(params, stage)
    trained = tuple(name for name, _ in stage.trained)
    loss = objective.loss(network, trained, start=start, dtype=recipe.precision)
    return partial(
        train_step,
        loss=augmented(loss, recipe.augmentation) if stage.augment and start == 0 else loss,
        optimizer=_optimizer(labels, recipe),
        labels=labels,
    )


def _optimizer(labels: Tree, recipe: Recipe) -> optax.GradientTransformationExtraArgs:
    def transform(learning_rate: Array) -> optax.GradientTransformation:
        if recipe.optimizer == "adamw":
            return optax.adamw(learning_rate, weight_decay=recipe.weight_decay)
        return optax.chain(
            optax.trace(recipe.momentum) if recipe.momentum else optax.identity(),
            optax.add_decayed_weights(recipe.weight_decay),
            optax.scale_by_learning_rate(learning_rate),
        )

    return staged_optimizer(transform, labels, clip_norm=recipe.clip_norm)
