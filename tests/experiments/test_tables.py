"""CSV and Parquet tables as sources: what is read, the one fitted map, and every bad input."""

import gzip
import json
import zipfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from experiments import phases, predict, sources, workdir
from experiments.config import Config, Data
from experiments.datasets import table_map
from experiments.datasets.table import condition
from experiments.datasets.table_map import Category, Frame, Number, TableMap
from tests.experiments import tables

KEYS = {"label_key": "delay", "label_above": 15, "drop": ("tail",)}


def load(path, *, table=None, seed=0, kind="csv", **fields):
    data = Data(f"{kind}:{path}", **{**KEYS, **fields})
    return sources.load(data, seed=seed, data_dir="nowhere", table=table)


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    return tables.write(tmp_path_factory.mktemp("tables") / "flights.csv", tables.columns(0, 600))


def test_rows_are_what_the_map_says(csv):
    # Against a reading by hand, line by line.
    data = load(csv)
    lines = [line.split(",") for line in csv.read_text().splitlines()]
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    train = [rows[i] for i in data.train_rows]
    assert data.class_names == ("delay ≤ 15", "delay > 15")
    assert data.train_y.tolist() == [int(float(row["delay"]) > 15) for row in train]
    assert sorted([*data.train_rows, *data.test_rows]) == list(range(600))

    names = [column.name for column in data.table.numbers]
    assert names == ["distance", "seats", "day"] and [c.flag for c in data.table.numbers] == [False, True, False]
    assert [category.name for category in data.table.categories] == ["carrier", "origin"]
    for place, name in enumerate(names):
        values = np.array([float(row[name]) if row[name] else np.nan for row in train])
        expected = np.nan_to_num((values - np.nanmean(values)) / np.nanstd(values))
        np.testing.assert_allclose(data.train_x[:, place], expected, atol=1e-5)
    assert data.train_x[:, 3].tolist() == [float(row["seats"] == "") for row in train]
    counts = Counter(None if row["carrier"] == "NA" else row["carrier"] for row in train)
    assert [counts[value] for value in data.table.categories[0].values] == sorted(counts.values(), reverse=True)
    codes = [data.table.categories[0].values.index(None if r["carrier"] == "NA" else r["carrier"]) for r in train]
    assert data.train_x[:, 4].tolist() == codes


def test_parquet_zip_and_gzip_read_the_same(csv, tmp_path):
    found = tables.columns(0, 600)
    typed = {
        "delay": [int(v) for v in found["delay"]],
        "distance": [float(v) for v in found["distance"]],
        "seats": [int(v) if v else None for v in found["seats"]],
        "carrier": pa.array([None if v == "NA" else v for v in found["carrier"]]).dictionary_encode(),
        "origin": found["origin"],
        "day": [int(v) for v in found["day"]],
        "tail": found["tail"],
    }
    pyarrow.parquet.write_table(pa.table(typed), tmp_path / "t.parquet", row_group_size=100)
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as zipped:
        zipped.write(csv, "inside.csv")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(csv.read_bytes()))
    one = load(csv)
    for name, kind in (("t.parquet", "parquet"), ("t.csv.zip", "csv"), ("t.csv.gz", "csv")):
        other = load(tmp_path / name, kind=kind)
        assert other.table == one.table
        for field in ("train_x", "train_y", "test_x", "train_rows"):
            np.testing.assert_array_equal(getattr(other, field), getattr(one, field))


