// The drawing board: a grid of devices and columns of time. What may stand where, and why not, is asked of the board.

class BoardPane {
  constructor({ model, root, link }) {
    this.model = model;
    this.link = link;
    this.root = root;
    this.selected = [0, 0];
    this.choices = [];
    this.head = h("div");
    this.waiting = h("div", { class: "pl-note", role: "status" });
    this.grid = h("div", { class: "pl-grid-area", role: "grid", "aria-label": "Board: a row for each device, a column for each slot of time. Arrow keys move; an action's letter, such as F, places the next one; Delete removes an action." });
    this.palette = h("div", { class: "pl-palette", role: "group", "aria-label": "What could stand in this cell" });
    this.said = h("div", { class: "pl-say", role: "status", "aria-live": "polite" });
    this.status = h("div", { class: "pl-note", role: "status" });
    this.score = h("div", { class: "pl-score" });
    this.trial = h("div");
    this.makeTools();
    const runs = h("div");
    const help = h("p", { class: "pl-small" }, "Click a dashed action to place it; click any other cell for what may stand there. Keys: arrows, the letter of an action for the next one, Enter, Delete, Ctrl+Z.");
    root.append(this.head, this.waiting, this.tools, help, h("div", { class: "pl-grid-scroll" }, this.grid), this.palette, this.said, this.status, this.score, runs, this.trial);
    this.runs = new RunRow(runs, { model, link }, "trains the 48-layer model by this table and compares gradients", [["csv", "grid (CSV)"], ["picture", "picture (PNG)"], ["svg", "picture (SVG)"], ["gif", "animation (GIF)"]]);
    link.waits.add((words) => (this.waiting.textContent = words));
    this.grid.addEventListener("keydown", (event) => this.key(event));
    this.hear = (content) => {
      if (content.cell) this.looked(content);
    };
    this.onView = () => this.draw();
    model.on("msg:custom", this.hear);
    model.on("change:view", this.onView);
    this.draw();
    this.look();
  }

  makeTools() {
    const button = (label, what, title) => h("button", { type: "button", title, onclick: () => this.ask({ do: what }) }, label);
    this.undo = button("Undo", "undo", "Undo the last move (Ctrl+Z)");
    this.redo = button("Redo", "redo", "Do it again (Ctrl+Y)");
    this.clear = button("Clear", "clear", "Empty the board");
    this.showReady = h("input", { type: "checkbox", checked: true, onchange: () => this.draw() });
    this.file = h("input", { type: "file", accept: ".csv,text/csv", id: unique("file"), class: "pl-hidden", onchange: () => this.load() });
    const load = h("button", { type: "button", title: "Load a grid that was saved", onclick: () => this.file.click() }, "Load CSV");
    this.file.setAttribute("aria-label", "CSV file of a grid to load");
    this.file.tabIndex = -1;
    this.tools = h("div", { class: "pl-row pl-tools", role: "toolbar", "aria-label": "Board" }, h("span", { class: "pl-group" }, this.undo, this.redo, this.clear, load, this.file), h("label", {}, this.showReady, "show what is ready"));
  }

  load() {
    const [file] = this.file.files;
    if (!file) return;
    if (file.size > 200000) this.tell(`${file.name} is too large to be a grid; the board is as it was.`, true);
    else file.text().then((text) => this.ask({ do: "load", text, name: file.name }));
    this.file.value = "";
  }

  /** Ask for a move; a refusal is said. */
  ask(what) {
    this.link.ask(what, (said) => {
      if (said) this.tell(said, true);
      this.look();
      this.root.dataset.answers = String(Number(this.root.dataset.answers || 0) + 1);
    });
  }

  tell(words, refused = false) {
    tell(this.said, words);
    this.said.classList.toggle("pl-refused", refused);
    this.said.classList.toggle("pl-strong", !refused && Boolean(words));
  }

  look() {
    const [device, time] = this.selected;
    this.link.ask({ do: "look", device, time }, null, "look");
  }

  /** Ask what may stand in the cell chosen now, then `act` on that cell, wherever the choice has gone meanwhile. */
  lookAndThen(act) {
    const [device, time] = this.selected;
    this.link.ask({ do: "look", device, time }, () => {
      if (this.seen && this.seen.cell[0] === device && this.seen.cell[1] === time) act(device, time, this.seen);
    });
  }

