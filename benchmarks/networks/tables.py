"""The tables of whole networks: as the terminal prints them and, row by row, as the page has them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from benchmarks.networks.results import DENSE, OURS, NetworkResult

ENGINE_COLUMNS = ("engine", "weights", "threads", "ms", "typical ms", "cores used", "error")
SUMMARY_COLUMNS = (
    "network",
    "weights",
    "ms",
    "best dense engine",
    "speed-up",
    "DeepSparse, as many non-zeros",
    "speed-up",
    "FMA bound ms",
    "time / bound",
    "2 threads",
    "library MB",
    "compiled in",
)
NONE = "-"


def engine_rows(result: NetworkResult) -> list[tuple[str, ...]]:
    """Every engine of a network, the fastest last."""
    rows = sorted(result.timings, key=lambda row: -row.ms)
    return [
        (
            row.engine,
            row.weights,
            str(row.threads),
            f"{row.ms:.2f}{'~' * row.noisy}",
            f"{row.typical_ms:.2f}",
            f"{row.core:.2f}",
            f"{row.error:.0e}",
        )
        for row in rows
    ]


def summary_rows(result: NetworkResult) -> list[tuple[str, ...]]:
    """pconvgen's lines of a network, against the best of the others."""
    return [_summary(result, library.weights) for library in result.libraries]


def _summary(result: NetworkResult, weights: str) -> tuple[str, ...]:
    library = next(row for row in result.libraries if row.weights == weights)
    ours, two = (result.timing(OURS, weights, threads) for threads in (1, 2))
    assert ours is not None
    dense, sparse = result.best_dense(), None if weights == DENSE else result.sparse_peer(weights)
    bound = result.bound_ms(library)
    return (
        result.title,
        weights,
        f"{ours.ms:.2f}{'~' * ours.noisy}",
        f"{dense.engine} {dense.ms:.2f}" if dense else NONE,
        f"{dense.ms / ours.ms:.2f}x" if dense else NONE,
        f"{sparse.ms:.2f}" if sparse else NONE,
        f"{sparse.ms / ours.ms:.2f}x" if sparse else NONE,
        f"{bound:.2f}",
        f"{ours.ms / bound:.2f}",
        f"{ours.ms / two.ms:.2f}x of {result.peak_gflops[2] / result.peak_gflops[1]:.2f}x" if two else NONE,
        f"{library.nbytes / 1e6:.1f}",
        f"{library.compile_s:.0f} s, {library.peak_gib:.1f} GiB",
    )


def network_table(result: NetworkResult) -> Table:
    """All engines on one network."""
    peaks = ", ".join(f"{peak:.1f} on {threads}" for threads, peak in result.peak_gflops.items())
    title = f"{result.title} at {result.size}x{result.size}; FMA peak in GFLOP/s by threads: {peaks}"
    return _table(title, ENGINE_COLUMNS, engine_rows(result))


def summary_table(results: Sequence[NetworkResult]) -> Table:
    """Our lines of all networks."""
    rows = [row for result in results for row in summary_rows(result)]
    return _table("pconvgen, one thread, batch 1; ~ the machine was busy with something else", SUMMARY_COLUMNS, rows)


def _table(title: str, columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left")
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index < 2 else "right")
    for row in rows:
        table.add_row(*row)
    return table


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of a page; the first two columns are text."""
    lines = [columns, ["---" if index < 2 else "---:" for index, _ in enumerate(columns)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