def test_nan_is_missing_in_parquet_as_null_is(tmp_path):
    # A float column may hold NaN where another writer says null; neither is a class, a group or a category.
    found = tables.columns(0, 200)
    floats = {
        name: np.array([float(v or "nan") for v in found[name]]) for name in ("delay", "distance", "seats", "day")
    }
    floats["delay"][:30] = np.nan
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pa.table(floats), path)
    for fields in ({}, {"label_above": None}):
        data = load(path, kind="parquet", drop=(), categorical=("seats",), numeric=("distance",), **fields)
        assert sorted([*data.train_rows, *data.test_rows]) == list(range(30, 200))
        assert "30 rows of t.parquet without delay" in data.note and "nan" not in data.class_names
        [seats] = data.table.categories
        assert "nan" not in seats.values and None in seats.values
    floats["day"][50] = np.nan
    pyarrow.parquet.write_table(pa.table(floats), path)
    assert "1 rows of" in refusal(path, kind="parquet", drop=(), group_key="day")


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.large_string())])
def test_text_is_read_the_same_however_it_is_stored(csv, tmp_path, kind):
    found = tables.columns(0, 600)
    found["carrier"] = [f" {value} " for value in found["carrier"]]
    columns = {name: pa.array(values) for name, values in found.items()}
    for name in ("carrier", "seats", "delay"):  # names, numbers with gaps, the label
        decoded = kind.value_type if pa.types.is_dictionary(kind) else kind
        columns[name] = columns[name].cast(decoded)
        columns[name] = columns[name].dictionary_encode() if decoded is not kind else columns[name]
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    one, other = load(csv), load(tmp_path / "t.parquet", kind="parquet")
    assert other.table == one.table
    np.testing.assert_array_equal(other.train_x, one.train_x)
    np.testing.assert_array_equal(other.train_y, one.train_y)


def test_one_map_for_source_and_target(csv, tmp_path):
    found = tables.columns(1, 300, shift=600, carriers=("AA", "ZZ"))
    found["distance"][7] = ""
    source = load(csv)
    target = load(tables.write(tmp_path / "b.csv", found), table=source.table)
    assert target.table is source.table
    # The source's scale: two of its standard deviations further on.
    assert 1.5 < target.train_x[:, 0].mean() < 2.5
    new = np.array([found["carrier"][i] == "ZZ" for i in target.train_rows])
    assert (target.train_x[new, 4] == len(source.table.categories[0].values)).all()
    assert "of the values of carrier are “other”" in target.note and "of distance are missing" in target.note
    both, _, note = sources.common_format(source, target)
    assert both is source and "other" in note


def test_rows_of_one_file_know_each_other(csv):
    # Conditions choose rows; rows and groups keep their numbers in the file.
    newark = load(csv, where=("origin=EWR",), group_key="day")
    kennedy = load(csv, where=("origin=JFK",), group_key="day", table=newark.table)
    assert newark.origins == kennedy.origins
    rows = [{*d.train_rows.tolist(), *d.test_rows.tolist()} for d in (newark, kennedy)]
    assert not rows[0] & rows[1] and len(rows[0] | rows[1]) == 600
    assert "origin" not in newark.table.columns  # what the condition fixes is no feature
    # The same days are held out at both, so that no day is in the source's test rows and in the target's training rows.
    assert {*newark.test_groups.tolist()} == {*kennedy.test_groups.tolist()}
    assert not {*newark.test_groups.tolist()} & {*kennedy.train_groups.tolist()}


def test_groups_that_two_files_hold_out_differently_are_said(csv, tmp_path, capsys):
    # One day is missing in the second file, so the numbers of its days, and what is held out, are others.
    found = tables.columns(1, 600)
    kept = [i for i, day in enumerate(found["day"]) if day != "7"]
    other = tables.write(tmp_path / "b.csv", {name: [v[i] for i in kept] for name, v in found.items()})
    source = Data(f"csv:{csv}", **KEYS, group_key="day", test_fraction=0.5)
    data = phases.load(Config("two", source, replace(source, name=f"csv:{other}")))
    days, names = tables.columns(0, 600)["day"], {name: [v[i] for i in kept] for name, v in found.items()}["day"]
    met = {days[i] for i in data.source.train_rows} & {names[i] for i in data.target.test_rows}
    assert met and f"warning: {len(met)} groups (day) that the target is tested on" in capsys.readouterr().err
    assert f"{len(met)} groups (day)" in data.note
    # Of one file the same days are held out.
    phases.load(Config("one", replace(source, where=("origin=EWR",)), replace(source, where=("origin=JFK",))))
    assert "groups (day)" not in capsys.readouterr().err


