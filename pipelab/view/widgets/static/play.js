// A timeline is played: a clock that runs, and what the devices do at its time. What is where comes from the scene.

const DEVICE_ROWS = { lane: 20, box: 54, name: 17 }; // pixels

/** What the devices of some scenes do at one moment: a box each, what it runs and holds, and messages between them. */
class Devices {
  constructor() {
    this.canvas = h("canvas", { "aria-hidden": "true" });
    this.root = h("div", { class: "pl-devices", hidden: true });
  }

  /** `flash`: for how long a message is shown that takes no time; 0 where the clock stands still. */
  draw(scenes, names, moment, flash) {
    this.root.hidden = moment === null || scenes.some((scene) => !scene.blocks.kept);
    const width = this.root.clientWidth;
    if (this.root.hidden || !width) return;
    if (!this.canvas.isConnected) this.root.append(this.canvas);
    const { lane, box, name } = DEVICE_ROWS;
    const named = scenes.length > 1 ? name : 0;
    const each = named + 2 * lane + box + 4;
    const sharp = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * sharp);
    this.canvas.height = Math.round(each * scenes.length * sharp);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${each * scenes.length}px`;
    this.pen = this.canvas.getContext("2d");
    this.pen.setTransform(sharp, 0, 0, sharp, 0, 0);
    this.pen.textBaseline = "middle";
    this.inks = inks(this.root);
    scenes.forEach((scene, k) => {
      const count = scene.devices.length;
      const gap = Math.max(Math.min((0.35 * width) / count, 34), 3);
      this.wide = (width - 2 - (count - 1) * gap) / count;
      this.left = scene.devices.map((_, r) => 1 + r * (this.wide + gap));
      this.top = k * each + named + lane + 1;
      if (named) this.write(names[k] || scene.title, 0, k * each + 9, this.inks.ink, "left");
      scene.devices.forEach((words, r) => this.device(scene, r, words, moment));
      this.messages(scene, moment, flash);
    });
  }

  device(scene, device, words, moment) {
    const { pen, top, wide } = this;
    const left = this.left[device];
    pen.fillStyle = this.inks.idle;
    pen.fillRect(left, top, wide, DEVICE_ROWS.box);
    pen.strokeStyle = this.inks.quiet;
    pen.lineWidth = 1;
    pen.strokeRect(left + 0.5, top + 0.5, wide - 1, DEVICE_ROWS.box - 1);
    this.write(wide > 62 ? words : words.split(" ").pop(), left + 5, top + 9, this.inks.ink, "left");
    const { kept, start, end, parts, looks } = scene.blocks;
    const held = kept.filter(([r]) => r === device).map(([, , microbatch, steps]) => [String(microbatch), amountAt(steps, moment)]).filter(([, amount]) => amount > 0);
    this.held(held, scene.memory.axis, left + 5, left + wide - 4, top + 45);
    const now = scene.blocks.device.findIndex((r, k) => r === device && start[k] <= moment && moment < end[k]);
    const middle = left + wide / 2;
    if (now < 0) {
      const updates = scene.updates.some(([r, begin, over]) => r === device && begin <= moment && moment < over);
      if (updates || moment < scene.end) this.write(updates ? "update" : wide > 30 ? "idle" : "–", middle, top + 25, this.inks.quiet);
      return;
    }
    const chunked = scene.stages.some((stages) => stages.length > 1);
    const labels = parts[now].map(([look, stage, microbatch]) => `${chunked && !looks[look][3] ? stage : ""}${looks[look][0]}${microbatch}`);
    const [, colour, ink] = looks[parts[now][0][0]];
    const done = ((moment - start[now]) / (end[now] - start[now])) * (wide - 8);
    pen.fillStyle = this.inks.paper;
    pen.fillRect(left + 4, top + 16, wide - 8, 18);
    pen.fillStyle = colour;
    pen.fillRect(left + 4, top + 16, done, 18);
    pen.strokeStyle = colour;
    pen.lineWidth = 2;
    pen.strokeRect(left + 5, top + 17, wide - 10, 16);
    const text = wide > 34 || labels.length === 1 ? labels.join("+") : labels[0];
    this.write(text, middle, top + 25.5, done > (wide - 8) / 2 ? ink : this.inks.ink, "center", `600 ${CANVAS_FONT}`);
  }

  /** A small square for each micro-batch that is held; how much it is, where there is no room. */
  held(found, axis, left, right, middle) {
    const wide = 16;
    if (left + wide * found.length > right) {
      const sum = number(Number(found.reduce((all, [, amount]) => all + amount, 0).toPrecision(3)));
      this.write(right - left > 90 ? `${sum} ${axis}` : sum, left, middle, this.inks.quiet, "left", CANVAS_SMALL);
      return;
    }
    found.forEach(([text], k) => {
      const x = left + k * wide;
      this.pen.fillStyle = this.inks.memory;
      this.pen.fillRect(x, middle - 6.5, wide - 2, 13);
      this.pen.strokeStyle = this.inks.curve;
      this.pen.lineWidth = 1;
      this.pen.strokeRect(x + 0.5, middle - 6, wide - 3, 12);
      this.write(text, x + wide / 2 - 1, middle + 0.5, this.inks.ink, "center", CANVAS_SMALL);
    });
  }

  /** Activations fly above the boxes, gradients below; what has come waits at the door until it is used. */
  messages(scene, moment, flash) {
    const { device, start, parts, looks, messages } = scene.blocks;
    const resting = new Map();
    const near = 1e-6 * scene.extent;
    for (const [source, part, taker, sent, arrived] of messages) {
      const landed = Math.max(arrived, sent + (flash || near));
      if (moment < sent || moment >= Math.max(landed, start[taker])) continue;
      const [look, , microbatch] = parts[source][part];
      const [op, colour, ink, named] = looks[look];
      const up = Boolean(named) || op === "F" || op === "R";
      const [from, to] = [source, taker].map((k) => this.left[device[k]] + this.wide / 2);
      const way = landed - sent > near ? Math.min((moment - sent) / (landed - sent), 1) : moment < landed ? 0.5 : 1;
      let x = from + (to - from) * way;
      if (moment >= landed) {
        const key = `${device[taker]} ${up}`;
        const before = resting.get(key) || 0;
        resting.set(key, before + 1);
        x += 19 * before;
      }
      const y = up ? this.top - 11 : this.top + DEVICE_ROWS.box + 11;
      this.pen.beginPath();
      this.pen.arc(x, y, 9, 0, 2 * Math.PI);
      this.pen.fillStyle = colour;
      this.pen.fill();
      this.pen.strokeStyle = this.inks.paper;
      this.pen.lineWidth = 1.5;
      this.pen.stroke();
      this.write(String(microbatch), x, y + 0.5, ink, "center", CANVAS_SMALL);
    }
  }

  write(text, x, y, colour, align = "center", font = CANVAS_FONT) {
    this.pen.font = font;
    this.pen.textAlign = align;
    this.pen.fillStyle = colour;
    this.pen.fillText(text, x, y);
  }
}

/** The value of steps [[time, value from then on], ...] at a time; 0 before the first. */
function amountAt(steps, time) {
  let value = 0;
  for (const [at, next] of steps) {
    if (at > time) break;
    value = next;
  }
  return value;
}

/** Play, pause, speed, step, and a slider for the time. `pane` has moments(), extent, moment, goto(time, how). */
class Player {
  constructor(pane) {
    this.pane = pane;
    this.media = matchMedia("(prefers-reduced-motion: reduce)");
    this.playing = false;
    const button = (label, words, act) => h("button", { type: "button", title: words, "aria-label": words, onclick: act }, label);
    this.button = button("▶ Play", "Play", () => this.toggle());
    this.speed = h("select", { title: "Speed", "aria-label": "Speed" }, [["0.5", "½ ×"], ["1", "1 ×"], ["2", "2 ×"], ["4", "4 ×"]].map(([value, text]) => h("option", { value, selected: value === "1" }, text)));
    this.when = h("input", { type: "number", min: "0", step: "any", "aria-label": "Time of the step" });
    this.when.addEventListener("change", () => (this.when.value === "" ? this.pane.clear() : this.take(Number(this.when.value))));
    this.scrub = h("input", { type: "range", min: "0", max: "1", step: "any", value: "0", class: "pl-scrub", "aria-label": "Time" });
    this.scrub.addEventListener("input", () => this.take(Number(this.scrub.value)));
    this.root = h(
      "span",
      { class: "pl-group pl-play" },
      this.button,
      button("◀ Step", "One step back", () => this.step(-1)),
      "t =", this.when,
      button("Step ▶", "One step forward, and what is ready then", () => this.step(1)),
      this.speed,
      this.scrub,
    );
  }

  take(time) {
    this.pause();
    this.pane.goto(time);
  }

  step(by) {
    this.pause();
    this.pane.stepBy(by);
  }

  /** Time that passes in a second at speed 1: the whole run in 8 to 40 seconds. */
  get rate() {
    return this.pane.extent / Math.min(Math.max(0.6 * this.pane.moments().length, 8), 40);
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  play() {
    if (!this.pane.ready(() => this.play())) return;
    if (this.pane.moment === null || this.pane.moment >= this.pane.extent) this.pane.goto(0);
    this.playing = true;
    this.last = performance.now();
    this.rested = 0;
    this.show();
    this.frame = requestAnimationFrame((now) => this.tick(now));
  }

  pause() {
    cancelAnimationFrame(this.frame);
    this.playing = false;
    this.show();
  }

  /** Runs with the screen's frames; for readers who want less motion it goes from moment to moment, and waits there. */
  tick(now) {
    if (!this.playing) return;
    const passed = (Math.max(now - this.last, 0) / 1000) * Number(this.speed.value);
    this.last = now;
    if (this.media.matches) {
      this.rested += passed;
      if (this.rested >= 0.8) {
        this.rested = 0;
        this.pane.stepBy(1);
      }
    } else this.pane.goto(this.pane.moment + passed * this.rate, true);
    if (this.pane.moment >= this.pane.extent) this.pause();
    else this.frame = requestAnimationFrame((next) => this.tick(next));
  }

  /** Play once it is seen, unless the reader wants less motion. */
  begin(element) {
    if (this.media.matches) return;
    this.watch = new IntersectionObserver((seen) => {
      if (!seen.some((one) => one.isIntersecting)) return;
      this.watch.disconnect();
      this.play();
    });
    this.watch.observe(element);
  }

  show() {
    const { moment, extent } = this.pane;
    const words = this.playing ? "Pause" : "Play";
    this.button.textContent = `${this.playing ? "❚❚" : "▶"} ${words}`;
    this.button.setAttribute("aria-label", words);
    this.button.title = words;
    this.when.value = moment === null ? "" : number(moment);
    this.scrub.max = String(extent);
    this.scrub.value = String(moment === null ? 0 : moment);
  }

  close() {
    this.pause();
    if (this.watch) this.watch.disconnect();
  }
}
