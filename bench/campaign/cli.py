"""`python -m dragnoise.bench campaign`: all that a machine can tell in a given time."""

from argparse import ArgumentParser, Namespace

from dragnoise.engine.cli.show import print_json
from dragnoise.engine.system.files import writable_folder

__all__ = ["add_options", "run"]


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--out", required=True, metavar="FOLDER", help="logs and records lie there")
    parser.add_argument(
        "--budget", type=float, default=480, metavar="S", help="seconds (default: %(default)s)"
    )
    parser.add_argument("--only", metavar="NAME,...", help="ask only these")
    parser.add_argument("--from", dest="first", metavar="NAME", help="begin with this one")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="everything small: are the commands well formed?"
    )


def run(parsed: Namespace) -> int:
    """Ask step after step, print what came of them and return the exit code."""
    from dragnoise.engine.system.device import choose_device

    from .run import campaign, chosen
    from .steps import Asked

    steps = chosen(parsed.only, parsed.first)
    out = writable_folder(parsed.out)
    asked = Asked(choose_device(parsed.device).type, parsed.quick, out / "records")
    outcomes = campaign(steps, asked, out, parsed.budget)
    print_json({"steps": outcomes})
    return 0 if all(outcome["rc"] == 0 for outcome in outcomes) else 1
