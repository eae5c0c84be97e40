// A timeline that can be asked: stepping, zoom, pointing, critical path, and the same in words.

class TimelinePane {
  /** `options.steps`: with step buttons. `options.heading`: with the title above. `options.need`: called when someone
   * asks for what has not been sent yet; `detail()` brings it. */
  constructor(root, options = {}) {
    this.options = { steps: true, heading: true, ...options };
    this.title = h("h3");
    this.figures = h("p", { class: "pl-quiet" });
    this.stage = h("div", { class: "pl-canvas", tabindex: "0", role: "application" });
    this.say = h("div", { class: "pl-say", role: "status", "aria-live": "polite" });
    this.clock = h("p", { class: "pl-small" });
    this.legend = h("div", { class: "pl-legend" });
    this.slider = h("input", { type: "range", min: "0", max: "1000", step: "1", "aria-label": "Move the part that is shown in time" });
    this.scroll = h("div", { class: "pl-scroll", hidden: true }, this.slider);
    this.twin = h("details", {}, h("summary", {}, "As a table: every action, what it waited for, every idle time and why"));
    this.foot = h("div", {}, this.clock, this.twin);
    this.tools = h("div", { class: "pl-row pl-tools", role: "toolbar", "aria-label": "Timeline" });
    this.chart = new Chart(this.stage);
    this.makeTools();
    root.append(
      ...(this.options.heading ? [this.title, this.figures] : []),
      this.tools,
      this.stage,
      this.scroll,
      this.legend,
      this.say,
      this.foot,
    );
    this.listen();
  }

  makeTools() {
    const button = (label, words, act) => h("button", { type: "button", title: words, "aria-label": words, onclick: act }, label);
    this.when = h("input", { type: "number", min: "0", step: "any", "aria-label": "Time of the step" });
    this.when.addEventListener("change", () => (this.when.value === "" ? this.clear() : this.goto(Number(this.when.value))));
    const steps = h(
      "span",
      { class: "pl-group" },
      button("◀ Step", "One step back", () => this.stepBy(-1)),
      "t =", this.when,
      button("Step ▶", "One step forward, and what is ready then", () => this.stepBy(1)),
    );
    this.critical = h("input", { type: "checkbox" });
    this.critical.addEventListener("change", () => {
      this.chart.critical = this.critical.checked;
      this.chart.overlay();
      this.speak();
    });
    fill(
      this.tools,
      this.options.steps ? steps : null,
      h(
        "span",
        { class: "pl-group" },
        button("−", "Zoom out", () => this.zoom(0.5)),
        button("+", "Zoom in", () => this.zoom(2)),
        button("All", "Show the whole time", () => this.zoom(1e-9)),
      ),
      h("label", {}, this.critical, "critical path"),
    );
  }

  listen() {
    const place = (event) => {
      const box = this.stage.getBoundingClientRect();
      return this.chart.at(event.clientX - box.left, event.clientY - box.top);
    };
    this.stage.addEventListener("mousemove", (event) => {
      const found = place(event);
      if (this.same(found, this.hover)) return;
      this.say.setAttribute("aria-live", "off"); // who points sees; who moves by keys is told
      this.hover = found;
      this.point(found || this.pinned);
    });
    this.stage.addEventListener("mouseleave", () => {
      this.hover = null;
      this.point(this.pinned || null);
    });
    this.stage.addEventListener("click", (event) => {
      this.pinned = place(event);
      this.point(this.pinned);
      this.pick();
    });
    this.stage.addEventListener("keydown", (event) => this.key(event));
    this.stage.addEventListener("focus", () => {
      if (!this.pinned && !this.hover && this.stage.matches(":focus-visible")) {
        this.pinned = this.chart.first();
        this.point(this.pinned);
      }
    });
    this.slider.addEventListener("input", () => {
      const wide = this.chart.window ? this.chart.window[1] - this.chart.window[0] : 0;
      this.chart.pan((Number(this.slider.value) / 1000) * (this.chart.extent() - wide));
    });
    this.twin.addEventListener("toggle", () => this.fillTwin());
  }

  pick() {
    if (this.pinned && this.pinned.kind === "block") this.options.pick?.(this.pinned.panel, this.pinned.index);
  }

  same(a, b) {
    return a === b || (a && b && a.panel === b.panel && a.kind === b.kind && a.index === b.index);
  }

  key(event) {
    this.say.setAttribute("aria-live", "polite");
    const moves = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", Home: "first", End: "last" };
    const acts = {
      "+": () => this.zoom(2),
      "=": () => this.zoom(2),
      "-": () => this.zoom(0.5),
      0: () => this.zoom(1e-9),
      "[": () => this.stepBy(-1),
      "]": () => this.stepBy(1),
      Escape: () => this.clear(),
      Enter: () => this.pick(),
    };
    if (moves[event.key] && !event.ctrlKey && !event.metaKey && !event.altKey) {
      this.pinned = this.chart.move(this.pinned, moves[event.key]);
      this.chart.reveal(this.pinned);
      this.moveSlider();
      this.point(this.pinned);
    } else if (acts[event.key]) acts[event.key]();
    else return;
    event.preventDefault();
  }

