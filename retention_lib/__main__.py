"""The command line: `python -m retention_lib` (also installed as `retention`)."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import typing
from contextlib import nullcontext

from retention_lib import config as configs
from retention_lib import paths

EPILOG = """\
examples:
  retention reproduce --profile smoke          every notebook on a few dozen images
  retention capture --profile phantom          the runs of a profile, nothing else
  retention capture --datasets folder:my_images --archs vit_tiny_patch16_224 --seeds 0 1 \\
                    --set input_size=128 epochs=10
  retention status --profile real              which runs exist, and how far they are

environment:
  RETENTION_DATA   folder with octdl/, CUB_200_2011/ and weights/*.safetensors  (default: data/)
  RETENTION_HOME   folder for runs/, cache/, results/ and figures/     (default: the repository)
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status, 2 for a request that cannot be met."""
    args = build_parser().parse_args(argv)
    try:
        return args.run(args) or 0
    except (ValueError, OSError, FloatingPointError, RuntimeError) as error:
        if args.debug:
            raise
        print(f"retention {args.command}: {error}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """All commands and their help."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="retention",
        description="Which training samples does a fine-tuned classifier forget, and is that real?",
        epilog=EPILOG,
        formatter_class=raw,
    )
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def add(name: str, run, text: str, **kwargs) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, **kwargs)
        command.set_defaults(run=run)
        return command

    capture = add(
        "capture",
        _capture,
        "Train the runs of a study and record every sample at every epoch. Runs that exist are "
        "found, interrupted ones go on from their last checkpoint.",
        epilog="settings for --set (name=default):\n" + _settings_help(),
        formatter_class=raw,
    )
    _add_study(capture)
    capture.add_argument("--device", help="cpu, cuda or cuda:1 (default: cuda where there is one)")

    capture.add_argument("--workers", type=int, default=1, help="runs at a time (default: 1)")

    status = add("status", _status, "List the runs of a study: at which epoch, where, which key.")
    _add_study(status)

    reproduce = add("reproduce", _reproduce, "Execute the notebooks in order and update README.md.")
    reproduce.add_argument("--profile", default="phantom", choices=list(configs.PROFILES))
    reproduce.add_argument("--only", nargs="+", metavar="NN", help="numbers of notebooks, like 01")

    report = add("report", _report, "Print the results table and render it into README.md.")
    report.add_argument("--check", action="store_true", help="only say whether README.md is true")

    add("pretrain", None, "Make the weights of the phantom-size networks.", add_help=False)
    return parser


def _add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", choices=list(configs.PROFILES), help="start from a profile")
    parser.add_argument("--datasets", nargs="+", help="octdl, cub, phantom_*, folder:PATH")
    parser.add_argument("--archs", nargs="+", help="timm model names, or phantom-size networks")
    parser.add_argument("--seeds", nargs="+", type=int, help="one run for each")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="run settings")


def _settings_help() -> str:
    hidden = ("dataset", "arch", "seed")
    fields = [f for f in dataclasses.fields(configs.RunConfig) if f.name not in hidden]
    return "\n".join(f"  {f.name}={f.default}" for f in fields)


def parse_settings(pairs: list[str]) -> dict:
    """Turn `name=value` words into RunConfig fields of the right type."""
    hints = typing.get_type_hints(configs.RunConfig)
    fields = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"--set needs NAME=VALUE, got {pair!r}")
        configs.check_names([name], list(hints), "--set")
        kinds = typing.get_args(hints[name]) or (hints[name],)
        fields[name] = _parse(name, text, kinds)
    return fields


def _parse(name: str, text: str, kinds: tuple):
    if text == "None" and type(None) in kinds:
        return None
    if bool in kinds:
        if text not in ("True", "False"):
            raise ValueError(f"--set {name} must be True or False, got {text!r}")
        return text == "True"
    try:
        return kinds[0](text)
    except ValueError:
        raise ValueError(f"--set {name} must be {kinds[0].__name__}, got {text!r}") from None


def study_from(args: argparse.Namespace) -> configs.Study:
    """The study that a command's options describe."""
    changes = {
        name: tuple(getattr(args, name))
        for name in ("datasets", "archs", "seeds")
        if getattr(args, name)
    }
    changes["base"] = parse_settings(args.set)
    if args.profile:
        return configs.profile(args.profile).study.replace(**changes)
    missing = [f"--{name}" for name in ("datasets", "archs") if name not in changes]
    if missing:
        raise ValueError(f"name a --profile, or {' and '.join(missing)}")
    return configs.Study(**{"seeds": (0,), **changes})


def _capture(args) -> None:
    import torch

    from retention_lib import study

    device = torch.device(args.device) if args.device else None
    configs = study_from(args).configs()
    with _epoch_bar(configs) as bar:
        log, on_epoch = (bar.write, _advance(bar)) if bar else (study.print_flushed, None)
        folders = study.capture_or_load(configs, device, log, on_epoch, args.workers)
    print(*folders, sep="\n")


def _epoch_bar(configs):
    """A bar over all epochs in a terminal, nothing where lines go to a file."""
    if not sys.stderr.isatty():
        return nullcontext()
    from tqdm import tqdm

    return tqdm(total=sum(c.epochs + 1 for c in configs), unit="epoch", smoothing=0.1)


def _advance(bar):
    def on_epoch(row):
        bar.set_postfix(train=f"{row['train_accuracy']:.1%}", held_out=f"{row['val_accuracy']:.1%}")
        bar.update()

    return on_epoch


def _status(args) -> None:
    from retention_lib import study

    print(study.status(study_from(args).configs()).to_string(index=False))


def _reproduce(args) -> None:
    from retention_lib import reproduce

    reproduce.run_notebooks(args.profile, paths.home() / "build" / args.profile, only=args.only)


def _report(args) -> int:
    from retention_lib import results_table

    readme = paths.ROOT / "README.md"
    before = readme.read_text()
    results_table.update_readme(readme)
    after = readme.read_text()
    if args.check:
        readme.write_text(before)
        print(
            "README.md is " + ("true" if before == after else "out of date: run retention report")
        )
        return int(before != after)
    print(results_table.to_markdown(results_table.summary_table(paths.home() / "figures")))
    return 0


def entry() -> None:
    """Console script: `pretrain` has options of its own, all else is parsed here."""
    if sys.argv[1:2] == ["pretrain"]:
        from retention_lib import pretrain

        sys.exit(pretrain.main(sys.argv[2:]))
    sys.exit(main())


if __name__ == "__main__":
    entry()