  looked({ cell, here, choices }) {
    this.seen = { cell, here, choices };
    if (cell[0] !== this.selected[0] || cell[1] !== this.selected[1]) return;
    this.here = here;
    this.choices = choices;
    const where = `Device ${cell[0]}, t = ${cell[1]}: `;
    if (here) {
      fill(this.palette, h("span", {}, `${where}${here}.`), h("button", { type: "button", onclick: () => this.take() }, `Take ${here} away`));
    } else if (!choices.length) fill(this.palette, h("span", {}, `${where}everything of this device is placed.`));
    else {
      fill(
        this.palette,
        h("span", {}, where),
        choices.map(([action, legal, reason]) =>
          h("button", { type: "button", class: legal ? "pl-legal" : "pl-off", title: reason, "aria-label": legal ? `Place ${action}` : `${action}: ${reason}`, onclick: () => this.place(action) }, legal ? action : h("s", {}, action)),
        ),
        choices.every(([, legal]) => !legal) ? h("span", { class: "pl-small" }, "press one to hear why not") : null,
      );
    }
    this.root.dataset.looked = `${cell}`;
  }

  place(action, [device, time] = this.selected) {
    this.ask({ do: "place", device, time, action });
  }

  take() {
    if (this.here) this.ask({ do: "take", action: this.here });
  }

  /** The next action of this device with the letter `op`, legal ones first. */
  placeNext(op) {
    this.lookAndThen((device, time, { here, choices }) => {
      const found = choices.find(([action]) => action.replace(/\d/g, "") === op);
      if (found) this.place(found[0], [device, time]);
      else this.tell(here ? `${here} stands here already.` : `There is no ${op} left to place on device ${device}.`, true);
    });
  }

  placeFirst() {
    this.lookAndThen((device, time, { choices }) => {
      const found = choices.find(([, legal]) => legal) || choices[0];
      if (found) this.place(found[0], [device, time]);
    });
  }

  select(device, time, focus = true) {
    this.clicked = null;
    const { devices, columns } = this.view;
    this.selected = [Math.min(Math.max(device, 0), devices - 1), Math.min(Math.max(time, 0), columns - 1)];
    for (const cell of this.cells.values()) {
      cell.tabIndex = -1;
      cell.classList.remove("pl-here");
      cell.removeAttribute("aria-selected");
    }
    const cell = this.cells.get(String(this.selected));
    cell.tabIndex = 0;
    cell.classList.add("pl-here");
    cell.setAttribute("aria-selected", "true");
    if (focus) cell.focus({ preventScroll: false });
    this.look();
  }

  key(event) {
    const [device, time] = this.selected;
    const command = event.ctrlKey || event.metaKey;
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (moves[event.key] && !command) this.select(device + moves[event.key][0], time + moves[event.key][1]);
    else if (event.key === "Home") this.select(device, 0);
    else if (event.key === "End") this.select(device, this.view.columns - 1);
    else if (command && event.key === "z" && !event.shiftKey) this.ask({ do: "undo" });
    else if (command && (event.key === "y" || (event.key.toLowerCase() === "z" && event.shiftKey))) this.ask({ do: "redo" });
    else if (command || event.altKey) return;
    else if (event.key.length === 1 && this.view.ops.includes(event.key.toUpperCase())) this.placeNext(event.key.toUpperCase());
    else if (event.key === "u") this.ask({ do: "undo" });
    else if (event.key === "Enter" || event.key === " ") this.placeFirst();
    else if (event.key === "Delete" || event.key === "Backspace") {
      this.lookAndThen((there, then, { here }) => (here ? this.ask({ do: "take", action: here }) : this.tell("There is nothing in this cell to take away.", true)));
    } else return;
    event.preventDefault();
  }

