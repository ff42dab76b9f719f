"""The tiles on eight devices, and on two processes, give what one device gives; each does its share."""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from mmd_jax.two_sample import aggregated_test, permutation_test
from mmd_jax.two_sample.gram import count_tiles, share_of

PROGRAM = """
import json, sys
import jax
import numpy as np
if len(sys.argv) > 1:
    jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
from mmd_jax.two_sample import aggregated_test, permutation_test
mesh = jax.make_mesh((jax.device_count(),), ("devices",))
x, y = np.random.default_rng(0).normal(size=(2, 700, 3)).astype(np.float32)
y = 1.02 * y
key = jax.random.key(0)
found = {}
for name, test, settings in (
    ("rows", permutation_test, {}), ("bins", permutation_test, {"bins": 100}),
    ("aggregated", aggregated_test, {"num_bandwidths": 2}),
):
    result = test(key, x, y, mesh=mesh, num_permutations=99, return_null=True, **settings)
    found[name] = [float(result.statistic), float(result.pvalue), np.asarray(result.null).tolist()]
found["devices"] = jax.device_count()
found["processes"] = jax.process_count()
print(json.dumps(found))
"""


def run(*arguments, devices=1):
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result_of(process):
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def alone():
    x, y = np.random.default_rng(0).normal(size=(2, 700, 3)).astype(np.float32)
    y = 1.02 * y
    settings = {"rows": {}, "bins": {"bins": 100}, "aggregated": {"num_bandwidths": 2}}
    return {
        name: (aggregated_test if name == "aggregated" else permutation_test)(
            jax.random.key(0), x, y, num_permutations=99, return_null=True, **more
        )
        for name, more in settings.items()
    }


def check(found, alone):
    for name, expected in alone.items():
        statistic, pvalue, null = found[name]
        spread = float(np.std(expected.null))
        # To rounding: float32 sums in another order, far below the spread of the null.
        assert statistic == pytest.approx(float(expected.statistic), abs=1e-3 * spread)
        np.testing.assert_allclose(null, expected.null, atol=1e-3 * spread)
        assert pvalue == pytest.approx(float(expected.pvalue))


def test_eight_devices_give_the_answer_of_one(alone):
    found = result_of(run(devices=8))
    assert found["devices"] == 8
    check(found, alone)


def test_two_processes_give_the_answer_of_one(alone):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    first, second = (result_of(one) for one in [run(address, "0"), run(address, "1")])
    assert first["processes"] == 2 and first["devices"] == 2
    check(first, alone)
    assert first == second


@pytest.mark.parametrize("devices", [1, 3, 8])
@pytest.mark.parametrize("count", [1, 1400, 20000])
def test_devices_share_the_tiles_equally(devices, count):
    total = count_tiles(count, 1024)
    shares = [share_of(device, devices, 0, total) for device in range(devices)]
    visited = [tile for start, end in shares for tile in range(int(start), int(end))]
    assert visited == list(range(total))
    assert max(int(end - start) for start, end in shares) <= -(-total // devices)
