"""The cache gives back what was computed, notices damage, and never stands in the way."""

import numpy as np
import pytest

from experiments.cache import cached, fingerprint

ARRAYS = {"x": np.arange(1000, dtype=np.uint8), "names": np.array(["a", "bc"])}


@pytest.fixture
def count():
    """compute() and the list of its calls."""
    calls = []

    def compute():
        calls.append(1)
        return ARRAYS

    return compute, calls


def test_computed_once(tmp_path, count):
    compute, calls = count
    for _ in range(3):
        found = cached(tmp_path / "new" / "cache", "k", compute)
        assert found.keys() == ARRAYS.keys() and all((found[k] == ARRAYS[k]).all() for k in ARRAYS)
    assert len(calls) == 1
    cached(tmp_path / "new" / "cache", "other", compute)
    assert len(calls) == 2
    assert len(list((tmp_path / "new" / "cache").iterdir())) == 2  # nothing half-written beside them


@pytest.mark.parametrize("position", [0, 10, 300, 700, -400, -30, -1])
def test_a_damaged_file_is_made_again(tmp_path, count, position):
    compute, calls = count
    cached(tmp_path, "k", compute)
    whole = bytearray((tmp_path / "k.npz").read_bytes())
    for damaged in (whole[:position], whole[:position] + bytes([whole[position] ^ 1]) + whole[position:][1:]):
        (tmp_path / "k.npz").write_bytes(damaged)
        found = cached(tmp_path, "k", compute)
        assert all((found[k] == ARRAYS[k]).all() for k in ARRAYS)
    assert len(calls) >= 2


def test_a_directory_that_cannot_be_written(tmp_path, count):
    compute, calls = count
    (tmp_path / "file").write_text("")
    for _ in range(2):
        assert (cached(tmp_path / "file" / "cache", "k", compute)["x"] == ARRAYS["x"]).all()
    assert len(calls) == 2


def test_an_error_is_not_kept(tmp_path):
    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cached(tmp_path, "k", fail)
    assert not list(tmp_path.iterdir())


def test_fingerprints_differ_where_anything_differs():
    x = np.arange(6, dtype=np.int32)
    parts = [
        (x,),
        (x.astype(np.int64),),
        (x.reshape(2, 3),),
        (x.reshape(3, 2),),
        (x[::-1],),
        (x, None),
        (None, x),
        ("ab", "c"),
        ("a", "bc"),
        (1,),
        ("1",),
        (1.0,),
    ]
    assert len({fingerprint(*p) for p in parts}) == len(parts)
    assert fingerprint(x, "a") == fingerprint(x.copy(), "a")
