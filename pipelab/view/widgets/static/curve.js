// One figure against one number, as lines with marks; where the settings stand is marked, and the values are listed.

const CURVE_LOOKS = [
  { dash: "", mark: "circle" },
  { dash: "6 3", mark: "square" },
];

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== undefined) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

class CurvePane {
  /** `pick(figure, against)` is called when another curve is wanted. */
  constructor(root, pick) {
    this.figure = h("select", { onchange: () => pick(this.figure.value, this.against.value) });
    this.against = h("select", { onchange: () => pick(this.figure.value, this.against.value) });
    this.picture = h("div", { class: "pl-curve" });
    this.list = h("p", { class: "pl-small" });
    root.append(
      h("div", { class: "pl-row" }, labelled("Curve of", this.figure), labelled("against", this.against)),
      this.picture,
      this.list,
    );
  }

  choose(select, pairs, value) {
    const wanted = JSON.stringify(pairs);
    if (select.dataset.pairs !== wanted) {
      fill(select, ...pairs.map(([name, words]) => h("option", { value: name }, words)));
      select.dataset.pairs = wanted;
    }
    select.value = value;
    select.disabled = pairs.length < 2;
  }

  show(curve) {
    this.choose(this.figure, curve.figures, curve.figure);
    this.choose(this.against, curve.againsts, curve.against);
    const wide = 420;
    const high = 210;
    const [left, right, top, bottom] = [46, 12, 12, 36];
    const all = curve.lines.flatMap((line) => [...line.points, line.now]).filter(([, y]) => y !== null);
    if (!all.length) {
      fill(this.picture);
      this.list.textContent = "There is no curve for these settings.";
      return;
    }
    const log = curve.against === "microbatches" || curve.against === "batch";
    const at = (value) => (log ? Math.log2(value) : value);
    const xs = all.map(([x]) => at(x));
    const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
    const most = Math.max(...all.map(([, y]) => y)) * 1.08 || 1;
    const x = (value) => left + ((at(value) - x0) / (x1 - x0 || 1)) * (wide - left - right);
    const y = (value) => high - bottom - (value / most) * (high - top - bottom);
    const parts = [];
    for (const tick of ticks(0, most, 4)) {
      parts.push(svg("line", { x1: left, x2: wide - right, y1: y(tick), y2: y(tick), class: "pl-grid" }));
      parts.push(svg("text", { x: left - 6, y: y(tick) + 3.5, "text-anchor": "end" }, number(tick)));
    }
    const marks = log ? [1, 2, 4, 8, 16, 32, 64, 128, 256].filter((tick) => at(tick) >= x0 - 1e-9 && at(tick) <= x1 + 1e-9) : ticks(x0, x1, 7);
    for (const tick of marks) parts.push(svg("text", { x: x(tick), y: high - bottom + 15, "text-anchor": "middle" }, number(tick)));
    parts.push(svg("line", { x1: left, x2: wide - right, y1: y(0), y2: y(0), class: "pl-axis" }));
    parts.push(svg("text", { x: (left + wide - right) / 2, y: high - 5, "text-anchor": "middle" }, curve.across));
    curve.lines.forEach((line, k) => {
      const look = CURVE_LOOKS[k];
      const points = line.points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ");
      parts.push(svg("polyline", { points, class: `pl-line pl-line-${k}`, "stroke-dasharray": look.dash }));
      for (const [a, b] of line.points) {
        const over = line.over.includes(a);
        const said = svg("title", {}, `${number(a)}: ${number(b)}${over ? "; over the limit on activations" : ""}`);
        const half = over ? 3.1 : 2.3;
        const seen = `pl-dot-${k}${over ? " pl-over" : ""}`;
        parts.push(look.mark === "circle" ? svg("circle", { cx: x(a), cy: y(b), r: over ? 3.3 : 2.4, class: seen }, said) : svg("rect", { x: x(a) - half, y: y(b) - half, width: 2 * half, height: 2 * half, class: seen }, said));
      }
    });
    curve.lines.forEach((line, k) => {
      const [a, b] = line.now;
      if (b !== null) parts.push(svg("circle", { cx: x(a), cy: y(b), r: 6, class: `pl-now pl-now-${k}` }));
    });
    const words = curve.lines.map((line) => `${line.name}: ${line.now[1] === null ? "none" : number(line.now[1])} now`).join("; ");
    const title = `${curve.label} against ${curve.across}. ${words}.`;
    fill(this.picture, svg("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": title }, svg("title", {}, title), ...parts));
    const keys = curve.lines.map((line, k) => `${k ? "Dashed, squares" : "Full line, dots"}: ${line.name}.`).join(" ");
    const least = (line) => line.points.reduce((a, b) => (b[1] < a[1] ? b : a), line.now);
    const lows = curve.figure === "makespan" ? curve.lines.map((line) => ` Lowest${curve.lines.length > 1 ? ` of ${line.name}` : ""}: ${number(least(line)[1])} at ${number(least(line)[0])}.`).join("") : "";
    const over = curve.lines.some((line) => line.points.some(([a]) => line.over.includes(a))) ? " Hollow: over the limit on activations." : "";
    this.list.textContent = `${curve.label}. The ring marks the settings above.${curve.lines.length > 1 ? ` ${keys}` : ""}${over}${curve.done ? lows : " More points are coming."}`;
    this.picture.dataset.done = String(curve.done);
  }
}
