# SPDX-License-Identifier: MIT
"""The table, bench.json and bench.svg."""

import html
import math
import statistics

from machine import FOREIGN_MAX


def number(value):
    if value is None:
        return "-"
    if value >= 1000:
        return "%d" % round(value)
    return "%.3g" % value


def with_unit(value, unit):
    return number(value) + (unit if unit == "/s" else " " + unit if unit else "") \
        if value is not None else "-"


def table(chosen):
    rows = [("figure", "flush(8)", "fflushd", "times better [min, max]", "limit", "bar", "")]
    disturbed = False
    for f in chosen:
        dirty = max((s for who in ("original", "fflushd") for s in f.foreign[who]),
                    default=0) > FOREIGN_MAX
        disturbed = disturbed or dirty
        for m in f.metrics:
            ratios = f.ratios(m)
            text = "%.2f [%.2f, %.2f]" % (statistics.median(ratios), min(ratios),
                                          max(ratios)) if ratios else "-"
            bar = ("<= " + with_unit(m.most, m.unit) if m.most is not None else
                   "%.2f" % m.ratio_bar if m.ratio_bar is not None else "")
            verdict = f.verdict(m)
            rows.append((f.name + (": " + m.label if m.label else "") + (" *" if dirty else ""),
                         with_unit(f.median("original", m.key), m.unit),
                         with_unit(f.median("fflushd", m.key), m.unit), text,
                         with_unit(f.median("limit", m.key), m.unit), bar.strip(),
                         "" if verdict is None else "PASS" if verdict else "below"))
    widths = [max(len(r[i]) for r in rows) for i in range(7)]
    lines = []
    for r in rows:
        cells = [r[0].ljust(widths[0])] + [r[i].rjust(widths[i]) for i in range(1, 7)]
        lines.append("  ".join(cells).rstrip())
    for f in chosen:
        lines += ["ERROR in %s: %s" % (f.name, e) for e in f.errors]
    if disturbed:
        lines.append("* others used more than %.1f CPUs meanwhile" % FOREIGN_MAX)
    return "\n".join(lines)


def as_json(facts, chosen, pairs):
    result = {"machine": facts, "pairs": pairs, "figures": []}
    for f in chosen:
        entry = {"name": f.name, "group": f.group, "x": f.x, "errors": f.errors,
                 "values": f.values, "foreign_cpus": f.foreign, "metrics": []}
        for m in f.metrics:
            ratios = f.ratios(m)
            entry["metrics"].append({
                "key": m.key, "unit": m.unit, "better": "more" if m.more_is_better else "less",
                **{who: f.median(who, m.key) for who in f.values},
                "ratio": {"median": statistics.median(ratios), "min": min(ratios),
                          "max": max(ratios)} if ratios else None,
                "bar": {"ratio": m.ratio_bar, "most": m.most}, "passed": f.verdict(m)})
        result["figures"].append(entry)
    return result


COLOURS = {"original": "#b3261e", "fflushd": "#1a5fb4", "limit": "#77767b"}
NAMES = {"original": "flush(8)", "fflushd": "fflushd", "limit": "bare system calls"}
WIDTH, HEIGHT, LEFT, TOP, PLOT_W, PLOT_H = 470, 330, 62, 40, 380, 236


