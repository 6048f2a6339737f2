"""Tables and figures for a paper, as LaTeX (packages: booktabs, longtable, graphicx, amssymb)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_COMMANDS: Final = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "▲": "$\\blacktriangle$",
        "▼": "$\\blacktriangledown$",
        "−": "$-$",
        "–": "--",
        "‖": "$\\|$",
        "Δ": "$\\Delta$",
        "·": "$\\cdot$",
        "°": "$^\\circ$",
        "∞": "$\\infty$",
        "×": "$\\times$",
        "≈": "$\\approx$",
        "≥": "$\\geq$",
        "≤": "$\\leq$",
        "λ": "$\\lambda$",
        "²": "$^2$",
        "\n": " ",
        "\r": " ",
    }
)


def escaped(text: str) -> str:
    """Text that LaTeX prints and does not run."""
    return text.translate(_COMMANDS)


def tabular(
    title: str, headings: Sequence[str], rows: Sequence[tuple[str, Sequence[tuple[str, str]]]]
) -> str:
    """A tabular: a label and cells a row, each cell with what stands under it in small print."""
    lines = [
        f"% {escaped(title)}",
        f"\\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
        "\\toprule",
        _row(headings),
        "\\midrule",
    ]
    for label, cells in rows:
        lines.append(_row([label, *(text for text, _ in cells)]))
        if any(under for _, under in cells):
            small = (f"{{\\footnotesize {escaped(u)}}}" if u else "" for _, u in cells)
            lines.append(" & ".join(("", *small)) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def long_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A longtable: it goes on over pages, its headings on each."""
    return "\n".join(
        [
            f"\\begin{{longtable}}{{{'l' * len(headings)}}}",
            f"\\caption{{{escaped(title)}}}\\\\",
            "\\toprule",
            _row(headings),
            "\\midrule",
            "\\endhead",
            *(_row(row) for row in rows),
            "\\bottomrule",
            "\\end{longtable}",
            "",
        ]
    )


def figure(path: str, caption: str, label: str, *, wide: bool) -> str:
    """A figure environment: over both columns if wide."""
    name = "figure*" if wide else "figure"
    return "\n".join(
        [
            f"\\begin{{{name}}}[t]",
            "\\centering",
            f"\\includegraphics{{{path}}}",
            f"\\caption{{{escaped(caption)}}}",
            f"\\label{{fig:{label}}}",
            f"\\end{{{name}}}",
            "",
        ]
    )


def _row(cells: Sequence[str]) -> str:
    return " & ".join(escaped(cell) for cell in cells) + " \\\\"
