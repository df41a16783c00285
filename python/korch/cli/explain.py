"""The matrix of nodes and plugins as text: one line a node, the chosen one first, then the others by total, then those that refuse."""

from __future__ import annotations

from typing import Any

Matrix = dict[str, Any]


def explain_table(matrix: Matrix, *, limit: int = 0) -> str:
    """Return the matrix (see `_core.Scheduler.explain`) as a table of at most `limit` nodes (0: all).

    A score is shown as `raw>normalised*weight`, or as the normalised score alone when nothing is done to it."""
    nodes: list[dict[str, Any]] = sorted(matrix["nodes"], key=lambda one: (not one["feasible"], -(one["total"] or 0)))
    nodes.sort(key=lambda one: one["name"] != matrix["node"])
    plugins = sorted({plugin for one in nodes for plugin in one["scores"]})
    rows = [["NODE", "TOTAL", *plugins, "REFUSED BY"]]
    shown = nodes[:limit] if limit else nodes
    for one in shown:
        mark = "*" if one["name"] == matrix["node"] else ""
        total = "-" if one["total"] is None else str(one["total"])
        scores = [_score(one["scores"].get(plugin)) for plugin in plugins]
        refused = "; ".join(f"{plugin}: {', '.join(words)}" for plugin, words in one["filters"].items())
        rows.append([one["name"] + mark, total, *scores, refused])
    head = f"{matrix['pod']}: {matrix['node'] or matrix['message']}"
    lines = [head, "", *_aligned(rows)]
    if len(shown) < len(nodes):
        lines.append(f"... and {len(nodes) - len(shown)} more")
    return "\n".join(lines)


def _score(score: dict[str, int] | None) -> str:
    if score is None:
        return "-"
    raw, normalized, weighted = score["raw"], score["normalized"], score["weighted"]
    weight = weighted // normalized if normalized else 1
    text = f"{raw}>{normalized}" if raw != normalized else str(normalized)
    return f"{text}*{weight}" if weight != 1 else text


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
