// Break it: drop, swap or start early one action of a sound schedule, and read what follows.

class BreakerPane {
  constructor({ model, root, link }) {
    this.model = model;
    this.link = link;
    this.root = root;
    this.waiting = h("div", { class: "pl-note", role: "status" });
    this.device = h("select", { onchange: () => this.fillActions() });
    this.action = h("select", { onchange: () => this.drawWays() });
    const way = (name, label) => h("button", { type: "button", onclick: () => this.breakIt(name) }, label);
    this.ways = { drop: way("drop", "Drop it"), swap: way("swap", "Swap with the next"), early: way("early", "Start it early") };
    this.reset = h("button", { type: "button", onclick: () => this.ask({ do: "reset" }) }, "Restore");
    this.note = h("span", { class: "pl-small" });
    this.said = h("div", { class: "pl-note", role: "status", "aria-live": "polite" });
    const picture = h("div");
    const runs = h("div");
    root.append(
      h("div", { class: "pl-row pl-tools" }, labelled("Device", this.device), labelled("Action", this.action), h("span", { class: "pl-group" }, Object.values(this.ways)), this.reset, this.note),
      this.waiting,
      this.said,
      picture,
      runs,
    );
    this.pane = new TimelinePane(picture, { pick: (panel, index) => this.pick(panel, index) });
    this.runs = new RunRow(runs, { model, link }, "what is sound trains the 48-layer model; the rest is refused", [["csv", "table (CSV)"], ["picture", "picture (PNG)"], ["svg", "picture (SVG)"]]);
    link.waits.add((words) => (this.waiting.textContent = words));
    this.onView = () => this.draw();
    model.on("change:view", this.onView);
    this.draw();
  }

  ask(what) {
    this.link.ask(what, (said) => {
      if (said) this.say([said], true);
      this.root.dataset.answers = String(Number(this.root.dataset.answers || 0) + 1);
    });
  }

  breakIt(way) {
    const early = this.entry();
    if (way === "early" && !early[1]) this.say([`What ${early[0]} needs was there before it started: starting it sooner breaks nothing. Choose an action right behind idle time.`], true);
    else if (way === "swap" && !early[2]) this.say([`${early[0]} is the last of its device: there is none behind it to change places with.`], true);
    else this.ask({ do: "break", way, device: Number(this.device.value), position: Number(this.action.value) });
  }

  /** A block of the sound schedule's picture was clicked: it is the action to break. */
  pick(panel, index) {
    if (panel !== 0) return;
    const { device, start } = this.view.scenes[0].blocks;
    const row = device.map((r, k) => [r, start[k], k]).filter(([r]) => r === device[index]).sort((a, b) => a[1] - b[1]);
    this.device.value = String(device[index]);
    this.fillActions();
    this.action.value = String(row.findIndex(([, , k]) => k === index));
    this.drawWays();
  }

  entry() {
    return this.view.actions[Number(this.device.value)][Number(this.action.value)];
  }

  say(sentences, refused) {
    fill(this.said, sentences.map((sentence) => h("div", {}, sentence)));
    this.said.className = `pl-note ${refused ? "pl-problem" : "pl-done"}`;
  }

  fillActions() {
    const row = this.view.actions[Number(this.device.value)];
    fill(this.action, row.map(([slot], k) => h("option", { value: String(k) }, slot)));
    this.drawWays();
  }

  drawWays() {
    const [, early, next] = this.entry();
    this.ways.early.classList.toggle("pl-off", !early); // pressed all the same they say why not
    this.ways.swap.classList.toggle("pl-off", !next);
  }

  draw() {
    const view = (this.view = JSON.parse(this.model.get("view")));
    if (!this.device.options.length) {
      fill(this.device, view.actions.map((_, k) => h("option", { value: String(k) }, String(k))));
      this.fillActions();
    }
    if (view.place) {
      this.device.value = String(view.place[0]);
      this.fillActions();
      this.action.value = String(view.place[1]);
      this.drawWays();
    }
    this.reset.disabled = view.whole;
    this.runs.offer(view.sound);
    if (view.whole) this.say([view.said, "A sound schedule. Click an action in the picture, or choose it above, and break it. Each break starts from the sound schedule."].filter(Boolean), false);
    else {
      const checker = view.violations.length ? [`The checker: ${view.violations.join("; ")}${view.more ? `; and ${view.more} more` : ""}.`] : ["The checker finds nothing wrong with it."];
      const follows = view.sentences.filter((sentence) => !view.violations.some((violation) => sentence.toLowerCase().includes(violation.toLowerCase())));
      this.say([view.said, ...checker, ...follows], !view.sound);
    }
    this.pane.show(view.scenes, { phases: false });
    this.root.dataset.hangs = String(view.hangs);
  }

  redraw() {
    this.pane.redraw();
  }

  close() {
    this.model.off("change:view", this.onView);
    this.runs.close();
    this.pane.close();
  }
}

function renderBreaker(parts) {
  const pane = new BreakerPane(parts);
  return { redraw: () => pane.redraw(), close: () => pane.close() };
}