  clear() {
    this.pinned = this.hover = null;
    this.chart.moment = null;
    this.when.value = "";
    this.point(null);
  }

  point(mark) {
    this.chart.mark = mark;
    this.chart.overlay();
    this.speak();
  }

  /** Say what is pointed at; else what the step shows; else how to use it. */
  speak() {
    const { mark, moment, scenes } = this.chart;
    const asked = (mark && mark.kind === "block") || moment !== null || this.chart.critical;
    if (asked && scenes.some((scene) => !scene.blocks.told)) {
      this.say.textContent = "…";
      this.options.need?.();
      return;
    }
    this.say.classList.toggle("pl-strong", Boolean(mark) || moment !== null);
    const several = scenes.length > 1;
    if (mark) {
      const scene = scenes[mark.panel];
      const name = several ? `${(this.chart.options.names || [])[mark.panel] || scene.title}: ` : "";
      const words = mark.kind === "block" ? scene.blocks.told[mark.index] : this.idle(scene, scene.gaps[mark.index]);
      this.say.textContent = name + words;
    } else if (moment !== null) {
      fill(this.say, ...scenes.map((scene, panel) => h("div", {}, (several ? `${(this.chart.options.names || [])[panel] || scene.title}: ` : "") + this.now(scene, moment))));
    } else if (this.chart.critical) {
      fill(this.say, ...scenes.map((scene) => h("div", {}, `Critical path of ${scene.title}, ${scene.blocks.critical.length} actions, each begun when the one before let it: ${this.names(scene, scene.blocks.critical, 14)}.`)));
    } else this.say.textContent = "Point at a block or at idle time, or press Tab and the arrow keys: what it waited for, and why a device idles.";
  }

  idle(scene, [device, start, end, , sentence]) {
    return `Idle, ${number(start)} to ${number(end)} ${scene.unit}. ${sentence}`;
  }

  label(scene, index) {
    return scene.blocks.parts[index].map(([look, stage, microbatch]) => `${stage}${scene.blocks.looks[look][0]}${microbatch}`).join("+");
  }

  names(scene, indices, most = 12) {
    const shown = indices.slice(0, most).map((index) => this.label(scene, index));
    return shown.join(", ") + (indices.length > most ? ` and ${indices.length - most} more` : "");
  }

  now(scene, moment) {
    const { start, end, ready } = scene.blocks;
    const near = 1e-6 * scene.extent;
    const running = [];
    const begins = [];
    const waiting = [];
    let done = 0;
    for (let k = 0; k < start.length; k += 1) {
      if (end[k] <= moment + near) done += 1;
      else if (Math.abs(start[k] - moment) <= near) begins.push(k);
      else if (start[k] < moment) running.push(k);
      else if (ready[k] <= moment + near) waiting.push(k);
    }
    const parts = [`t = ${number(moment)} ${scene.unit}, ${done} of ${start.length} actions done.`];
    if (begins.length) parts.push(`Starting: ${this.names(scene, begins)}.`);
    if (running.length) parts.push(`Running: ${this.names(scene, running)}.`);
    parts.push(waiting.length ? `Ready, but their device does something else first: ${this.names(scene, waiting)}.` : "Nothing else is ready.");
    return parts.join(" ");
  }

  moments() {
    const found = new Set();
    this.chart.scenes.forEach((scene) => (scene.blocks.moments || []).forEach((moment) => found.add(moment)));
    return [...found].sort((a, b) => a - b);
  }

  stepBy(by) {
    const moments = this.moments();
    if (!moments.length) {
      this.wanted = () => this.stepBy(by);
      this.options.need?.();
      return;
    }
    const now = this.chart.moment;
    const near = 1e-6 * this.chart.extent();
    let to;
    if (now === null) to = by > 0 ? moments[0] : moments[moments.length - 1];
    else if (by > 0) to = moments.find((moment) => moment > now + near);
    else to = moments.filter((moment) => moment < now - near).pop();
    if (to !== undefined) this.goto(to);
  }

  goto(moment) {
    if (!Number.isFinite(moment)) return;
    this.pinned = this.hover = null;
    this.chart.mark = null;
    this.chart.moment = Math.min(Math.max(moment, 0), this.chart.extent());
    this.when.value = number(this.chart.moment);
    if (this.chart.window && (this.chart.moment < this.chart.window[0] || this.chart.moment > this.chart.window[1])) this.chart.zoom(1, this.chart.moment);
    this.moveSlider();
    this.chart.overlay();
    this.speak();
  }

  zoom(by) {
    const { mark, moment } = this.chart;
    let centre = moment;
    if (mark) {
      const scene = this.chart.scenes[mark.panel];
      const [start, end] = mark.kind === "block" ? [scene.blocks.start[mark.index], scene.blocks.end[mark.index]] : scene.gaps[mark.index].slice(1, 3);
      centre = (start + end) / 2;
    }
    this.chart.zoom(by, centre);
    this.moveSlider();
  }

