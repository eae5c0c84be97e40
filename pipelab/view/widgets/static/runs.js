// "Run it", "Stop" and how far it is; beside it what can be saved.

/** A list of what can be saved, [value, words], and the button; what came of it stands in `said`. */
class Saver {
  constructor(link, saves) {
    this.said = h("div", { class: "pl-note", role: "status" });
    const pick = h("select", { "aria-label": "What to save" }, saves.map(([value, text]) => h("option", { value }, text)));
    const save = h("button", { type: "button", onclick: () => link.ask({ do: "save", kind: pick.value }, (said) => this.tell(said)) }, "Save");
    this.root = h("span", { class: "pl-group" }, pick, save);
  }

  tell(words, look = "") {
    this.said.className = `pl-note ${look}`;
    tell(this.said, words);
  }
}

class RunRow {
  /** `what`: words beside the button. `saves`: [value, words] of what can be saved. */
  constructor(root, { model, link }, what, saves) {
    this.model = model;
    this.what = what;
    this.root = root;
    this.run = h("button", { type: "button", class: "pl-main", onclick: () => this.start(link) }, "Run it");
    this.stop = h("button", { type: "button", hidden: true, onclick: () => this.end(link) }, "Stop");
    this.meter = h("progress", { max: "1", value: 0, hidden: true, "aria-label": "Progress of the run" });
    this.words = h("span", { class: "pl-quiet" });
    const saver = new Saver(link, saves);
    this.tell = (words, look) => saver.tell(words, look);
    root.append(h("div", { class: "pl-row pl-runs" }, this.run, this.stop, this.meter, this.words, h("span", { class: "pl-push" }), saver.root), saver.said);
    this.onRun = () => this.draw();
    this.onView = () => {
      if (this.refused) this.tell("");
      this.refused = false;
    };
    model.on("change:run_state", this.onRun);
    model.on("change:view", this.onView);
    this.draw();
  }

  start(link) {
    if (this.running) this.tell("It is running already; Stop ends it.");
    else link.ask({ do: "run" }, (said) => {
        if (!said) return;
        this.refused = true; // said of what is shown now: gone when that changes
        this.tell(said[0].toUpperCase() + said.slice(1), "pl-problem");
      });
  }

  end(link) {
    this.words.textContent = "stopping after this …";
    link.ask({ do: "stop" });
  }

  draw() {
    const state = this.model.get("run_state") || {};
    const running = (this.running = state.state === "running");
    const onStop = document.activeElement === this.stop;
    this.run.classList.toggle("pl-off", running); // it can still be pressed: whoever does is told what goes on
    this.stop.hidden = this.meter.hidden = !running;
    if (onStop && !running) this.run.focus();
    this.root.closest(".pl").dataset.run = state.state || "";
    this.words.textContent = running ? `${state.words} …` : this.what;
    if (running) {
      this.meter.max = state.total || 1;
      this.meter.value = state.done || 0;
      this.tell("");
    } else this.tell(state.words || "", { done: "pl-done", failed: "pl-problem" }[state.state] || "");
  }

  /** Whether it is worth pressing: else it stands back. */
  offer(able) {
    this.run.classList.toggle("pl-main", able);
  }

  close() {
    this.model.off("change:view", this.onView);
    this.model.off("change:run_state", this.onRun);
  }
}
