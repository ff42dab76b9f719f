from experiments import null_control
from experiments.workdir import read_json
from tests.experiments import tiny


def test_every_representation_and_all_together_are_tested_on_every_split(tmp_path, compiled_once, monkeypatch):
    monkeypatch.setattr(null_control, "BANDWIDTHS", 1)
    rows = null_control.run(tiny.config, tmp_path / "null", splits=2, rows=30)
    assert [row.representation for row in rows] == ["inputs", "fc1", "fc2", null_control.ALL]
    assert all(row.rate == row.rejections / 2 and 0 <= row.rejections <= 2 for row in rows)
    assert read_json(tmp_path / "null" / "null_control.json")["splits"] == 2
    lines = null_control.table(rows, 2).splitlines()
    assert len(lines) == 5 and lines[-1].startswith(null_control.ALL)
