"""The table of fitted models: how it compares them, prints, and shows itself in a notebook."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxgen.core.errors import FitError
from jaxgen.fit.loop import Status
from jaxgen.metrics.information import CRITERIA


class Candidate(NamedTuple):
    """One fitted model: a row of a `Selection`.

    Args:
        leaf: name of its kind of components.
        k: number of components, or of states.
        log_likelihood: of all data, nats.
        parameters: how many are free.
        bic, aic, icl: criteria, lower is better; NaN for a fit that failed, and icl for models that classify nothing.
        held_out: nats per event (per step of sequences) of data that the fit did not see, higher is better; or None.
        status: a `Status`: why the fit ended.
        repaired: dead or singular components in its last step. The likelihood of such a model is that of the floor of
            its variances, and comparable with nothing.
        restarts_failed: how many of the starts ended in numbers that are not finite.
        model: the `Mixture`, or what `family` made.
    """

    leaf: str
    k: int
    log_likelihood: float
    parameters: int
    bic: float
    aic: float
    icl: float
    held_out: float | None
    status: Status
    repaired: int
    restarts_failed: int
    model: Any

    @property
    def sound(self) -> bool:
        """True if the fit gave finite numbers without repairs."""
        return self.status != Status.NON_FINITE and not self.repaired and math.isfinite(self.log_likelihood)


@dataclass(frozen=True)
class Selection:
    """The result of `select`: a table that prints, also in notebooks, and knows its best rows.

    Args:
        rows: `Candidate`s, by leaf and then by k.
        events: number of events, or the sum of their weights; of sequences the number of their steps.
        held_out: what `held_out` of the rows was measured on; empty where it was not.
        seconds: of all fits, compilation included.
    """

    rows: list[Candidate]
    events: float
    held_out: str
    seconds: float

    def best(self, by: str = "bic", *, repaired: bool = False) -> Candidate:
        """Return the row with the lowest `"bic"`, `"aic"` or `"icl"`, or the highest `"held_out"`.

        Args:
            by: the criterion.
            repaired: let rows compete whose last step had to repair a component.

        Raises:
            FitError: no such criterion, held-out data that there are not, or no row that may compete.
        """
        called = f"Selection.best({by!r})"
        if by not in self._criteria():
            raise FitError("no such criterion", called=called, expected=", ".join(CRITERIA), got=repr(by),
                           fix="select with validation data or folds, for held_out")  # fmt: skip
        rows = [r for r in self.rows if r.sound or (repaired and r.status != Status.NON_FINITE)]
        rows = [r for r in rows if math.isfinite(getattr(r, by))]
        if not rows:
            raise FitError(
                "no fit may compete", called=called, expected="one that is finite and without repairs",
                got=f"{len(self.rows)} that failed or were repaired", fix="smaller ks, or let repaired ones compete",
            )  # fmt: skip
        return min(rows, key=lambda r: CRITERIA[by] * getattr(r, by))

    def as_dict(self) -> dict[str, list[Any]]:
        """Columns by name, models left out: `pandas.DataFrame(selection.as_dict())`."""
        names = [name for name in Candidate._fields if name != "model"]
        columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in self.rows] for name in names}
        return columns | {"status": [row.status.name for row in self.rows]}

    def _criteria(self) -> list[str]:
        return [by for by in CRITERIA if by != "held_out" or self.held_out]

    def _winners(self) -> list[tuple[str, Candidate]]:
        try:
            return [(by, self.best(by)) for by in self._criteria()]
        except FitError:
            return []

    def _grid(self) -> tuple[list[str], list[int], dict[tuple[str, int], Candidate]]:
        cells = {(r.leaf, r.k): r for r in self.rows}
        return list(dict.fromkeys(r.leaf for r in self.rows)), sorted({r.k for r in self.rows}), cells

    def _summary(self) -> list[str]:
        failed, repaired = (sum(map(f, self.rows)) for f in (_failed, lambda r: bool(r.repaired)))
        first = f"{len(self.rows)} models of {self.events:g} observations in {self.seconds:.1f} s"
        notes = ["x failed"] * bool(failed) + ["! components repaired: left out"] * bool(repaired)
        return [first + "".join(f"; {note}" for note in notes)]

    def _verdicts(self) -> list[str]:
        unit = {"held_out": f" nats per event, {self.held_out}, higher is better"}
        return [f"{by.replace('_', '-') if by == 'held_out' else by.upper()}: {row.leaf}, K = {row.k} "
                f"({_number(getattr(row, by), 4 if by == 'held_out' else 2)}{unit.get(by, '')})"
                for by, row in self._winners()] or ["no fit may compete"]  # fmt: skip

    def __str__(self) -> str:
        leaves, ks, cells = self._grid()
        best = dict(self._winners()).get("bic")
        lines = [["K", *leaves]]
        for k in ks:
            rows = [cells.get((leaf, k)) for leaf in leaves]
            lines.append([str(k), *(_cell(row) + ("*" if row is best and row else " ") for row in rows)])
        widths = [max(len(line[i]) for line in lines) + 2 * bool(i) for i in range(len(lines[0]))]
        head, *body = ["".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([*self._summary(), "BIC, lower is better", head, *body, "best by " + "\n        ".join(
            self._verdicts())])  # fmt: skip

    def _repr_html_(self) -> str:
        leaves, ks, cells = self._grid()
        best = dict(self._winners()).get("bic")
        values = [r.bic for r in self.rows if r.sound]
        low, high = (min(values), max(values)) if values else (0.0, 0.0)

        def cell(row: Candidate | None) -> str:
            shade = 0.0
            if row is not None and row.sound and high > low:
                shade = 0.32 * ((row.bic - low) / (high - low)) ** 4  # differences near the top are what counts
            style = f"text-align:right;padding:2px 10px;background:rgba(11,111,184,{shade:.3f});"
            if row and row is best:
                style += "font-weight:bold;outline:1.5px solid #0b6fb8;outline-offset:-1.5px;"
            title = "" if row is None else html.escape(
                f"log L {row.log_likelihood:.2f}, {row.parameters} parameters, AIC {row.aic:.2f}, ICL {row.icl:.2f}, "
                f"{row.status.name}, {row.repaired} repaired"
            )  # fmt: skip
            return f'<td style="{style}" title="{title}">{html.escape(_cell(row))}</td>'

        head = "".join(f'<th style="text-align:right;padding:2px 10px">{html.escape(leaf)}</th>' for leaf in leaves)
        body = "".join(
            f"<tr><th>{k}</th>{''.join(cell(cells.get((leaf, k))) for leaf in leaves)}</tr>" for k in ks
        )
        summary = "<br>".join(map(html.escape, self._summary()))
        verdicts = "<br>".join("best by " + html.escape(line) for line in self._verdicts())
        return (
            f"<div><p>{summary}</p><table><caption>BIC, lower is better</caption><thead><tr><th>K</th>{head}</tr>"
            f"</thead><tbody>{body}</tbody></table><p>{verdicts}</p></div>"
        )


def _failed(row: Candidate) -> bool:
    return row.status == Status.NON_FINITE or not math.isfinite(row.log_likelihood)


def _number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}"


def _cell(row: Candidate | None) -> str:
    if row is None:
        return ""
    return "x" if _failed(row) else ("!" if row.repaired else "") + _number(row.bic)
