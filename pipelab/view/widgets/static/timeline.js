// A timeline that can be asked: played, zoomed, pointed at, its critical path, and the same in words.

class TimelinePane {
  /** `options.need`: called when someone asks for what has not been sent yet; `detail()` brings it. `options.pick`: with
   * the panel and index of a block that is clicked. */
  constructor(root, options = {}) {
    this.options = options;
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
    this.chart = new Chart(this.stage, () => this.redo());
    this.player = new Player(this);
    this.devices = new Devices();
    this.order = new OrderTable((panel, index) => this.pin({ panel, kind: "block", index }));
    this.account = new AccountLine();
    this.makeTools();
    root.append(this.title, this.figures, this.tools, this.devices.root, this.stage, this.scroll, this.legend, this.say, this.account.root, this.order.root, this.foot);
    this.listen();
  }

  makeTools() {
    const button = (label, words, act) => h("button", { type: "button", title: words, "aria-label": words, onclick: act }, label);
    this.critical = h("input", { type: "checkbox" });
    this.critical.addEventListener("change", () => {
      this.chart.critical = this.critical.checked;
      this.chart.overlay();
      this.speak();
    });
    this.lanes = h("input", { type: "checkbox" });
    this.lanes.addEventListener("change", () => this.messages(this.lanes.checked));
    this.laned = h("label", {}, this.lanes, "messages");
    fill(
      this.tools,
      this.player.root,
      h(
        "span",
        { class: "pl-group" },
        button("−", "Zoom out", () => this.zoom(0.5)),
        button("+", "Zoom in", () => this.zoom(2)),
        button("All", "Show the whole time", () => this.zoom(1e-9)),
      ),
      h("label", {}, this.critical, "critical path"),
      this.laned,
    );
  }