def test_several_columns_name_a_group(csv):
    data = load(csv, group_key="day,origin")
    found = tables.columns(0, 600)
    names = {}
    for row, group in zip([*data.train_rows, *data.test_rows], [*data.train_groups, *data.test_groups]):
        names.setdefault(int(group), set()).add((found["day"][row], found["origin"][row]))
    assert len(names) == 40 and all(len(each) == 1 for each in names.values())


@pytest.mark.parametrize(
    "where, keep",
    [
        ("distance>1000", lambda r: float(r["distance"]) > 1000),
        ("day <= 3", lambda r: int(r["day"]) <= 3),
        ("day=3.0", lambda r: r["day"] == "3"),
        ("day!=3", lambda r: r["day"] != "3"),
        ("carrier!=AA", lambda r: r["carrier"] not in ("AA", "NA")),
    ],
)
def test_conditions(csv, where, keep):
    data = load(csv, where=(where,))
    found = tables.columns(0, 600)
    rows = [dict(zip(found, row)) for row in zip(*found.values())]
    assert sorted([*data.train_rows, *data.test_rows]) == [i for i, row in enumerate(rows) if keep(row)]


def test_conditions_as_they_are_written():
    assert condition("a>=b=c") == ("a", ">=", "b=c") and condition(" x = 1 ") == ("x", "=", "1")
    with pytest.raises(ValueError, match="where = 'origin'; expected COLUMN"):
        condition("origin")


def test_rows_without_a_label_are_left_out(csv, tmp_path):
    found = tables.columns(0, 600)
    found["delay"][:40] = ["NA"] * 40
    data = load(tables.write(tmp_path / "a.csv", found))
    assert len(data.train_y) + len(data.test_y) == 560 and min(*data.train_rows, *data.test_rows) == 40
    assert "40 rows of a.csv without delay were left out." in data.note


def test_classes_by_name_and_by_number(csv):
    assert load(csv, label_key="origin", label_above=None).class_names == ("EWR", "JFK")
    assert load(csv, label_key="day", label_above=None).class_names == tuple(str(i) for i in range(1, 21))


def test_rare_values_share_a_code(csv):
    [category] = [c for c in load(csv, max_categories=2).table.categories if c.name == "carrier"]
    assert len(category.values) == 2
    data = load(csv, max_categories=2)
    assert data.train_x[:, 4].max() == 2 and data.table.sizes == (3, 3)


def test_moments_add_up():
    # Chan's sums, block by block, against numpy's on all at once; far from 0, where a naive sum of squares fails.
    random = np.random.default_rng(0)
    values = random.normal(1e6, 1.0, 1000)
    values[::7] = np.nan
    whole = table_map.tally(Frame({"x": values}, {}, 1000))
    parts = [table_map.tally(Frame({"x": part}, {}, len(part))) for part in np.split(values, [1, 10, 400])]
    total = parts[0]
    for part in parts[1:]:
        total = table_map.add(total, part)
    n, mean, squares, missing = total.numeric["x"]
    assert (n, missing) == (np.isfinite(values).sum(), np.isnan(values).sum())
    np.testing.assert_allclose([mean, np.sqrt(squares / n)], [np.nanmean(values), np.nanstd(values)], rtol=1e-9)
    np.testing.assert_allclose(squares, whole.numeric["x"][2], rtol=1e-6)


def test_the_map_survives_json(csv):
    table = load(csv).table
    assert table_map.from_json(json.loads(json.dumps(workdir.plain(table)))) == table
    with pytest.raises(ValueError, match="can't be read"):
        table_map.from_json({"numbers": [{"name": "x"}], "categories": []})