  moveSlider() {
    const { window: shown } = this.chart;
    this.scroll.hidden = !shown;
    if (shown) this.slider.value = String(Math.round((1000 * shown[0]) / (this.chart.extent() - (shown[1] - shown[0]))));
  }

  /** Draw `scenes`. `options`: {pairs, names}. */
  show(scenes, options = {}) {
    if (!scenes.length) return;
    const before = this.chart.scenes;
    const changed = before.length !== scenes.length || before.some((scene, k) => scene.extent !== scenes[k].extent);
    if (changed) {
      this.chart.window = null;
      this.chart.moment = null;
      this.chart.mark = this.pinned = this.hover = null;
      this.when.value = "";
    }
    const named = options.pairs ? options.names.map((name, k) => `${name}: ${scenes[k].figures}`).join(" · ") : "";
    this.title.textContent = options.pairs ? `${scenes[0].title}, ${options.names[1]} below ${options.names[0]}` : scenes.length === 1 ? scenes[0].title : "";
    this.figures.textContent = scenes.length === 1 ? scenes[0].figures : named;
    const clocks = [...new Set(scenes.map((scene) => scene.clock))];
    const notes = options.pairs ? [] : [...new Set(scenes.map((scene) => scene.memory.note))];
    this.clock.textContent = [...clocks, ...notes, "Counting starts at 0."].join(" ");
    this.chart.show(scenes, { pairs: false, names: [], ...options });
    this.stage.setAttribute("aria-label", `Timeline: ${scenes.map((scene) => `${scene.title}, ${scene.figures}`).join("; ")}. Arrow keys move between actions and idle times, plus and minus zoom, square brackets step.`);
    this.fillLegend(scenes);
    this.moveSlider();
    this.speak();
    this.fillTwin();
  }

  /** What is needed to be asked: more columns for the blocks of each scene. */
  detail(details) {
    details.forEach((detail, k) => Object.assign(this.chart.scenes[k].blocks, detail));
    const { wanted } = this;
    this.wanted = null;
    this.chart.overlay();
    this.speak();
    this.fillTwin();
    if (wanted) wanted();
  }

  fillLegend(scenes) {
    const entries = new Map();
    for (const scene of scenes) for (const [letter, word, colour, ink] of scene.legend) entries.set(letter, [word, colour, ink]);
    fill(
      this.legend,
      ...[...entries].map(([letter, [word, colour, ink]]) => h("span", {}, h("span", { class: "pl-swatch", style: `background:${colour};color:${ink}`, "aria-hidden": "true" }, letter), word)),
      h("span", {}, h("span", { class: "pl-swatch pl-idle", "aria-hidden": "true" }), "idle"),
      h("span", {}, "thin line: end of the makespan"),
      this.chart.options.pairs ? null : h("span", {}, `strip below: ${scenes[0].memory.name}${scenes[0].memory.limits ? ", dashed: the memory limit" : ""}`),
    );
  }

  /** The table in words: filled when it is opened. */
  fillTwin() {
    const summary = this.twin.firstElementChild;
    if (!this.twin.open || this.chart.scenes.some((scene) => !scene.blocks.told)) {
      fill(this.twin, summary);
      if (this.twin.open) this.options.need?.();
      return;
    }
    const several = this.chart.scenes.length > 1;
    const rows = [];
    this.chart.scenes.forEach((scene, panel) => {
      const name = (this.chart.options.names || [])[panel] || scene.title;
      this.chart.items[panel].forEach((items, device) => {
        for (const item of items) {
          const words = item.kind === "block" ? scene.blocks.told[item.index].replace(/^[^:]*: /, "") : scene.gaps[item.index][4];
          rows.push(
            h(
              "tr",
              {},
              several ? h("td", {}, name) : null,
              h("td", {}, scene.devices[device]),
              h("td", {}, item.kind === "block" ? this.label(scene, item.index) : "idle"),
              h("td", { class: "pl-num" }, number(item.start)),
              h("td", { class: "pl-num" }, number(item.end)),
              h("td", {}, words),
            ),
          );
        }
      });
    });
    const unit = this.chart.scenes[0].unit;
    const heads = [several ? "timeline" : null, "device", "action", `from (${unit})`, `to (${unit})`, "why"].filter(Boolean);
    fill(
      this.twin,
      summary,
      h("div", { class: "pl-table", tabindex: "0", role: "region", "aria-label": "Table of actions" }, h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, rows))),
    );
  }

  redraw() {
    this.chart.draw();
  }

  close() {
    this.chart.close();
  }
}

function renderTimeline({ model, root }) {
  const pane = new TimelinePane(root);
  const draw = () => {
    const view = JSON.parse(model.get("view"));
    pane.chart.critical = pane.critical.checked = Boolean(view.critical);
    pane.show(view.scenes);
  };
  model.on("change:view", draw);
  draw();
  return {
    redraw: () => pane.redraw(),
    close: () => {
      model.off("change:view", draw);
      pane.close();
    },
  };
}