  /** Whether the lanes of messages are drawn; what they show is asked for where it has not been sent. */
  messages(shown) {
    this.chart.lanes = this.lanes.checked = shown;
    if (!shown && this.pinned?.kind === "message") this.pin(null);
    if (shown && this.chart.scenes.some((scene) => !scene.blocks.lanes)) this.options.need?.();
    this.redraw();
    this.note();
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
      this.pin(place(event));
      this.pick();
    });
    this.stage.addEventListener("keydown", (event) => this.key(event));
    this.stage.addEventListener("focus", () => {
      if (!this.pinned && !this.hover && this.stage.matches(":focus-visible")) {
        this.pin(this.chart.first());
      }
    });
    this.slider.addEventListener("input", () => {
      const wide = this.chart.window ? this.chart.window[1] - this.chart.window[0] : 0;
      this.chart.pan((Number(this.slider.value) / 1000) * (this.chart.extent() - wide));
    });
    this.twin.addEventListener("toggle", () => this.fillTwin());
  }

  pin(mark) {
    this.pinned = mark;
    this.point(mark);
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
      "[": () => this.player.step(-1),
      "]": () => this.player.step(1),
      " ": () => this.player.toggle(),
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
    this.player.pause();
    this.point(null);
  }

  point(mark) {
    this.chart.mark = mark;
    this.redo();
    this.speak();
  }

  /** What lies over the picture, and what is lit beside it. */
  redo() {
    const { scenes, mark, moment, options } = this.chart;
    if (!scenes.length) return;
    this.chart.flowing = this.player.playing;
    this.chart.overlay();
    this.devices.draw(scenes, options.names, moment, this.player.playing ? 0.35 * this.player.rate * Number(this.player.speed.value) : 0);
    const panel = mark ? mark.panel : 0;
    const scene = scenes[panel];
    const { device, takes, takers } = scene.blocks;
    const several = scenes.length > 1 ? options.names[panel] || scene.title : "";
    if (!mark || mark.kind === "message") {
      this.order.light(panel, null);
      this.account.show(scene, 0, null, several);
    } else if (mark.kind === "block") {
      this.order.light(panel, mark.index, takes ? takes[mark.index].map(([source]) => source) : [], takers ? takers[mark.index] : []);
      this.account.show(scene, device[mark.index], "work", several);
    } else {
      const [where, , , cause] = scene.gaps[mark.index];
      this.order.light(panel, null);
      this.account.show(scene, where, scene.account.kinds.includes(cause) ? cause : "wait", several);
    }
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
      const words = {
        block: () => [scene.blocks.told[mark.index], ...this.chart.kept(mark).map(([, , , , held]) => held)].join(" "),
        gap: () => this.idle(scene, scene.gaps[mark.index]),
        message: () => scene.blocks.lanes.told[mark.index],
      };
      this.say.textContent = name + words[mark.kind]();
    } else if (moment !== null) {
      fill(this.say, ...scenes.map((scene, panel) => h("div", {}, (several ? `${(this.chart.options.names || [])[panel] || scene.title}: ` : "") + this.now(scene, moment))));
    } else if (this.chart.critical) {
      fill(this.say, ...scenes.map((scene) => h("div", {}, `Critical path of ${scene.title}, ${scene.blocks.critical.length} actions, each begun when the one before let it: ${this.names(scene, scene.blocks.critical, 14)}.`)));
    } else this.say.textContent = "Point at a block, at idle time or at a message in a lane, or press Tab and the arrow keys: what it waited for, and why a " + `${scenes[0] ? scenes[0].row : "device"} idles.`;
  }

  idle(scene, [device, start, end, , sentence]) {
    return `Idle, ${number(start)} to ${number(end)} ${scene.unit}. ${sentence}`;
  }

  names(scene, indices, most = 12) {
    const shown = indices.slice(0, most).map((index) => blockName(scene, index));
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
    parts.push(waiting.length ? `Ready, but their ${scene.row} does something else first: ${this.names(scene, waiting)}.` : "Nothing else is ready.");
    return parts.join(" ");
  }

  get extent() {
    return this.chart.extent();
  }

  get moment() {
    return this.chart.moment;
  }

  /** Whether all is here that it takes to be played; if not it is asked for, and `then` is done when it has come. */
  ready(then) {
    if (this.moments().length) return true;
    this.wanted = then;
    this.options.need?.();
    return false;
  }

  moments() {
    const found = new Set();
    this.chart.scenes.forEach((scene) => (scene.blocks.moments || []).forEach((moment) => found.add(moment)));
    return [...found].sort((a, b) => a - b);
  }

  stepBy(by) {
    if (!this.ready(() => this.stepBy(by))) return;
    const moments = this.moments();
    const now = this.chart.moment;
    const near = 1e-6 * this.chart.extent();
    let to;
    if (now === null) to = by > 0 ? moments[0] : moments[moments.length - 1];
    else if (by > 0) to = moments.find((moment) => moment > now + near);
    else to = moments.filter((moment) => moment < now - near).pop();
    if (to !== undefined) this.goto(to);
  }

  /** Show the time `moment`; on the way there (`flowing`) what is said changes only where something starts or ends. */
  goto(moment, flowing = false) {
    if (!Number.isFinite(moment)) return;
    const before = this.chart.moment;
    this.pinned = this.hover = null;
    this.chart.mark = null;
    this.chart.moment = Math.min(Math.max(moment, 0), this.extent);
    this.say.setAttribute("aria-live", this.player.playing ? "off" : "polite");
    this.player.show();
    if (this.chart.window && (this.chart.moment < this.chart.window[0] || this.chart.moment > this.chart.window[1])) this.chart.zoom(1, this.chart.moment);
    this.moveSlider();
    this.redo();
    if (!flowing || this.moments().some((one) => before < one && one <= this.chart.moment)) this.speak();
  }

  zoom(by) {
    const { mark, moment } = this.chart;
    let centre = moment;
    if (mark) {
      const [start, end] = this.chart.times(mark);
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
      this.player.pause();
    }
    const named = options.pairs ? options.names.map((name, k) => `${name}: ${scenes[k].figures}`).join(" · ") : "";
    this.title.textContent = options.pairs ? `${scenes[0].title}, ${options.names[1]} below ${options.names[0]}` : scenes.length === 1 ? scenes[0].title : "";
    this.figures.textContent = scenes.length === 1 ? scenes[0].figures : named;
    this.chart.show(scenes, { pairs: false, names: [], ...options });
    this.laned.hidden = Boolean(options.pairs);
    this.stage.setAttribute("aria-label", `Timeline: ${scenes.map((scene) => `${scene.title}, ${scene.figures}`).join("; ")}. Arrow keys move between actions and idle times, plus and minus zoom, square brackets step.`);
    this.order.show(scenes, this.chart.options.names, Boolean(options.pairs));
    this.note();
    this.moveSlider();
    this.player.show();
    this.redo();
    this.speak();
    this.fillTwin();
  }

  /** What is needed to be asked: more columns for the blocks of each scene. */
  detail(details) {
    details.forEach((detail, k) => Object.assign(this.chart.scenes[k].blocks, detail));
    const { wanted } = this;
    this.wanted = null;
    if (this.chart.lanes) this.messages(true);
    this.redo();
    this.speak();
    this.fillTwin();
    if (wanted) wanted();
  }

  /** What is written below the picture: clocks, what its strips and lanes show, and the legend. */
  note() {
    const { scenes, options } = this.chart;
    const strips = options.pairs ? [] : [...scenes.map((scene) => scene.memory.note), ...scenes.filter((scene) => scene.versions).map((scene) => scene.versions.note)];
    const notes = new Set([...scenes.map((scene) => scene.clock), ...this.chart.laneNotes(), ...strips]);
    this.clock.textContent = [...notes, ...new Set(scenes.map((scene) => scene.counting))].join(" ");
    this.fillLegend(scenes);
  }

  fillLegend(scenes) {
    const entries = new Map();
    const lanes = this.chart.laneNotes().length ? scenes.find((scene) => scene.blocks.lanes).blocks.lanes.kinds : [];
    for (const scene of scenes) for (const [letter, word, colour, ink] of scene.legend) entries.set(word, [letter, colour, ink]);
    fill(
      this.legend,
      ...[...entries].map(([word, [letter, colour, ink]]) => h("span", {}, h("span", { class: "pl-swatch", style: `background:${colour};color:${ink}`, "aria-hidden": "true" }, letter), word)),
      h("span", {}, h("span", { class: "pl-swatch pl-idle", "aria-hidden": "true" }), "idle"),
      ...lanes.map(([word, colour]) => h("span", {}, h("span", { class: "pl-swatch pl-lane", style: `background:${colour}`, "aria-hidden": "true" }), word)),
      h("span", {}, "thin line: end of the makespan"),
      scenes.some((scene) => scene.versions) ? h("span", {}, "v3: version of the weights that a block uses") : null,
      this.chart.options.pairs ? null : h("span", {}, `strip below: ${scenes[0].memory.name}${scenes[0].memory.limits ? ", dashed: the memory limit" : ""}${scenes.some((scene) => scene.versions) ? "; last strip: versions kept" : ""}`),
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
        const updates = scene.updates.filter(([r]) => r === device).map((update) => ({ kind: "update", start: update[1], end: update[2], update }));
        const all = [...items, ...updates].sort((a, b) => a.start - b.start || a.end - b.end);
        for (const item of all) {
          const told = { block: () => scene.blocks.told[item.index], gap: () => scene.gaps[item.index][4], update: () => item.update[5] || "The optimizer's update." }[item.kind]();
          const words = item.kind === "gap" ? told : told.replace(/^[^:]*: /, "");
          rows.push(
            h(
              "tr",
              {},
              several ? h("td", {}, name) : null,
              h("td", {}, scene.devices[device]),
              h("td", {}, { block: () => blockName(scene, item.index), gap: () => "idle", update: () => item.update[3] }[item.kind]()),
              h("td", { class: "pl-num" }, number(item.start)),
              h("td", { class: "pl-num" }, number(item.end)),
              h("td", {}, words),
            ),
          );
        }
      });
    });
    const unit = this.chart.scenes[0].unit;
    const heads = [several ? "timeline" : null, this.chart.scenes[0].row, "action", `from (${unit})`, `to (${unit})`, "why"].filter(Boolean);
    fill(
      this.twin,
      summary,
      h("div", { class: "pl-table", tabindex: "0", role: "region", "aria-label": "Table of actions" }, h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, rows))),
    );
  }

  redraw() {
    this.chart.draw();
    this.redo();
  }

  close() {
    this.player.close();
    this.chart.close();
  }
}

function renderTimeline({ model, root, link }) {
  const pane = new TimelinePane(root);
  const saver = new Saver(link, [["picture", "picture (PNG)"], ["svg", "picture (SVG)"], ["gif", "animation (GIF)"]]);
  pane.tools.append(saver.root);
  pane.tools.after(saver.said);
  const draw = () => {
    const view = JSON.parse(model.get("view"));
    pane.chart.critical = pane.critical.checked = Boolean(view.critical);
    pane.chart.lanes = pane.lanes.checked = Boolean(view.lanes);
    pane.show(view.scenes, { phases: view.phases });
    if (view.play) pane.player.begin(pane.stage);
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