def test_a_number_with_one_value_and_gaps_is_kept_unscaled():
    frame = Frame({"x": np.array([5.0, np.nan, 5.0])}, {}, 3)
    table = table_map.fit(table_map.tally(frame), max_categories=3, where="t")
    assert table == TableMap((Number("x", 5.0, 1.0, True),), ())
    assert table_map.apply(table, frame).tolist() == [[0, 0], [0, 1], [0, 0]]


def test_an_empty_category_column_of_a_block_maps_to_other():
    table = TableMap((), (Category("c", ("a", "b")),))
    assert table_map.apply(table, Frame({}, {"c": (np.array([-1, -1]), [])}, 2)).tolist() == [[2], [2]]


def refusal(path, found=None, **fields):
    if found is not None:
        tables.write(path, found)
    with pytest.raises(ValueError) as error:
        load(path, **fields)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"label_key": "late"}, "label_key: {} has no column 'late'; it has delay, distance, seats"),
        ({"group_key": "week"}, "group_key: {} has no column 'week'"),
        ({"where": ("town=EWR",)}, "where: {} has no column 'town'"),
        ({"categorical": ("color",)}, "categorical: {} has no column 'color'"),
        ({"numeric": ("nothing",)}, "numeric: {} has no column 'nothing'"),
        ({"drop": ("nothing",)}, "drop: {} has no column 'nothing'"),
        ({"numeric": ("seats",), "categorical": ("seats",)}, "column 'seats' of csv:{} has two roles"),
        ({"numeric": ("delay",)}, "column 'delay' of csv:{} has two roles"),
        ({"numeric": ("carrier",)}, "column 'carrier' of {} holds "),
        ({"where": ("origin=LGA",)}, "no row of {} fulfils origin=LGA"),
        ({"where": ("origin<JFK",)}, "holds text, which < does not order"),
        ({"label_key": "carrier"}, "the target column 'carrier' of {} holds "),
    ],
)
def test_settings_that_do_not_fit(csv, fields, expected):
    assert expected.format(csv) in refusal(csv, **fields)


def test_bad_columns(tmp_path):
    path, good = tmp_path / "t.csv", tables.columns(0, 50)
    same = {**good, "year": ["2013"] * 50, "none": [""] * 50, "state": ["NY"] * 50}
    assert "no value at all in column 'none'" in refusal(path, same)
    assert "one value only in column 'year', 'state' of the 38 training rows" in refusal(
        path, {**same, "none": good["day"]}
    )
    mixed = {**good, "seats": ["many", *good["seats"][1:]]}
    message = refusal(path, mixed)
    assert "column 'seats' of" in message and "mixes numbers (" in message and "other values ('many')" in message
    tables.write(path, mixed)  # both are names: then it is right
    assert "seats" in [c.name for c in load(path, numeric=("distance",), categorical=("seats",)).table.categories]
    assert "holds 'many', which is no number" in refusal(path, numeric=("seats",))
    assert "holds an infinite number" in refusal(path, {**good, "distance": ["1e999", *good["distance"][1:]]})


def test_bad_labels_and_groups(tmp_path):
    path, good = tmp_path / "t.csv", tables.columns(0, 50)
    assert "has a value in its target column 'delay'" in refusal(path, {**good, "delay": ["NA"] * 50})
    assert "a single class, 'delay ≤ 15'" in refusal(path, {**good, "delay": ["3"] * 50})
    assert "mixes numbers ('1') and other values ('late')" in refusal(
        path, {**good, "delay": ["1", "late"] * 25}, label_above=None
    )
    big = tables.columns(0, 1500)
    assert "1500 different values, too many to be classes" in refusal(
        path, big, label_key="tail", label_above=None, drop=()
    )
    big["delay"] = [str(i / 7) for i in range(1500)]
    assert "give label_above" in refusal(path, big, label_above=None)
    assert "1 rows of" in refusal(path, {**good, "day": ["", *good["day"][1:]]}, group_key="day")


