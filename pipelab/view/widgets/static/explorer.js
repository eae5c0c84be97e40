// The schedule explorer: controls, the picture, figures beside formulas, a curve, and "Run it".

class Controls {
  /** `changed(values)` is called with what was turned. */
  constructor(root, changed) {
    this.root = root;
    this.changed = changed;
    this.made = new Map();
  }

  /** Show these controls with these values. One that was there stays, and keeps the focus and what is typed in it. */
  show(controls, settled) {
    const wanted = new Set(controls.map((one) => one.name));
    for (const [name, { root }] of this.made) {
      if (!wanted.has(name)) {
        root.remove();
        this.made.delete(name);
      }
    }
    controls.forEach((one, k) => {
      const root = this.made.has(one.name) ? this.made.get(one.name).root : this.make(one);
      if (this.root.children[k] !== root) this.root.insertBefore(root, this.root.children[k] || null);
      const { put } = this.made.get(one.name);
      if (settled || !root.contains(document.activeElement)) put(one.value);
    });
  }

  make(one) {
    const id = unique(one.name);
    const words = one.label + (one.unit && one.unit !== "sequences" ? ` (${one.unit})` : "");
    const tell = (value) => this.changed({ [one.name]: value });
    let root;
    let put;
    if (one.kind === "choice") {
      const select = h("select", { id, "data-control": one.name, onchange: () => tell(select.value) }, one.choices.map(([value, text]) => h("option", { value }, text)));
      put = (value) => (select.value = value);
      root = h("div", { class: "pl-control" }, h("label", { for: id }, words), select);
    } else if (one.kind === "either") {
      const ways = one.choices.map(([value, text]) => ({ value, text, dot: h("input", { type: "radio", name: id, value, "data-control": one.name, onchange: () => tell(value) }) }));
      put = (value) => ways.forEach((way) => (way.dot.checked = way.value === value));
      root = h("div", { class: "pl-control pl-either", role: "radiogroup", "aria-labelledby": id }, h("span", { id, class: "pl-name" }, words), ways.map((way) => h("label", {}, way.dot, way.text)));
    } else if (one.kind === "switch") {
      const box = h("input", { type: "checkbox", id, "data-control": one.name, onchange: () => tell(box.checked) });
      put = (value) => (box.checked = value);
      root = h("div", { class: "pl-control pl-switch" }, h("label", { for: id }, box, words));
    } else {
      const field = h("input", { type: "number", id, step: one.step, "data-control": one.name, placeholder: one.optional });
      const range = { min: one.low, max: one.high, step: one.step };
      const slider = one.optional ? null : h("input", { type: "range", ...range, "aria-label": `${words}, slider`, "data-control": `${one.name}-slider` });
      const read = (text) => (text === "" ? (one.optional ? null : "") : Number(text));
      field.addEventListener("change", () => tell(read(field.value)));
      field.addEventListener("input", () => {
        const value = Number(field.value);
        if (slider) slider.value = field.value; // the two are one control, also before the kernel has answered
        if (field.value !== "" && value >= one.low && value <= one.high) tell(value);
      });
      if (slider) {
        slider.addEventListener("input", () => {
          field.value = slider.value;
          tell(Number(slider.value));
        });
      }
      put = (value) => {
        field.value = value === null ? "" : String(value);
        if (slider) slider.value = String(value);
      };
      root = h("div", { class: "pl-control" }, h("label", { for: id }, words), h("span", { class: "pl-pair" }, field, slider));
    }
    this.made.set(one.name, { root, put });
    put(one.value);
    return root;
  }
}

/** A figure's formula, set as one. */
const formulaOf = (figure) => (figure.math ? fromHtml(h("span", { class: "pl-formula" }), figure.math) : "–");

