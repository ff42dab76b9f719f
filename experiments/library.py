"""A library of trained models: keep them in one folder, ask which fits a new data set, reuse the best.

    python -m experiments.library create DIR [--shape 28 28 1]
    python -m experiments.library add    DIR NAME --run runs/quickstart [--sample 0]
    python -m experiments.library add    DIR NAME --config configs/quickstart.py [--workdir DIR] [--field.sub value]
    python -m experiments.library list | verify DIR
    python -m experiments.library show | verify | remove DIR NAME
    python -m experiments.library rank   DIR --target.name digits --target.classes 5 6 7 8 9 --target.limit 200 [--top 5]
    python -m experiments.library reuse  DIR NAME --target.name … [--workdir DIR] [--field.sub value]
    python -m experiments.library demo   DIR

An entry is a network and sketches of the rows it was trained for: sums of random features, from which distances and tests can
be had, and no row. Several people can use one folder at once.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import tyro

from experiments import config as configs
from experiments import phases, workdir
from experiments.collection import adding, demonstration, entries, ranked, reusing, settings, store
from experiments.config import Config, Data
from experiments.errors import reported
from experiments.report import library as report
from experiments.report import page


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with reported():
        argv = sys.argv[1:] if argv is None else list(argv)
        parser = argparse.ArgumentParser(
            prog="python -m experiments.library",
            description=__doc__,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("verb", choices=tuple(VERBS))
        parser.add_argument("library", type=Path, metavar="DIR", help="the library's folder")
        if not argv or argv[0] in ("-h", "--help") or argv[0] not in VERBS:
            parser.parse_args(argv[:1])
        known, others = parser.parse_known_args(argv[:2])
        VERBS[known.verb](known.library, argv[2:] + others)


def create(library: Path, argv: Sequence[str]) -> None:
    """An empty library."""
    parser = _parser("create DIR")
    parser.add_argument(
        "--shape", type=int, nargs="+", required=True, help="HEIGHT WIDTH CHANNELS, or the length of a row"
    )
    parser.add_argument("--scale", type=float, help="σ of the kernel on inputs (images: of pixels / 255)")
    parser.add_argument("--seed", type=int, default=0, help="of the random features")
    known = parser.parse_args(argv)
    format = settings.format_for(known.shape, scale=known.scale)._replace(seed=known.seed)
    print(f"{library}: {settings.describe(settings.create(library, format))}")


def add(library: Path, argv: Sequence[str]) -> None:
    """An entry, from a run or from a config."""
    # The help of a config lists its fields.
    parser = _parser("add DIR NAME", add_help=not any(arg.startswith("--config") for arg in argv))
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--run", type=Path, help="the work directory of a finished run")
    parser.add_argument("--config", type=Path, help="a config, whose source is what the network was trained on")
    parser.add_argument(
        "--sample", type=int, default=0, help="keep so many raw held-out rows too; none is kept unasked"
    )
    known, others = parser.parse_known_args(argv)
    if (known.run is None) == (known.config is None):
        raise ValueError("add takes --run DIR (a finished run) or --config FILE (weights and data), one of the two")
    is_new = not (library / settings.FILE).exists()
    if known.run is not None:
        own = _parser("add DIR NAME --run RUN")
        own.add_argument("--data-dir")
        data_dir = own.parse_args(others).data_dir
        format = adding.from_run(library, known.name, known.run, data_dir=data_dir, sample=known.sample)
    else:
        config, directory = configs.load(["--config", str(known.config), *others], suffix="_for_library")
        format = adding.from_config(library, known.name, config, directory, sample=known.sample)
    if is_new:
        print(f"{library} is a new library: {settings.describe(format)}")
    print(f"added {known.name}: {line_of(entries.read_about(library / known.name))}")


def list_entries(library: Path, argv: Sequence[str]) -> None:
    """Every entry in a line."""
    _parser("list DIR").parse_args(argv)
    format, names = settings.read(library), store.names(library)
    print(f"{library}: {len(names)} entries of {settings.describe(format)}")
    for name in names:
        try:
            print(f"  {name:<20} {line_of(entries.read_about(library / name))}")
        except (ValueError, KeyError, OSError) as error:
            print(f"  {name:<20} can't be read: {error}")


def line_of(about: dict[str, Any]) -> str:
    """An entry in a line."""
    classes = ", ".join(map(str, about["classes"][:6])) + (", …" if len(about["classes"]) > 6 else "")
    network = about["config"]["model"]["name"]
    return (
        f"{network}, {about['parameters']:,} parameters; {about['trained_for']['name']} ({classes}); right on "
        f"{100 * about['metrics']['accuracy']:.1f} % of {about['metrics']['num_test']} held-out rows"
    )


def show(library: Path, argv: Sequence[str]) -> None:
    """One entry in full."""
    settings.read(library)
    folder = store.path_of(library, _name("show", argv))
    about = entries.read_about(folder)
    size = sum((folder / name).stat().st_size for name in store.files_of(folder))
    print(f"{folder.name}: {line_of(about)}")
    for name in (
        "from",
        "input",
        "rows",
        "adapted",
        "flops_per_row",
        "trained_for",
        "pretrained_on",
        "metrics",
        "versions",
    ):
        print(f"  {name:<14} {_said(about[name])}")
    layers = ", ".join(f"{layer} ({found['width']})" for layer, found in about["layers"].items())
    print(f"  {'layers':<14} {layers}\n  {'on disk':<14} {size / 1e6:.2f} MB")


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(inner)}" for name, inner in value.items() if inner not in (None, [], "", {}))
    return f"{value:g}" if isinstance(value, float) else str(value)


def verify(library: Path, argv: Sequence[str]) -> None:
    """Reads every byte of an entry, or of all."""
    parser = _parser("verify DIR [NAME]")
    parser.add_argument("name", metavar="NAME", nargs="?")
    known = parser.parse_args(argv)
    settings.read(library)
    names = store.names(library) if known.name is None else [store.path_of(library, known.name).name]
    wrong = {name: found for name in names if (found := store.problems(library / name))}
    for name in names:
        print(f"{name:<20} {'; '.join(wrong.get(name, ['as it was added']))}")
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(names)} entries are damaged: {', '.join(wrong)}; remove them and add them again"
        )


def remove(library: Path, argv: Sequence[str]) -> None:
    """Takes an entry away."""
    settings.read(library)
    name = _name("remove", argv)
    store.remove(library, name)
    print(f"removed {name} from {library}")


def rank(library: Path, argv: Sequence[str]) -> None:
    """Which entries fit a target."""
    parser = _parser("rank DIR", add_help=False)
    parser.add_argument("--out", type=Path, help="folder for ranking.json and its picture")
    known, others = parser.parse_known_args(argv)
    _need_target(others)
    configs.check_flags(others, ranked.Wanted())
    wanted = tyro.cli(
        ranked.Wanted,
        args=others,
        prog="python -m experiments.library rank DIR [--out DIR]",
        config=(tyro.conf.FlagConversionOff,),
    )
    if wanted.top < 1 or not 0 < wanted.alpha < 0.5:
        raise ValueError(
            f"top = {wanted.top}, alpha = {wanted.alpha}; expected 1 or more, and a level above 0, below 0.5"
        )
    found = ranked.ranking(library, wanted)
    out = known.out or Path("runs") / f"rank_{_as_file(wanted.target.name)}"
    command = shlex.join(["python", "-m", "experiments.library", "rank", str(library), *argv])
    workdir.write_json(out / "ranking.json", {**found, "command": command})
    for name, content in report.figures(found).items():
        workdir.write_bytes(out / name, content)
    print(f"{report.text(found)}\nPicture: {out / 'ranking.png'}")


def reuse(library: Path, argv: Sequence[str]) -> None:
    """The main job with an entry in the place of source and weights."""
    parser = _parser("reuse DIR NAME", add_help=not argv or argv[0].startswith("-"))
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--workdir", type=Path)
    known, others = parser.parse_known_args(argv)
    settings.read(library)
    _need_target(others)
    if any(flag.startswith("--source") for flag in others):
        raise ValueError("an entry is reused without its source's rows, of which it has sketches; leave --source out")
    config = reusing.config_for(library, known.name, Data())
    configs.check_flags(others, config)
    config = tyro.cli(
        Config,
        args=others,
        default=config,
        prog="python -m experiments.library reuse DIR NAME [--workdir DIR]",
        config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
    )
    directory = known.workdir or Path("runs") / f"{known.name}_for_{_as_file(config.target.name)}"
    command = shlex.join(["python", "-m", "experiments.library", "reuse", str(library), *argv])
    if not (directory / "result.json").exists():
        reusing.run(config, library, known.name, directory, command)
    else:
        phases.open_workdir(config, directory)
    if not (directory / "result.json").exists():  # --until plan
        return
    if not (directory / "report.html").exists():
        page.write(directory)
    print(f"{page.answer(directory)}\nReport: {directory / 'report.html'}")


def demo(library: Path, argv: Sequence[str]) -> None:
    """Eight small models of embedded digits, ranked for a new target, the best of them reused."""
    _parser("demo DIR").parse_args(argv)
    folder = library.with_name(f"{library.name}_work")
    # The models are of one shape: what is compiled for the first serves the others.
    jax.config.update("jax_compilation_cache_dir", str((folder / "compiled").absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    start = time.monotonic()
    target = demonstration.build(library, folder)
    list_entries(library, [])
    flags = ["--target.name", target.name, "--target.limit", str(target.limit)]
    how = ["--decision.regime", "finetune_all", "--decision.pretrained-rate", "1", "--train.learning-rates", "0.003"]
    print(f"\n$ python -m experiments.library rank {library} {' '.join(flags)}")
    rank(library, [*flags, "--top", "8", "--out", str(folder / "rank")])
    best = workdir.read_json(folder / "rank" / "ranking.json")["advice"]["best"]
    if best is not None:
        print(f"\n$ python -m experiments.library reuse {library} {best} {' '.join([*flags, *how])}")
        reuse(library, [best, *flags, *how, "--workdir", str(folder / "reused")])
    print(f"{time.monotonic() - start:.0f} s in all")


def _need_target(flags: Sequence[str]) -> None:
    if not {"-h", "--help"} & set(flags) and not any(flag.split("=")[0] == "--target.name" for flag in flags):
        raise ValueError(
            "--target.name is missing; name the new data, for example --target.name digits --target.classes 5 6 7 8 9"
        )


def _as_file(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)


def _parser(usage: str, *, add_help: bool = True) -> argparse.ArgumentParser:
    """Where --help is not this parser's, it is left to the one that knows the fields."""
    return argparse.ArgumentParser(prog=f"python -m experiments.library {usage}", allow_abbrev=False, add_help=add_help)


def _name(verb: str, argv: Sequence[str]) -> str:
    parser = _parser(f"{verb} DIR NAME")
    parser.add_argument("name", metavar="NAME")
    return parser.parse_args(argv).name


VERBS: dict[str, Callable[[Path, Sequence[str]], None]] = {
    "create": create,
    "add": add,
    "list": list_entries,
    "show": show,
    "verify": verify,
    "remove": remove,
    "rank": rank,
    "reuse": reuse,
    "demo": demo,
}


if __name__ == "__main__":
    main()
