"""SVG chart of the figures relative to their targets."""

from collections.abc import Iterable
from html import escape

from bench.figures import Figure

ROW, TOP, BAR_LEFT, BAR_WIDTH, WIDTH = 44, 112, 400, 260, 1080
FULL_SCALE = 2.0  # end of the bar: twice the target; larger values are cut off

STYLE = """
svg{font:14px system-ui,sans-serif;background:#fff}text{fill:#1c2430}.small{font-size:12px;fill:#5b6675}
.track{fill:#eceff3}.met{fill:#2f855a}.missed{fill:#c05621}.line{stroke:#1c2430;stroke-dasharray:3 3}
@media(prefers-color-scheme:dark){svg{background:#12161c}text{fill:#e6eaf0}.small{fill:#98a3b3}.track{fill:#232a34}
.met{fill:#48bb78}.missed{fill:#ed8936}.line{stroke:#e6eaf0}}
"""


def draw(title: str, lines: list[str], figures: Iterable[Figure]) -> str:
    judged = [figure for figure in figures if figure.target is not None]
    height = TOP + ROW * len(judged) + 40
    middle = BAR_LEFT + BAR_WIDTH / FULL_SCALE
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<text x="20" y="32" font-size="18" font-weight="600">{escape(title)}</text>',
        *(f'<text x="20" y="{52 + 17 * i}" class="small">{escape(line)}</text>' for i, line in enumerate(lines)),
        *(row(figure, TOP + ROW * i) for i, figure in enumerate(judged)),
        f'<line class="line" x1="{middle}" x2="{middle}" y1="{TOP - 6}" y2="{height - 34}"/>',
        f'<text x="{middle}" y="{height - 16}" class="small" text-anchor="middle">target</text>',
        "</svg>",
    ])  # fmt: skip


def row(figure: Figure, y: float) -> str:
    length = BAR_WIDTH * min(share_of(figure), FULL_SCALE) / FULL_SCALE
    kind = "met" if figure.met else "missed"
    said = f"{'✓' if figure.met else '✕'} {figure.shown} ({figure.wanted})"
    said += "" if figure.met else f", {figure.verdict}"
    return (
        f'<text x="20" y="{y + 15}">{escape(figure.what)}</text>'
        f'<text x="20" y="{y + 31}" class="small">{escape(figure.note[:62])}</text>'
        f'<rect class="track" x="{BAR_LEFT}" y="{y + 3}" width="{BAR_WIDTH}" height="14" rx="3"/>'
        f'<rect class="{kind}" x="{BAR_LEFT}" y="{y + 3}" width="{length:.1f}" height="14" rx="3"/>'
        f'<text x="{BAR_LEFT + BAR_WIDTH + 16}" y="{y + 15}">{escape(said)}</text>'
    )


def share_of(figure: Figure) -> float:
    """The figure as a share of its target. If the target is 0, any other value counts as twice too much."""
    if not figure.target:
        return FULL_SCALE if figure.value else 0.0
    return figure.value / figure.target