/** The line of Python that opens an explorer with these settings, and a button that copies it. */
class CodeLine {
  constructor() {
    this.text = h("code", { class: "pl-code" });
    this.said = h("span", { class: "pl-small", role: "status" });
    this.root = h("div", { class: "pl-row" }, h("span", { class: "pl-small" }, "These settings again:"), this.text, h("button", { type: "button", onclick: () => this.copy() }, "Copy this line"), this.said);
  }

  show(code) {
    if (this.text.textContent === code) return;
    this.text.textContent = code;
    this.said.textContent = "";
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(this.text.textContent);
      this.said.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(this.text); // a page without the right to write there: the reader copies
      this.said.textContent = "Selected: copy it with Ctrl+C.";
    }
  }
}

class ExplorerPane {
  constructor({ model, root, link }) {
    this.model = model;
    this.link = link;
    this.root = root;
    const controls = h("div", { class: "pl-controls", role: "group", "aria-label": "Controls" });
    this.preset = h("p", { class: "pl-small" });
    this.sizes = h("p", { class: "pl-small" });
    this.waiting = h("div", { class: "pl-note", role: "status" });
    this.said = h("div", { class: "pl-note", role: "status" });
    this.problem = h("div", { class: "pl-note pl-problem", role: "alert" });
    const picture = h("div", { class: "pl-picture" });
    const curve = h("div", { class: "pl-side" });
    const table = h("div", { class: "pl-side" });
    const runs = h("div");
    this.code = new CodeLine();
    root.append(controls, this.sizes, this.preset, this.waiting, this.said, this.problem, picture, h("div", { class: "pl-sides" }, table, curve), runs, this.code.root);
    this.controls = new Controls(controls, (values) => this.turn(values));
    this.timeline = new TimelinePane(picture, { need: () => this.askDetail() });
    this.picture = picture;
    root.append(this.timeline.foot);
    this.table = table;
    this.curve = new CurvePane(curve, (figure, against) => this.askCurve(figure, against));
    this.runs = new RunRow(runs, { model, link }, "trains the 48-layer model under this schedule; takes about ten seconds", [["picture", "picture (PNG)"], ["svg", "picture (SVG)"], ["gif", "animation (GIF)"], ["csv", "table (CSV)"], ["trace", "trace (Perfetto)"]]);
    link.waits.add((words) => (this.waiting.textContent = words));
    this.hear = (content) => {
      if (content.detail && content.edition === this.view.edition && !this.view.measured) this.timeline.detail(content.detail);
      if (content.curve) {
        this.lastCurve = content.curve;
        this.code.show(content.code);
        this.curve.show(content.curve);
      }
    };
    model.on("msg:custom", this.hear);
    this.onView = () => this.draw();
    model.on("change:view", this.onView);
    this.draw();
  }

  turn(values) {
    this.turned = { ...this.turned, ...values };
    const sent = this.turned;
    this.began = this.began || performance.now();
    this.link.ask({ do: "set", values: sent }, (said) => {
      if (this.turned === sent) this.turned = {};
      if (said) tell(this.said, said);
      this.controls.show(this.view.controls, !this.link.next.has("set"));
      this.root.dataset.answers = String(Number(this.root.dataset.answers || 0) + 1);
    }, "set");
    this.askMoreSoon();
  }

  /** A control that is being turned comes first: what can be asked of the picture, and the curve, follow when it rests. */
  askMoreSoon() {
    clearTimeout(this.soon);
    this.soon = setTimeout(() => {
      this.askDetail();
      this.askCurve();
    }, 250);
  }

  askDetail() {
    if (!this.view.measured && !this.view.scenes[0].blocks.told) this.link.ask({ do: "detail" }, null, "detail");
  }

  /** Ask for more of the curve, until it is whole; a control that is turned meanwhile goes first. */
  askCurve(figure, against) {
    const shown = this.lastCurve || this.view.curve;
    if (!figure && shown.done) return;
    const what = figure ? { figure, against } : {};
    this.link.ask({ do: "curve", ...what }, () => {
      if (!this.lastCurve.done && !this.link.next.has("set")) this.askCurve();
    }, figure ? "curve picked" : "curve");
  }

