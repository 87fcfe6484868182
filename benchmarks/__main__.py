"""Lists the benchmarks: python -m benchmarks."""

from __future__ import annotations

from rich.table import Table

from benchmarks.catalogue import BENCHMARKS
from benchmarks.command import parser
from pconvgen.report.console import output


def main() -> None:
    """Prints one line for each."""
    parser(__package__, __doc__).parse_args()
    table = Table("python -m", "measures", "takes about", "promises", box=None, header_style="bold")
    for row in BENCHMARKS:
        table.add_row(row.package, row.measures, row.takes, "yes" if row.promises else "")
    output().print(table)


if __name__ == "__main__":
    main()
