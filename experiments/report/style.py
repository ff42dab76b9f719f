"""Colours, type and measures of the pictures and of the page."""

# Okabe and Ito's palette, which readers with any colour vision can tell apart; every use has a second sign too (marker,
# dash, hatching, word).
BLACK, GREY, LIGHT = "#1A1A1A", "#6B6B6B", "#F2F2F2"
BLUE, VERMILION, ORANGE, SKY = "#0072B2", "#D55E00", "#E69F00", "#56B4E9"
WIDTH = 9.16  # inches, of every wide figure: the page's 880 pixels

MATPLOTLIB = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is there on every machine
    "font.size": 9,
    "text.parse_math": False,  # a "$" in a class name is a "$"
    "text.color": BLACK,
    "axes.labelcolor": BLACK,
    "axes.edgecolor": GREY,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.unicode_minus": True,
    "xtick.color": BLACK,
    "ytick.color": BLACK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.constrained_layout.w_pad": 0.08,
    "hatch.linewidth": 0.6,
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "svg.hashsalt": "mmd_jax",
    "svg.fonttype": "path",
}

CSS = """
:root { color-scheme: light; }
body { margin: 0; background: #fff; color: #1a1a1a; font: 16px/1.55 Georgia, "Times New Roman", serif; }
main { max-width: 880px; margin: 0 auto; padding: 2.2rem 1.4rem 4rem; }
h1, h2, h3, th, caption, summary, .label, .cards, figcaption {
  font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
h1 { font-size: 1.25rem; font-weight: 600; line-height: 1.35; margin: .3rem 0 1rem; }
h2 { font-size: 1.2rem; margin: 3rem 0 .6rem; padding-top: .7rem; border-top: 2px solid #1a1a1a; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .6rem 0; }
a { color: #00588a; }
.label { font-size: .78rem; letter-spacing: .06em; text-transform: uppercase; color: #555; margin: 0; }
.answer { font-size: 1.6rem; line-height: 1.32; margin: .2rem 0 1.2rem; padding-left: 1rem;
  border-left: 8px solid #6b6b6b; }
.answer.better { border-color: #0072b2; }
.answer.worse { border-color: #d55e00; border-left-style: double; }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; padding: 0; list-style: none; }
.cards li { flex: 1 1 11rem; border: 1px solid #bbb; border-radius: 4px; padding: .6rem .8rem; }
.cards b { display: block; font-size: 1.5rem; line-height: 1.2; }
.cards span { display: block; font-size: .84rem; color: #444; line-height: 1.35; }
.note, .warning { border: 1px solid #999; border-left-width: 6px; padding: .5rem .9rem; margin: 1rem 0; }
.warning { border-color: #b34e00; background: #fff6ee; }
figure { margin: 1.2rem 0 1.6rem; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { font-size: .86rem; line-height: 1.45; color: #333; margin-top: .4rem; }
table { border-collapse: collapse; margin: .8rem 0 1.2rem; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { caption-side: bottom; text-align: left; font-size: .86rem; color: #333; padding-top: .4rem;
  line-height: 1.45; }
th, td { text-align: left; vertical-align: baseline; padding: .28rem 1rem .28rem 0; border-bottom: 1px solid #ddd; }
thead th { border-bottom: 1.5px solid #1a1a1a; font-size: .84rem; font-weight: 600; }
th { font-weight: 500; font-size: .88rem; }
td.number, th.number { text-align: right; }
tr.decides > * { background: #fbf7c2; font-weight: 700; }
table.grid td, table.grid th { border: 1px solid #bbb; padding: .45rem .7rem; }
table.grid td.here { border: 3px solid #1a1a1a; font-weight: 700; background: #fbf7c2; }
code, pre { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: .86rem; }
pre { background: #f4f4f4; padding: .7rem .9rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
h1, h3, td, th, p, li, figcaption { overflow-wrap: anywhere; }
details > summary { cursor: pointer; font-size: .9rem; }
dt { font-weight: 700; } dd { margin: 0 0 .5rem 1.2rem; }
@media print {
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  figure, table, .cards, .note, .warning { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""
