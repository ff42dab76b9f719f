"""Slow, obvious float64 loops to compare the library with. They share no code with it."""

import math

import numpy as np


def gaussian(a, b, bandwidths):
    squared = sum((float(s) - float(t)) ** 2 for s, t in zip(a, b))
    return sum(math.exp(-squared / (2 * float(bandwidth) ** 2)) for bandwidth in bandwidths)


def mmd2_unbiased(x, y, bandwidths, kernel=gaussian):
    m, n = len(x), len(y)
    xx = math.fsum(kernel(x[i], x[j], bandwidths) for i in range(m) for j in range(m) if i != j)
    yy = math.fsum(kernel(y[i], y[j], bandwidths) for i in range(n) for j in range(n) if i != j)
    xy = math.fsum(kernel(x[i], y[j], bandwidths) for i in range(m) for j in range(n))
    return xx / (m * (m - 1)) + yy / (n * (n - 1)) - 2 * xy / (m * n)


def mmd_biased(x, y, bandwidths, kernel=gaussian):
    m, n = len(x), len(y)
    xx = math.fsum(kernel(a, b, bandwidths) for a in x for b in x)
    yy = math.fsum(kernel(a, b, bandwidths) for a in y for b in y)
    xy = math.fsum(kernel(a, b, bandwidths) for a in x for b in y)
    return math.sqrt(max(xx / m**2 + yy / n**2 - 2 * xy / (m * n), 0.0))


def median_distance(rows):
    rows = np.asarray(rows, np.float64)
    return np.median([np.linalg.norm(rows[i] - rows[j]) for i in range(len(rows)) for j in range(i)])


def gram(rows, bandwidths):
    """The full Gram matrix in float64, for samples too large for a loop."""
    rows = np.asarray(rows, np.float64)
    squared = np.zeros((len(rows), len(rows)))
    for feature in rows.T:
        squared += (feature[:, None] - feature[None, :]) ** 2
    return sum(np.exp(-squared / (2 * float(bandwidth) ** 2)) for bandwidth in bandwidths)


def mmd2_unbiased_of_splits(K, columns):
    """From a full Gram matrix and 0/1 membership columns: three plain quadratic forms a column."""
    K = K - np.diag(np.diag(K))
    X = np.asarray(columns, np.float64)
    Y = 1 - X
    m, n = X.sum(0), Y.sum(0)
    KX, KY = K @ X, K @ Y
    return (X * KX).sum(0) / (m * (m - 1)) + (Y * KY).sum(0) / (n * (n - 1)) - 2 * (X * KY).sum(0) / (m * n)
