"""How well will features or predictions of a trained network serve labelled target rows? Asked without training it.

Every score is larger where reuse should go better, and each answers its own question:

    score        of what                        question                                    range
    leep         the source head's outputs      how well do its classes tell the target's?  <= 0
    nce          its most likely classes        the same, from hard labels                  <= 0
    log_me       features of one layer          a new linear head on frozen features        nats a row; no bound
    h_score      features of one layer          the same, as variance explained             0 … C − 1
    trans_rate   features of one layer          head, and room for fine-tuning              >= 0
    probe        features of one layer          a new linear head, fitted and tried         0 … 1  (linear_probe.py)

None of them sees how far fine-tuning would move the features: they rank networks, or layers of one, for the same target rows,
and say little across targets. In their formulas F [n, d] are the features, y the labels, n_c the rows of class c.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Float

from mmd_jax.two_sample.pooled import Numbers, check_rows, is_traced, padded_width

HIGHEST = lax.Precision.HIGHEST
# Narrower features are padded to this: compiling again for each width takes longer than it saves.
LEAST_WIDTH = 64
# LogME: the noise of labels 0 and 1 is at least this large, squared; features that fit them exactly would have evidence ∞.
LEAST_NOISE = 1e-6


def leep(probabilities: Numbers, labels: Numbers, num_classes: int) -> Float[Array, ""]:
    """Log expected empirical prediction: the mean log-likelihood of the labels, if the source's classes were all one knew.

        LEEP = (1/n) Σ_i log Σ_z P̂(y_i | z) θ(x_i)_z,   P̂(y | z) = Σ_{i: y_i = y} θ(x_i)_z / Σ_i θ(x_i)_z

    It asks how well a fixed map from the source's classes to the target's would do. It needs the network with its source head,
    and is blind to what features hold beyond that head; a source of few classes has a low ceiling. Labels that are
    independent of the outputs give about −H(y), in nats.

    Args:
      probabilities: θ, the source head's class probabilities on target rows. Shape [n, s].
      labels: 0 … num_classes − 1. Shape [n].
      num_classes: of the target; not all need have rows.

    Returns:
      The score, at most 0. Shape [].

    Raises:
      ValueError: rows that are no probabilities; labels outside 0 … num_classes − 1, or all of one class.
      TypeError: entries that are not numbers.

    Example:
      >>> float(leep([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [1, 1, 0], 2))
      0.0

    Reference: Nguyen et al., LEEP: a new measure to evaluate transferability of learned representations, ICML 2020.
    """
    rows: Any = check_rows("probabilities", probabilities)
    if not is_traced(rows):
        sums = rows.sum(axis=1, dtype=np.float64)
        if rows.min() < 0 or np.abs(sums - 1).max() > 1e-3:
            raise ValueError(
                f"probabilities has entries from {rows.min():.3g} on and rows that sum to {sums.min():.3g} … "
                f"{sums.max():.3g}; expected class probabilities, for instance by softmax of the source head's logits."
            )
    y, num_classes = _check_labels(labels, len(rows), num_classes)
    return _leep(rows, y, num_classes=num_classes)


def nce(
    source_labels: Numbers, labels: Numbers, *, num_source: int | None = None, num_classes: int | None = None
) -> Float[Array, ""]:
    """Negative conditional entropy of the target's labels, given the class that the source network finds most likely.

        NCE = −H(y | z) = (1/n) Σ_i log (#{j: z_j = z_i, y_j = y_i} / #{j: z_j = z_i})

    It asks what `leep` asks, of hard labels: it is LEEP where all probabilities are 0 or 1. With many source classes and few
    rows, classes of one row explain that row perfectly, and the score is too good.

    Args:
      source_labels: z, the source network's classes of the target rows, from 0. Shape [n].
      labels: 0 … C − 1. Shape [n].
      num_source: classes of the source; none: as many as are seen (give it where labels are traced).
      num_classes: C; none: as many as are seen (the same).

    Returns:
      The score, from −H(y) to 0, in nats. Shape [].

    Raises:
      ValueError: labels that are not such integers, of unequal number, or all of one class.

    Example:
      >>> round(float(nce([0, 0, 0, 0], [0, 1, 0, 1])), 4)
      -0.6931

    Reference: Tran, Nguyen and Hassner, Transferability and hardness of supervised classification tasks, ICCV 2019.
    """
    y, num_classes = _check_labels(labels, None, num_classes)
    z, num_source = _check_labels(source_labels, len(y), num_source, what="source_labels", least=1)
    return _leep(one_hot(z, num_source), y, num_classes=num_classes)


@partial(jax.jit, static_argnames="num_classes")
def _leep(probabilities: Array, labels: Array, *, num_classes: int) -> Array:
    probabilities = floats(probabilities)
    joint = jnp.dot(one_hot(labels, num_classes).T, probabilities, precision=HIGHEST)
    of_source = joint.sum(axis=0)
    given = joint / jnp.where(of_source > 0, of_source, 1)[None, :]
    expected = jnp.sum(given[labels] * probabilities, axis=1)
    # A row is among those that the table was made of, so what it expects is above 0 but for underflow.
    return jnp.mean(jnp.log(jnp.maximum(expected, jnp.finfo(expected.dtype).tiny)))


def log_me(features: Numbers, labels: Numbers, *, num_classes: int | None = None) -> Float[Array, ""]:
    """Logarithm of maximum evidence: how likely the labels are under Bayesian linear regression on the features.

        LogME = (1/nC) Σ_c max_{α, β} log ∫ N(y_c | F w, I/β) N(w | 0, I/α) dw,   y_c = 1 where the label is c, else 0

    By the SVD F = U diag(σ) Vᵀ, z = Uᵀ y_c, and with t = α/β, the maximum is a fixed point of

        γ = Σ σ²/(t + σ²),  α = γ / Σ (σ z/(t + σ²))²,  β = (n − γ) / (Σ (t z/(t + σ²))² + ‖y_c − U z‖²),  t = α/β

    It asks how good a new linear head on the frozen features will be, and integrates over heads instead of fitting one, so that
    d > n does not flatter it. The evidence is that of a regression on 0 and 1: values compare features on the same rows and
    labels only, and grow with the number of classes, whose y_c are rarer. No intercept is added: features that are never
    near 0 together (any ReLU layer) have one. Scaling the features changes nothing, scaling some of them does.

    Args:
      features: F, finite. Shape [n, d], n >= 2.
      labels: 0 … C − 1, each with a row. Shape [n].
      num_classes: C; none: as many as are seen (give it where labels are traced).

    Returns:
      The score, in nats a row and class. Labels that features fit exactly have no greatest evidence; the noise 1/β is held
      above 1e-6. Shape [].

    Raises:
      ValueError: features that are no finite matrix; labels that are not such integers, one for each row, or of one class only.
      TypeError: entries that are not numbers.

    Example:
      >>> rows = [[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.2]]
      >>> bool(log_me(rows, [0, 0, 1, 1]) > log_me(rows, [0, 1, 0, 1]))
      True

    Reference: You et al., LogME: practical assessment of pre-trained models for transfer learning, ICML 2021; the fixed point is
    that of Ranking and tuning pre-trained models, JMLR 2022.
    """
    rows, _, y, num_classes = check_both(features, labels, num_classes)
    return _log_me(rows, y, num_classes=num_classes)


@partial(jax.jit, static_argnames="num_classes")
def _log_me(features: Array, labels: Array, *, num_classes: int) -> Array:
    features, y = floats(features), one_hot(labels, num_classes)
    n = len(features)
    u, s, inside = _thin_svd(features)
    squared = jnp.where(inside, s, 0) ** 2
    # In units of the mean square: the evidence knows no scale.
    total = jnp.sum(squared)
    squared = squared * (n / jnp.where(total > 0, total, 1))
    z = jnp.where(inside[:, None], jnp.dot(u.T, y, precision=HIGHEST), 0)
    rest = jnp.sum((y - jnp.dot(u, z, precision=HIGHEST)) ** 2, axis=0)
    return jnp.mean(jax.vmap(_evidence, in_axes=(None, 1, 0, None))(squared, z, rest, n)) / n


def _evidence(squared: Array, z: Array, rest: Array, n: int) -> Array:
    """The greatest evidence of one vector of labels; `squared` are σ², n the rows."""
    # Beyond these, the head is as good as free, or as good as 0.
    low, high = jnp.log(1e-6), jnp.log(1e8)

    def penalty_and_misfit(t: Array) -> tuple[Array, Array]:
        norm = jnp.sum(squared * (z / (t + squared)) ** 2)
        return norm, jnp.maximum(jnp.sum((t * z / (t + squared)) ** 2) + rest, n * LEAST_NOISE)

    def improve(state: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
        i, log_t, _ = state
        t = jnp.exp(log_t)
        norm, misfit = penalty_and_misfit(t)
        used = jnp.sum(squared / (t + squared))
        unused = n - len(squared) + jnp.sum(t / (t + squared))  # n − used, without cancellation
        tiny = jnp.finfo(norm.dtype).tiny
        new = jnp.log(jnp.maximum(used * misfit, tiny)) - jnp.log(jnp.maximum(unused * norm, tiny))
        return i + 1, jnp.clip(new, low, high), log_t

    def moves(state: tuple[Any, Array, Array]) -> Array:
        i, log_t, before = state
        return (i < 200) & (jnp.abs(log_t - before) > 1e-4)

    start: tuple[Any, Array, Array] = (0, jnp.zeros((), squared.dtype), jnp.full((), jnp.inf, squared.dtype))
    t = jnp.exp(lax.while_loop(moves, improve, start)[1])
    norm, misfit = penalty_and_misfit(t)
    # At the best β for this t, which is n / (misfit + t · norm), the exponent is −n/2.
    noise = (misfit + t * norm) / n
    return -0.5 * (n * (jnp.log(2 * jnp.pi * noise) + 1) + jnp.sum(jnp.log1p(squared / t)))


def h_score(
    features: Numbers, labels: Numbers, *, shrinkage: ArrayLike | str = 0.0, num_classes: int | None = None
) -> Float[Array, ""]:
    """H-score: the variance between classes, measured in units of the variance of the features.

        H = tr(Σ_α⁻¹ (1 − α) Σ_B),  Σ = cov F,  Σ_B = cov of the class means,  Σ_α = (1 − α) Σ + α (tr Σ / d) I

    with the pseudo-inverse for α = 0 (Bao et al.); "ledoit_wolf" estimates α from the features (Ibrahim et al.). It asks how
    good a new linear head on the frozen features will be, by least squares, without trying it on other rows: plain, it grows with
    d whatever the features are worth, by about (C − 1) d / n, and is C − 1 for all labels where d >= n − 1. Shrunk, it does so
    much less, and may then be compared over layers of unequal width.

    Args:
      features: F, finite. Shape [n, d], n >= 2.
      labels: 0 … C − 1, each with a row. Shape [n].
      shrinkage: α, in [0, 1], or "ledoit_wolf".
      num_classes: C; none: as many as are seen (give it where labels are traced).

    Returns:
      The score, from 0 to C − 1. Plain, it does not change under invertible linear maps of the features. Shape [].

    Raises:
      ValueError: as `log_me`; a shrinkage that is neither.
      TypeError: entries that are not numbers.

    Example:
      >>> round(float(h_score([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], [0, 0, 1, 1])), 3)
      1.0

    References: Bao et al., An information-theoretic approach to transferability in task transfer learning, ICIP 2019; Ibrahim,
    Ponomareva and Mazumder, Newer is not always better: rethinking transferability metrics, ECML 2022; Ledoit and Wolf, A
    well-conditioned estimator for large-dimensional covariance matrices, 2004.
    """
    rows, width, y, num_classes = check_both(features, labels, num_classes)
    if isinstance(shrinkage, str):
        if shrinkage != "ledoit_wolf":
            raise ValueError(f"shrinkage is {shrinkage!r}; expected a number from 0 to 1, or 'ledoit_wolf'.")
        return _h_score(rows, width, y, None, num_classes=num_classes)
    if not is_traced(shrinkage) and not (np.ndim(shrinkage) == 0 and 0 <= float(np.asarray(shrinkage)) <= 1):
        raise ValueError(f"shrinkage is {shrinkage}; expected a number from 0 to 1, or 'ledoit_wolf'.")
    return _h_score(rows, width, y, shrinkage, num_classes=num_classes)


@partial(jax.jit, static_argnames="num_classes")
def _h_score(features: Array, d: Any, labels: Array, shrinkage: Any, *, num_classes: int) -> Array:
    features, members = floats(features), one_hot(labels, num_classes)
    n, centred = len(features), _centred(features)
    u, s, inside = _thin_svd(centred)
    # In units of the largest: the score knows no scale.
    roots = jnp.where(inside, s / jnp.where(s[0] > 0, s[0], 1), 0)
    # Of each principal direction, the share of its variance that lies between the classes.
    between = jnp.sum(jnp.dot(members.T, u, precision=HIGHEST) ** 2 / _sizes(members)[:, None], axis=0)
    values = roots**2 / n
    mean = jnp.sum(values) / d
    if shrinkage is None:
        lengths = jnp.sum((u * roots[None, :]) ** 2, axis=1)
        spread = jnp.sum(values**2)
        noise = (jnp.mean(lengths**2) - spread) / (n * d)
        distance = spread / d - mean**2
        shrinkage = jnp.where(distance > 0, jnp.clip(noise / jnp.where(distance > 0, distance, 1), 0, 1), 1.0)
    kept = (1 - shrinkage) * values
    weights = kept / jnp.where(inside, kept + shrinkage * mean, 1)
    return jnp.sum(jnp.where(inside, weights * between, 0))


def trans_rate(
    features: Numbers, labels: Numbers, *, epsilon: ArrayLike = 1e-4, num_classes: int | None = None
) -> Float[Array, ""]:
    """TransRate: the mutual information of features and labels, as a difference of coding rates.

        TrR = R(Z, 1) − Σ_c (n_c / n) R(Z, 1[y = c]),  R(Z, w) = ½ log det(I + Zᵀdiag(w)Z / (ε Σ_i w_i))

    where Z are the features less their mean, scaled to a mean squared length of 1. It asks whether the features are large and
    diverse between classes and compact within each, which a head and fine-tuning can both use. It depends on the scale and the
    width of the features and on ε: scaling makes layers of one network comparable, but wide ones still have more
    directions to be diverse in, and with d > n its rates are of noise (reduce the features first).

    Args:
      features: finite. Shape [n, d], n >= 2.
      labels: 0 … C − 1, each with a row. Shape [n].
      epsilon: ε, the squared distortion of the code, above 0.
      num_classes: C; none: as many as are seen (give it where labels are traced).

    Returns:
      The score in nats, at least 0; rotations and shifts of the features do not change it. Shape [].

    Raises:
      ValueError: as `log_me`; an epsilon that is not positive.
      TypeError: entries that are not numbers.

    Example:
      >>> rows = [[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.2]]
      >>> bool(trans_rate(rows, [0, 0, 1, 1]) > trans_rate(rows, [0, 1, 0, 1]))
      True

    Reference: Huang et al., Frustratingly easy transferability estimation, ICML 2022. Their listing gives all classes the weight
    1/C; n_c/n, as in the text, keeps the score at or above 0 where classes are of unequal size.
    """
    rows, _, y, num_classes = check_both(features, labels, num_classes)
    if not is_traced(epsilon) and not (np.ndim(epsilon) == 0 and 0 < float(np.asarray(epsilon)) < np.inf):
        raise ValueError(f"epsilon is {epsilon}; expected one positive number.")
    return _trans_rate(rows, y, epsilon, num_classes=num_classes)


@partial(jax.jit, static_argnames="num_classes")
def _trans_rate(features: Array, labels: Array, epsilon: Any, *, num_classes: int) -> Array:
    centred, members = _centred(floats(features)), one_hot(labels, num_classes)
    n, d = centred.shape
    largest = jnp.max(jnp.abs(centred))
    centred = centred / jnp.where(largest > 0, largest, 1)
    power = jnp.sum(centred**2) / n
    z = centred / jnp.sqrt(jnp.where(power > 0, power, 1))

    def rate(weights: Array) -> Array:
        # ZᵀZ and ZZᵀ have the same determinant here: take the smaller.
        part = z * jnp.sqrt(weights / (epsilon * jnp.sum(weights)))[:, None]
        small = jnp.dot(part, part.T, precision=HIGHEST) if d > n else jnp.dot(part.T, part, precision=HIGHEST)
        root = jnp.linalg.cholesky(small + jnp.eye(len(small), dtype=small.dtype))
        return jnp.sum(jnp.log(jnp.diagonal(root)))

    rates = lax.map(rate, jnp.concatenate([jnp.ones((1, n), z.dtype), members.T]))
    return jnp.maximum(rates[0] - jnp.sum(rates[1:] * _sizes(members)) / n, 0)  # below 0 by rounding alone


def _thin_svd(rows: Array) -> tuple[Array, Array, Array]:
    """Left singular vectors [n, k], singular values [k], and which of them are above rounding [k]."""
    u, s, _ = jnp.linalg.svd(rows, full_matrices=False)
    return u, s, s > s[0] * max(rows.shape) * jnp.finfo(s.dtype).eps


def _centred(features: Array) -> Array:
    return features - jnp.mean(features, axis=0, keepdims=True)


def floats(features: Any) -> Array:
    return jnp.asarray(features).astype(jnp.result_type(float))


def one_hot(labels: Any, num_classes: int) -> Array:
    return jax.nn.one_hot(labels, num_classes)  # in the default type, which under x64 is that of the features


def _sizes(members: Array) -> Array:
    return jnp.maximum(jnp.sum(members, axis=0), 1)


def check_both(features: Any, labels: Any, num_classes: int | None) -> tuple[Any, int, Any, int]:
    """Features, their width before it was padded, labels and the number of classes; every class has a row.

    Features of zero change no score, and the layers of a network, which have all kinds of widths, share few programs.
    """
    features = check_rows("features", features)
    width = features.shape[1]
    if not is_traced(features):
        features = np.pad(features, ((0, 0), (0, max(LEAST_WIDTH, padded_width(width)) - width)))
    labels, number = _check_labels(labels, len(features), num_classes)
    if not is_traced(labels):
        sizes = np.bincount(labels, minlength=number)
        if sizes.min() == 0:
            raise ValueError(
                f"class {int(sizes.argmin())} of {number} has no row; number the classes that there are 0 … "
                f"{int((sizes > 0).sum()) - 1}, for instance by np.unique(labels, return_inverse=True)[1]."
            )
    return features, width, labels, number


def _check_labels(
    labels: Any, n: int | None, num_classes: int | None, *, what: str = "labels", least: int = 2
) -> tuple[Any, int]:
    """Labels as integers [n], and the number of their classes; traced values go unchecked."""
    traced = is_traced(labels)
    if not traced:
        labels = np.asarray(labels)
    if labels.ndim != 1 or (n is not None and len(labels) != n) or len(labels) < 2:
        raise ValueError(
            f"{what} has shape {tuple(labels.shape)}; expected "
            + ("one label for each of two rows or more." if n is None else f"one for each of the {n} rows.")
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{what} has entries of type {labels.dtype}; expected integers 0 … classes − 1.")
    if traced:
        if num_classes is None:
            raise ValueError(f"{what} is traced, so its classes can't be counted; give their number, which is a shape.")
        return labels, num_classes
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (num_classes is not None and high >= num_classes):
        allowed = "0 on" if num_classes is None else f"0 … {num_classes - 1}"
        raise ValueError(f"{what} run from {low} to {high}; expected integers {allowed}.")
    if least > 1 and low == high:
        raise ValueError(f"{what} are all {low}; a score needs rows of at least two classes.")
    return labels.astype(np.int32), high + 1 if num_classes is None else num_classes