  draw() {
    const view = (this.view = JSON.parse(this.model.get("view")));
    this.lastCurve = view.curve;
    this.controls.show(view.controls, !this.link.busy);
    tell(this.sizes, view.sizes);
    tell(this.preset, view.preset);
    tell(this.said, view.said);
    if (view.problem) {
      fill(
        this.problem,
        h("div", {}, view.problem.sentence),
        view.problem.offers.length ? h("div", { class: "pl-row" }, "Nearest that works:", view.problem.offers.map((offer) => h("button", { type: "button", onclick: () => this.turn(offer.values) }, offer.label))) : null,
        view.problem.possible ? null : h("div", { class: "pl-small" }, "The picture below still shows the last possible settings."),
      );
    } else fill(this.problem);
    this.picture.classList.toggle("pl-stale", Boolean(view.problem && !view.problem.possible));
    const began = performance.now();
    if (view.measured) this.timeline.show(view.measured.scenes, { pairs: true, names: view.measured.names });
    else this.timeline.show(view.scenes, { phases: view.phases });
    this.root.dataset.draw = (performance.now() - began).toFixed(1);
    this.drawFigures(view);
    this.curve.show(view.curve);
    this.code.show(view.code);
    const { began: asked } = this;
    this.began = null;
    requestAnimationFrame(() => {
      if (asked) this.root.dataset.latency = (performance.now() - asked).toFixed(1); // from the control to this frame
      this.root.dataset.drawn = String(Number(this.root.dataset.drawn || 0) + 1);
    });
    this.askMoreSoon();
  }

  drawFigures(view) {
    const shown = (value, unit) => (value === null ? "–" : unit === "%" ? `${value.toFixed(1)}%` : number(value));
    const several = view.figures.length > 1;
    const { measured } = view;
    const heads = [h("th", { scope: "col" }, "Figure")];
    if (!several) heads.push(h("th", { scope: "col" }, "Formula"), h("th", { scope: "col", class: "pl-num" }, "it gives"));
    view.titles.forEach((title) => heads.push(h("th", { scope: "col", class: "pl-num" }, several ? title : "simulated")));
    if (measured) heads.push(h("th", { scope: "col", class: "pl-num" }, several ? `${view.titles[0]}, measured` : "measured"));
    const rows = view.figures[0].map((figure, k) => {
      const cells = [h("th", { scope: "row" }, `${figure.label}${figure.unit ? `, ${figure.unit}` : ""}`)];
      if (!several) cells.push(h("td", {}, formulaOf(figure)), h("td", { class: "pl-num" }, shown(figure.expected, figure.unit)));
      view.figures.forEach((each) => {
        const { formula, expected, simulated } = each[k];
        const beside = several && formula ? h("div", { class: "pl-small" }, formulaOf(each[k]), ` =\u00a0${shown(expected, figure.unit)}`) : null;
        cells.push(h("td", { class: several ? "pl-num pl-wrap" : "pl-num", "data-figure": figure.name }, shown(simulated, figure.unit), beside));
      });
      if (measured) {
        const known = { bubble: measured.bubbles[1], memory: Math.max(...measured.peaks) };
        cells.push(h("td", { class: "pl-num" }, figure.name in known ? shown(known[figure.name], figure.unit) : "–"));
      }
      return h("tr", {}, cells);
    });
    fill(this.table, h("table", { class: "pl-figures" }, h("caption", { class: "pl-hidden" }, "Figures"), h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows)), fromHtml(h("p", { class: "pl-small" }), view.notes));
  }

  close() {
    clearTimeout(this.soon);
    this.model.off("msg:custom", this.hear);
    this.model.off("change:view", this.onView);
    this.runs.close();
    this.timeline.close();
  }
}

function renderExplorer(parts) {
  const pane = new ExplorerPane(parts);
  return { redraw: () => pane.timeline.redraw(), close: () => pane.close() };
}