def test_a_target_that_lacks_a_source_column(csv, tmp_path):
    table, found = load(csv).table, tables.columns(1, 50)
    del found["seats"], found["carrier"]
    message = refusal(tmp_path / "t.csv", found, table=table)
    assert "lacks the column 'seats', 'carrier', which the network was trained with; it has delay, distance" in message
    assert "leave them empty" in refusal(tmp_path / "u.csv", tables.columns(1, 50), table=table, numeric=("seats",))


def test_bad_files(tmp_path):
    path, good = tmp_path / "t.csv", tables.columns(0, 50)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load(tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match=r"experiments\.download --data-dir nowhere flights"):
        load("raw/flights/t.csv")
    path.write_text("")
    assert "is empty" in refusal(path)
    path.write_text("delay,distance,tail\n")
    assert "has a header, but no rows" in refusal(path)
    path.write_text("delay,distance,distance,tail\n1,2,3,4\n")
    assert "several columns named 'distance'" in refusal(path)
    path.write_text("delay,distance,tail\n1,2,a\n1\n")
    assert "can't be read as a table: CSV parse error: Expected 3 columns, got 1" in refusal(path)
    tables.write(path, {**good, "carrier": ["Iberia España", *good["carrier"][1:]]}, encoding="latin1")
    assert "is not UTF-8 text" in refusal(path)
    tables.write(path, {"délai": good["delay"], **good}, encoding="latin1")
    assert "is not UTF-8 text" in refusal(path)
    (tmp_path / "t.parquet").write_bytes(b"PAR1 nothing of the kind")
    assert "can't be read as a table" in refusal(tmp_path / "t.parquet", kind="parquet")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as zipped:
        zipped.writestr("a.csv", "a\n1\n")
        zipped.writestr("b.csv", "a\n1\n")
    assert "holds 2 files (a.csv, b.csv); expected one" in refusal(tmp_path / "two.zip")
    (tmp_path / "bad.zip").write_bytes(b"not a zip")
    assert "can't be read as a table" in refusal(tmp_path / "bad.zip")
    moments = pa.table({"delay": [1, 20] * 5, "when": pa.array(range(10), pa.timestamp("s")), "tail": ["a"] * 10})
    pyarrow.parquet.write_table(moments, tmp_path / "when.parquet")
    assert "column 'when'" in refusal(tmp_path / "when.parquet", kind="parquet")


def test_settings_of_tables_are_refused_elsewhere(csv):
    with pytest.raises(ValueError, match=r"where = \('a=b',\) is for tables"):
        sources.load(Data("digits", where=("a=b",)), seed=0, data_dir="nowhere")
    data = load(csv)
    with pytest.raises(ValueError, match="one of source and target is a table"):
        sources.common_format(data, data._replace(table=None))


def test_predict_reads_rows_without_labels(csv, tmp_path):
    table = load(csv).table
    found = tables.columns(2, 30)
    del found["delay"]
    tables.write(tmp_path / "new.csv", found)
    description = {"input": {"shape": [table.width], "dtype": "float32"}, "table": workdir.plain(table)}
    data = Data(f"csv:{tmp_path / 'new.csv'}", **KEYS, group_key="week")
    inputs = predict.read(data, description, split="test", seed=0, data_dir="nowhere")
    assert inputs.labels is None and inputs.names == [str(i) for i in range(30)] and inputs.x.shape == (30, table.width)
    assert inputs.x[:, 0].tolist() == [
        np.float32((float(v) - table.numbers[0].mean) / table.numbers[0].std) for v in found["distance"]
    ]
    with pytest.raises(ValueError, match="the network was trained on a table, and digits is none"):
        predict.read(replace(data, name="digits"), description, split="test", seed=0, data_dir="nowhere")
