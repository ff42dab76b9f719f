"""How often is a new linear classifier on frozen features right? The most direct of the scores, by cross-validation."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Key

from mmd_jax.transfer.scores import HIGHEST, check_both, floats, one_hot
from mmd_jax.two_sample.checks import check_key
from mmd_jax.two_sample.pooled import Numbers, is_traced

# Of the probe, on the mean loss and standardised features: from "hardly any slope" to "hardly any penalty".
PENALTIES = (0.3, 0.03, 0.003, 0.0003)
# Rounds of the probe's solver for one penalty at most, and the decrement at which it stops earlier, in nats.
MOST_ROUNDS = 60
DECREMENT = 1e-6


class Probe(NamedTuple):
    """What a linear classifier makes of held-out rows. Every row was held out once.

    Attributes:
      accuracy: share of the rows that are right. Shape [].
      log_loss: mean of −log of the probability of the right class, in nats. Shape [].
      correct: row by row, so that two probes of the same rows and key can be compared in pairs. Shape [n], bool.
    """

    accuracy: Float[Array, ""]
    log_loss: Float[Array, ""]
    correct: Bool[Array, " n"]


def probe(
    key: Key[Array, ""],
    features: Numbers,
    labels: Numbers,
    folds: int = 5,
    *,
    num_classes: int | None = None,
    groups: ArrayLike | None = None,
) -> Probe:
    """How often a linear classifier on the features is right, by cross-validation.

        min_{W, b} (1/m) Σ_i −log softmax(Wᵀ f_i + b)_{y_i} + (λ/2) ‖W‖²   on the m rows of the other folds

    Folds hold classes in equal shares. Inside the other folds, features are standardised, and λ is chosen among four on one of
    them before all are fitted. The solver is Newton's method with a bound of the curvature in its place (Böhning), and Nesterov's
    momentum; it draws nothing.

    It asks how good a new linear head on the frozen features will be, most directly of all scores, and takes the longest.
    Accuracy is that of heads that were trained on (folds − 1)/folds of the rows: a little too low for all of them.

    Args:
      key: of the folds, consumed. Probes that are to be compared row by row take the same (`jax.random.clone`).
      features: finite. Shape [n, d].
      labels: 0 … C − 1, each with at least two rows. Shape [n].
      folds: at least 3, at most n / 2.
      num_classes: C; none: as many as are seen (give it where labels are traced).
      groups: of rows that depend on each other (near copies, one person's), concrete integers: rows of a group share a fold, so
        that none is tried by a classifier that saw its like. Folds hold classes in equal shares as far as groups allow. Rows of
        a class that only one group has are always wrong. Shape [n].

    Returns:
      `Probe`.

    Raises:
      ValueError: as `log_me`; too few rows or groups for the folds, or a class of one row.
      TypeError: a key that is not a typed key; entries that are not numbers; folds that are no plain integer.

    Example:
      >>> import jax, numpy as np
      >>> labels = np.arange(60) % 3
      >>> features = np.eye(3)[labels] + 0.1 * np.asarray(jax.random.normal(jax.random.key(0), (60, 3)))
      >>> float(probe(jax.random.key(1), features, labels).accuracy)
      1.0

    Reference: Böhning, Multinomial logistic regression algorithm, 1992; O'Donoghue and Candès, Adaptive restart for accelerated
    gradient schemes, 2015.
    """
    check_key(key)
    rows, _, y, num_classes = check_both(features, labels, num_classes)
    if isinstance(folds, bool) or not isinstance(folds, int | np.integer):
        raise TypeError(f"folds is {folds!r}; expected a plain integer, since it is a shape.")
    if not 3 <= folds <= len(rows) // 2:
        raise ValueError(
            f"folds is {folds} for {len(rows)} rows; expected at least 3 (to fit, to choose the penalty, to try) and at most "
            "half as many as there are rows."
        )
    if not is_traced(y):
        sizes = np.bincount(y)
        if sizes.min() < 2:
            raise ValueError(
                f"class {int(sizes.argmin())} has one row, which can't both train the classifier and try it; leave the class out."
            )
    fold = _stratified_folds(key, y, int(folds)) if groups is None else _folds_of_groups(key, groups, y, int(folds))
    return _probe(fold, rows, y, folds=int(folds), num_classes=num_classes)


@partial(jax.jit, static_argnames=("folds", "num_classes"))
def _probe(fold: Array, features: Array, labels: Array, *, folds: int, num_classes: int) -> Probe:
    features, y = floats(features), one_hot(labels, num_classes).T
    penalties = jnp.asarray(PENALTIES, features.dtype)

    def held_out(k: Array) -> Array:
        """Log-probabilities [C, n] of all rows, by the classifier that did not see fold k."""
        trains, chooses = fold != k, fold == (k + 1) % folds
        x, curvature = _standardised(features, trains)
        # (x, 1)(x, 1)ᵀ of fewer rows is at most that of more; so is the curvature, as a mean over fewer.
        inner = jnp.sum(trains) / jnp.sum(trains & ~chooses)
        fitted, tried = _path(x, y, trains & ~chooses, (inner * curvature, inner))
        best = jnp.argmax(jnp.sum(jnp.where(chooses[None, :], jnp.sum(tried * y[None], axis=1), 0), axis=1))
        start = jax.tree.map(lambda leaf: leaf[best], fitted)
        return _log_probabilities(x, *_fit(x, y, trains, (curvature, 1.0), penalties[best], start))

    scores = lax.map(held_out, jnp.arange(folds))[fold, :, jnp.arange(len(features))]
    correct = jnp.argmax(scores, axis=1) == labels
    return Probe(jnp.mean(correct.astype(scores.dtype)), -jnp.mean(jnp.sum(scores * y.T, axis=1)), correct)


@partial(jax.jit, static_argnames="folds")
def _stratified_folds(key: Array, labels: Array, folds: int) -> Array:
    """The fold of each row: dealt out in turn, class after class."""
    index = jnp.arange(len(labels))
    bits = jax.random.bits(key, labels.shape, jnp.uint32)
    order = lax.sort((labels, bits, index), num_keys=2)[2]
    return jnp.zeros_like(index).at[order].set(index % folds)


def _folds_of_groups(key: Array, groups: ArrayLike, labels: ArrayLike, folds: int) -> Array:
    """The fold of each row: whole groups, the largest first, each to the fold that holds least of the group's classes."""
    if is_traced(key) or is_traced(groups) or is_traced(labels):
        raise TypeError("folds of whole groups are dealt out before anything is compiled; give concrete arrays.")
    groups, y = np.asarray(groups), np.asarray(labels)
    if groups.shape != y.shape or not np.issubdtype(groups.dtype, np.integer):
        raise ValueError(f"groups have shape {groups.shape} and type {groups.dtype}; expected {len(y)} integers.")
    number = np.unique(groups, return_inverse=True)[1]
    counts = np.zeros((number.max() + 1, y.max() + 1))
    np.add.at(counts, (number, y), 1)
    if len(counts) < folds:
        raise ValueError(f"{len(counts)} groups can't fill {folds} folds; give rows of more groups, or fewer folds.")
    random = np.random.default_rng(np.ravel(jax.random.key_data(key)).tolist())
    order = random.permutation(len(counts))
    order = order[np.argsort(-counts.sum(axis=1)[order], kind="stable")]
    held, fold = np.zeros((folds, counts.shape[1])), np.zeros(len(counts), int)
    for group in order:
        alike = held @ (counts[group] / counts.sum(axis=0))
        fold[group] = np.lexsort((held.sum(axis=1), alike))[0]
        held[fold[group]] += counts[group]
    return jnp.asarray(fold[number])


def _standardised(features: Array, trains: Array) -> tuple[Array, Array]:
    """All rows, standardised by those that train and turned to their principal axes [n, d]; the variances there [d]."""
    shares = (trains / jnp.sum(trains)).astype(features.dtype)[:, None]
    centred = features - jnp.sum(shares * features, axis=0, keepdims=True)
    scale = jnp.sqrt(jnp.sum(shares * centred**2, axis=0, keepdims=True))
    # A feature that hardly varies where it is fitted says nothing of where it is tried; of one that varies little, another row
    # may lie anywhere.
    rounding = 1e-6 * jnp.max(jnp.abs(features), axis=0, keepdims=True)
    x = jnp.where(scale > rounding, centred / jnp.where(scale > 0, scale, 1), 0)
    x = jnp.clip(x, -100, 100)
    variances, axes = jnp.linalg.eigh(jnp.dot(x.T, shares * x, precision=HIGHEST))
    return jnp.dot(x, axes, precision=HIGHEST), jnp.maximum(variances, 0)


Head = tuple[Array, Array]  # W [C, d], b [C]
Bound = tuple[Array, ArrayLike]  # of twice the curvature of the mean loss: along each axis [d], and of the intercept


def _path(x: Array, y: Array, trains: Array, bound: Bound) -> tuple[Head, Array]:
    """The classifiers of the rows that train, from the largest penalty to the smallest, and their log-probabilities [4, C, n]."""

    def fit(start: Head, penalty: Array) -> tuple[Head, tuple[Head, Array]]:
        head = _fit(x, y, trains, bound, penalty, start)
        return head, (head, _log_probabilities(x, *head))

    zeros = jnp.zeros((len(y), x.shape[1]), x.dtype), jnp.zeros(len(y), x.dtype)
    return lax.scan(fit, zeros, jnp.asarray(PENALTIES, x.dtype))[1]


def _fit(x: Array, y: Array, trains: Array, bound: Bound, penalty: Array, start: Head) -> Head:
    """Minimises the penalised mean loss of the rows that train, which bends at most as ½ Σ_i (x_i, 1)(x_i, 1)ᵀ/m does."""
    shares = (trains / jnp.sum(trains)).astype(x.dtype)[None, :]
    steps, step_b = 1 / (bound[0] / 2 + penalty)[None, :], 2 / bound[1]

    def step(state):
        i, (w, b), (old_w, old_b), momentum, _ = state
        following = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        share = (momentum - 1) / following
        v, c = w + share * (w - old_w), b + share * (b - old_b)
        excess = shares * (jnp.exp(_log_probabilities(x, v, c)) - y)
        slope, slope_b = jnp.dot(excess, x, precision=HIGHEST) + penalty * v, jnp.sum(excess, axis=1)
        move, move_b = steps * slope, step_b * slope_b
        new_w, new_b = v - move, c - move_b
        uphill = jnp.sum(slope * (new_w - w)) + jnp.sum(slope_b * (new_b - b)) > 0
        decrement = jnp.sum(slope * move) + jnp.sum(slope_b * move_b)
        return i + 1, (new_w, new_b), (w, b), jnp.where(uphill, 1.0, following), decrement

    def goes_on(state) -> Array:
        return (state[0] < MOST_ROUNDS) & (state[4] > DECREMENT)

    one = jnp.ones((), x.dtype)
    return lax.while_loop(goes_on, step, (0, start, start, one, jnp.inf * one))[1]


def _log_probabilities(x: Array, w: Array, b: Array) -> Array:
    return jax.nn.log_softmax(jnp.dot(w, x.T, precision=HIGHEST) + b[:, None], axis=0)
