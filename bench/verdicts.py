"""What was measured against what it must be: the lines of the table of bench/targets.py."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from bench.contest import HEADS, cells, markdown
from bench.tools import Load


class Bound(NamedTuple):
    """What a figure has to be, at least or at most."""

    number: float
    most: bool = False
    """Whether it is an upper bound."""
    unit: str = ""

    def __str__(self) -> str:
        sign = "+" if self.unit == "ms" else ""
        return f"{'≤' if self.most else '≥'} {self.number:{sign}g} {self.unit}".rstrip()

    def met(self, figure: float) -> bool:
        return figure <= self.number if self.most else figure >= self.number


class Verdict(NamedTuple):
    """One line: ours beside one peer's, or beside a bound alone."""

    workload: str
    peer: str
    """"" where there is none."""
    ours: str
    theirs: str
    figures: Sequence[float]
    """What the bounds are about, once for each round; empty where it was not measured."""
    must: Bound | None = None
    aim: Bound | None = None
    form: str = "{:.2f}"
    """How a figure is written."""

    @property
    def figure(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.figures)

    @property
    def missed(self) -> bool:
        """Whether it was measured, and is not what it must be."""
        return bool(self.figures) and self.must is not None and not self.must.met(self.figure)

    def told(self) -> str:
        """The figure, with the lowest and the highest of the rounds."""
        if not self.figures:
            return ""
        middle, low, high = (
            self.form.format(figure)
            for figure in (self.figure, min(self.figures), max(self.figures))
        )
        return middle if len(self.figures) == 1 else f"{middle} ({low} to {high})"

    def judged(self) -> str:
        """Which of the bounds are met."""
        if not self.figures:
            return "not measured"
        if self.missed:
            return "**missed**"
        aimed = self.aim is not None and self.aim.met(self.figure)
        if self.must is None:
            return "" if self.aim is None else "aim" if aimed else "aim missed"
        return "must and aim" if aimed else "must"


def unmeasured(workload: str, peer: str, must: Bound | None, aim: Bound | None) -> Verdict:
    """The line of a peer that is not there."""
    return Verdict(workload, peer, "", "", (), must, aim)


def table(verdicts: Sequence[Verdict]) -> str:
    """The lines as Markdown."""
    rows = [
        [
            line.workload,
            line.peer,
            line.ours,
            line.theirs,
            line.told(),
            str(line.must or ""),
            str(line.aim or ""),
            line.judged(),
        ]
        for line in verdicts
    ]
    heads = ["workload", "peer", "Sluicegate", "peer's", "ratio (lowest to highest)"]
    return markdown([*heads, "must", "aim", "met"], rows)


class Spread(NamedTuple):
    """One contestant of one workload, round by round."""

    workload: str
    title: str
    loads: Sequence[Load]
    cpu: Sequence[float]
    """µs of CPU per request."""


def spreads(seen: Sequence[Spread]) -> str:
    """How far the rounds of each contestant lie apart, as Markdown."""
    rows = []
    for one in seen:
        rates = [load.per_second for load in one.loads]
        apart = (max(rates) - min(rates)) / statistics.median(rates)
        cpu = f"{statistics.median(one.cpu):.1f}"
        rows.append([one.workload, one.title, *cells(one.loads), f"{apart:.0%}", cpu])
    heads = ["workload", "contestant", *HEADS, "apart", "µs CPU"]
    return markdown(heads, rows)
