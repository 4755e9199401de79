"""What attacks have in common: a tally of what was tried, and the table at the end of a run.

`make test` makes a small lot of every attack; `make attack` the whole, and prints the tables of
docs/reliability.md. A test's docstring is the name of its row, its module's docstring that of its
table.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tally import Tally


@pytest.fixture
def tally(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Iterator[Tally]:
    """Return the tally of this attack; the test fails if anything went wrong."""
    counted = Tally()
    yield counted
    table, name = ((text.__doc__ or "").partition("\n")[0] for text in _texts(request))
    row = (table, name, counted.right, len(counted.wrongs), counted.remark)
    record_property("attack", row)
    assert counted.right + len(counted.wrongs) > 0, "nothing was tried"
    assert not counted.wrongs, counted.wrongs[:20]


def _texts(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return request.module, request.function


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the tables, in the form of docs/reliability.md."""
    rows = [
        row
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "teardown"
        for key, row in getattr(report, "user_properties", ())
        if key == "attack"
    ]
    for table in dict.fromkeys(row[0] for row in rows):
        terminalreporter.write_line(f"\n{table}\n")
        terminalreporter.write_line("| attack | tried | right | wrong | remark |")
        terminalreporter.write_line("|---|---|---|---|---|")
        for _, name, right, wrong, remark in sorted(row for row in rows if row[0] == table):
            terminalreporter.write_line(
                f"| {name.rstrip('.')} | {right + wrong} | {right} | {wrong} | {remark} |"
            )