class Panel:
    """One log-log diagram: [(who, [(x, median, least, greatest)])]."""

    def __init__(self, title, x_label, lines):
        self.title, self.x_label, self.lines = title, x_label, lines
        xs = [p[0] for _, points in lines for p in points]
        ys = [y for _, points in lines for p in points for y in p[1:]]
        self.x0, self.x1 = min(xs), max(xs)
        self.y0, self.y1 = 10 ** math.floor(math.log10(min(ys))), 10 ** math.ceil(math.log10(max(ys)))
        if self.y0 == self.y1:
            self.y1 *= 10

    def x(self, value):
        share = math.log(value / self.x0) / math.log(self.x1 / self.x0)
        return LEFT + 12 + (PLOT_W - 24) * share

    def y(self, value):
        share = math.log(value / self.y0) / math.log(self.y1 / self.y0)
        return TOP + PLOT_H * (1 - share)

    def svg(self):
        out = ['<text x="%d" y="24" class="title">%s</text>' % (LEFT, html.escape(self.title)),
               '<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#999"/>'
               % (LEFT, TOP, PLOT_W, PLOT_H),
               '<text x="%d" y="%d" text-anchor="middle">%s</text>'
               % (LEFT + PLOT_W / 2, TOP + PLOT_H + 38, html.escape(self.x_label))]
        for decade in range(round(math.log10(self.y0)), round(math.log10(self.y1)) + 1):
            for step in (1, 2, 5):
                value = step * 10.0 ** decade
                if value > self.y1 * 1.001:
                    break
                y = self.y(value)
                out.append('<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="%s"/>'
                           % (LEFT, y, LEFT + PLOT_W, y, "#ccc" if step == 1 else "#eee"))
                if step == 1 or self.y1 / self.y0 < 200:
                    out.append('<text x="%d" y="%.1f" text-anchor="end">%s</text>'
                               % (LEFT - 6, y + 4, short(value)))
        for value in sorted({p[0] for _, points in self.lines for p in points}):
            out.append('<text x="%.1f" y="%d" text-anchor="middle">%s</text>'
                       % (self.x(value), TOP + PLOT_H + 18, short(value)))
        for who, points in self.lines:
            path = " ".join("%.1f,%.1f" % (self.x(p[0]), self.y(p[1])) for p in points)
            dash = ' stroke-dasharray="5 4"' if who == "limit" else ""
            out.append('<polyline points="%s" fill="none" stroke="%s" stroke-width="2"%s/>'
                       % (path, COLOURS[who], dash))
            for x, median, least, greatest in points:
                out.append('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>'
                           % (self.x(x), self.y(least), self.x(x), self.y(greatest), COLOURS[who]))
                out.append('<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>'
                           % (self.x(x), self.y(median), COLOURS[who]))
        return "\n".join(out)


def short(value):
    for factor, letter in ((1e6, "M"), (1e3, "k")):
        if value >= factor:
            return "%g%s" % (value / factor, letter)
    return "%g" % value


def panels(chosen):
    found = []
    for group, key, title, x_label in (
            ("add, 1 site", "rate", "add to 1 site: requests/s (more is better)", "clients"),
            ("add, 1000 sites", "rate", "add to 1,000 sites: requests/s (more is better)",
             "clients"),
            ("add, 1 site", "p99_us", "add to 1 site: p99 latency, us", "clients"),
            ("add, 1000 sites", "p99_us", "add to 1,000 sites: p99 latency, us", "clients"),
            ("send_site, no duplicates", "ms", "send_site, no duplicates: ms", "messages"),
            ("send_site, 5-fold duplicates", "ms", "send_site, 5-fold duplicates: ms", "messages"),
            ("refresh", "ms", "refresh, one log in ten is stale: ms", "logs")):
        lines = []
        for who in COLOURS:
            points = []
            for f in chosen:
                values = [v[key] for v in f.values[who] if v and v.get(key)]
                if f.group == group and values:
                    points.append((f.x, statistics.median(values), min(values), max(values)))
            if len(points) > 1:
                lines.append((who, points))
        if lines:
            found.append(Panel(title, x_label, lines))
    return found


def as_svg(facts, chosen):
    """None if nothing was measured in more than one size."""
    drawn = panels(chosen)
    if not drawn:
        return None
    rows = (len(drawn) + 1) // 2
    width, height = 2 * WIDTH, 46 + rows * HEIGHT + 40
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d">'
           % (width, height, width, height),
           "<style>text { font: 12px sans-serif; fill: #222 } .title { font-weight: bold; "
           "font-size: 13px }</style>",
           '<rect width="100%" height="100%" fill="white"/>']
    for i, (who, colour) in enumerate(COLOURS.items()):
        x = LEFT + i * 130
        dash = ' stroke-dasharray="5 4"' if who == "limit" else ""
        out.append('<line x1="%d" y1="24" x2="%d" y2="24" stroke="%s" stroke-width="2"%s/>'
                   '<text x="%d" y="28">%s</text>' % (x, x + 28, colour, dash, x + 34, NAMES[who]))
    out.append('<text x="%d" y="28" text-anchor="end">points: medians; bars: least to greatest'
               '</text>' % (width - 28))
    for i, panel in enumerate(drawn):
        out.append('<g transform="translate(%d %d)">\n%s\n</g>'
                   % (i % 2 * WIDTH, 46 + i // 2 * HEIGHT, panel.svg()))
    for i, keys in enumerate((("cpu", "system", "file_system"), ("original", "fflushd"))):
        note = "; ".join(facts[k] for k in keys)
        out.append('<text x="%d" y="%d" style="font-size: 9px">%s</text>'
                   % (LEFT, height - 22 + 12 * i, html.escape(note)))
    return "\n".join(out) + "\n</svg>\n"
