"""Conclude from measured runs: `python -m benchmarks report out.json`."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

from benchmarks.analysis.fields import InputError
from benchmarks.analysis.report import write_report

EXIT_CODES = (
    "exit codes: 0 a report was written; 1 it was, but nothing had been measured; 2 wrong usage or input"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal without the signs for µ and ± shall show "?" rather than end the report.
        sys.stdout.reconfigure(errors="replace")
    try:
        report = write_report(options.files, options.output)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report.text, end="")
    return 0 if report.measured else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Conclude from measured runs.")
    commands = parser.add_subparsers(required=True, metavar="command")
    report = commands.add_parser(
        "report",
        help="tables, pictures, exponents and crossovers of one or more runs",
        description="Print the conclusions, and write them with their pictures and tables into a folder.",
        epilog=EXIT_CODES,
    )
    report.add_argument(
        "files", nargs="+", metavar="out.json", help="written by `pytest benchmarks --benchmark-json`"
    )
    report.add_argument("-o", "--output", default="report", metavar="DIR", help="default: %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