  draw() {
    const view = (this.view = JSON.parse(this.model.get("view")));
    this.drawHead(view);
    this.drawGrid(view);
    this.undo.disabled = !view.undo;
    this.redo.disabled = !view.redo;
    this.tell(view.said);
    if (this.statusSaid !== view.status.sentence) this.status.textContent = this.statusSaid = view.status.sentence;
    else this.status.querySelector("button")?.remove();
    this.status.className = view.status.done ? "pl-note pl-done" : "pl-plain";
    if (view.status.done && view.puzzle) {
      const at = view.ladder.findIndex(([name]) => name === view.puzzle);
      const next = view.ladder[at + 1];
      if (next) this.status.append(" ", h("button", { type: "button", onclick: () => this.ask({ do: "puzzle", name: next[0] }) }, `Next puzzle: ${next[1]}`));
    }
    this.runs.offer(view.status.done);
    this.drawScore(view);
    this.drawTrial(view);
    this.root.dataset.placed = view.done.join("/");
    this.root.dataset.done = String(view.status.done);
  }

  drawHead(view) {
    const ladder = view.ladder.length
      ? labelled(
          "Puzzle",
          h("select", { onchange: (event) => this.ask({ do: "puzzle", name: event.target.value }) }, view.ladder.map(([name, title, solved], k) => h("option", { value: name, selected: name === view.puzzle }, `${k + 1}. ${title}${solved ? " (solved)" : ""}`))),
        )
      : null;
    const open = this.opened === view.puzzle;
    const hints = view.hints.length
      ? h("details", { open, ontoggle: (event) => (this.opened = event.target.open ? view.puzzle : null) }, h("summary", {}, "Hints"), view.hints.map((hint, k) => h("details", { class: "pl-hint" }, h("summary", {}, ["a nudge", "the approach", "nearly the answer"][k]), h("p", {}, hint))))
      : null;
    const held = this.head.querySelector("select") === document.activeElement && document.activeElement !== null;
    const signature = JSON.stringify([view.puzzle, view.ladder, view.rules]);
    if (signature === this.headed) return;
    this.headed = signature;
    fill(this.head, ladder, h("h3", {}, view.title), view.text ? h("p", {}, view.text) : null, view.goal ? h("p", {}, h("strong", {}, "Goal. "), view.goal) : null, h("p", { class: "pl-small" }, view.rules), hints);
    if (held) this.head.querySelector("select").focus();
  }

  drawGrid(view) {
    const focused = this.grid.contains(document.activeElement);
    const { devices, columns } = view;
    this.selected = [Math.min(this.selected[0], devices - 1), Math.min(this.selected[1], columns - 1)];
    const filled = new Map();
    for (const one of view.actions) for (let k = 0; k < one[3]; k += 1) filled.set(`${one[1]},${one[2] + k}`, one);
    const ghosts = new Map();
    if (this.showReady.checked) {
      for (const [device, time, action] of view.openings) {
        const key = `${device},${time}`;
        ghosts.set(key, [...(ghosts.get(key) || []), action]);
      }
    }
    this.cells = new Map();
    const most = Math.max(1, ...view.held.flat(), ...view.limits.filter((limit) => limit !== null));
    const rows = [];
    const times = [h("div", { role: "columnheader", class: "pl-corner" }, "t =")];
    for (let time = 0; time < columns; time += 1) {
      times.push(h("div", { role: "columnheader", class: `pl-time${view.target === time ? " pl-target" : ""}` }, view.target === time ? `${time} goal` : String(time)));
    }
    rows.push(h("div", { role: "row", class: "pl-grid-row" }, times));
    for (let device = 0; device < devices; device += 1) {
      const chunked = view.stages[device].length > 1;
      const cells = [h("div", { role: "rowheader", class: "pl-device" }, `device ${device}`, chunked ? h("span", { class: "pl-small" }, `stages ${view.stages[device].join(", ")}`) : null)];
      for (let time = 0; time < columns; time += 1) cells.push(this.cell(view, device, time, filled.get(`${device},${time}`), ghosts.get(`${device},${time}`)));
      const held = view.held[device];
      const limit = view.limits[device];
      const peak = Math.max(0, ...held);
      cells.push(h("div", { role: "gridcell", class: "pl-peak" }, `${number(peak)}${limit === null ? "" : ` of ${number(limit)}`} in flight`));
      rows.push(h("div", { role: "row", class: "pl-grid-row" }, cells));
      const bars = [h("div", { class: "pl-device" })];
      for (let time = 0; time < columns; time += 1) {
        const value = held[time] || 0;
        const full = limit !== null && value >= limit;
        bars.push(h("div", { class: "pl-bar" }, h("div", { class: full ? "pl-full" : "", style: `height:${(100 * value) / most}%` })));
      }
      rows.push(h("div", { class: "pl-grid-row pl-bars", "aria-hidden": "true" }, bars));
    }
    this.grid.style.setProperty("--pl-columns", columns);
    fill(this.grid, rows);
    const cell = this.cells.get(String(this.selected));
    cell.tabIndex = 0;
    cell.classList.add("pl-here");
    cell.setAttribute("aria-selected", "true");
    if (focused) cell.focus();
  }

  cell(view, device, time, one, ghosts) {
    const edge = view.target !== null && time === view.target ? " pl-target" : "";
    let made;
    if (one) {
      const [action, , start, , colour, ink, wrong] = one;
      const first = start === time;
      const last = start + one[3] - 1 === time;
      const words = `device ${device}, t = ${time}: ${action}${first ? "" : " goes on"}${wrong ? `, wrong: ${wrong}` : ""}`;
      made = h("div", { role: "gridcell", class: `pl-cell pl-block${first ? " pl-first" : ""}${last ? " pl-last" : ""}${wrong ? " pl-wrong" : ""}${edge}`, "aria-label": words, title: wrong || "", style: `background:${colour};color:${ink}` }, first ? action : h("span", { "aria-hidden": "true" }, "·"));
    } else {
      const words = `device ${device}, t = ${time}: empty${ghosts ? `, ready here: ${ghosts.join(", ")}` : ""}`;
      made = h("div", { role: "gridcell", class: `pl-cell${ghosts ? " pl-ghost" : ""}${edge}`, "aria-label": words }, ghosts ? ghosts.map((ghost) => h("span", {}, ghost)) : "");
    }
    made.tabIndex = -1;
    made.addEventListener("click", () => {
      if (ghosts && ghosts.length === 1 && !one) {
        this.select(device, time);
        this.place(ghosts[0], [device, time]);
        return;
      }
      const again = this.clicked === `${device},${time}`;
      if (!again) this.select(device, time);
      else if (!one) this.placeFirst();
      this.clicked = `${device},${time}`;
    });
    made.addEventListener("focus", () => {
      if (this.selected[0] !== device || this.selected[1] !== time) this.select(device, time, false);
    });
    this.cells.set(`${device},${time}`, made);
    return made;
  }

  drawScore(view) {
    if (!view.score) {
      fill(this.score);
      return;
    }
    const heads = ["schedule", "columns", "in flight on each device", "within the cap"];
    const capped = view.limits.some((limit) => limit !== null);
    const shown = capped ? 4 : 3;
    fill(
      this.score,
      view.puzzle ? h("p", { class: "pl-small" }, view.score.sentence) : null,
      h("table", { class: "pl-figures" }, h("caption", { class: "pl-hidden" }, "Score"), h("thead", {}, h("tr", {}, heads.slice(0, shown).map((head, k) => h("th", { scope: "col", class: k === 1 ? "pl-num" : "" }, head)))), h("tbody", {}, view.score.rows.map((row) => h("tr", {}, row.slice(0, shown).map((text, k) => h(k ? "td" : "th", { scope: k ? null : "row", class: k === 1 ? "pl-num" : "" }, String(text))))))),
    );
  }

  drawTrial(view) {
    if (this.pane) this.pane.close();
    this.pane = null;
    fill(this.trial);
    if (!view.trial) return;
    this.pane = new TimelinePane(this.trial);
    this.pane.show(view.trial, { phases: false });
  }

  redraw() {
    if (this.pane) this.pane.redraw();
  }

  close() {
    this.model.off("msg:custom", this.hear);
    this.model.off("change:view", this.onView);
    this.runs.close();
    if (this.pane) this.pane.close();
  }
}

function renderBoard(parts) {
  const pane = new BoardPane(parts);
  return { redraw: () => pane.redraw(), close: () => pane.close() };
}
