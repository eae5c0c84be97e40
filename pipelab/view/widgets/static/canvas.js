// Draws scenes (pipelab/view/widgets/scene.py) on a canvas: one below the other on one time axis, or two laid over each other.
// It knows places on the screen and nothing of pipelines.

const CANVAS_FONT = "11px system-ui, 'DejaVu Sans', sans-serif";
const CANVAS_SMALL = "10px system-ui, 'DejaVu Sans', sans-serif";
const CANVAS_TINY = "9.5px system-ui, 'DejaVu Sans', sans-serif";
const NARROW = 560; // pixels

/** Sizes in pixels of one device's rows: [phases, blocks, memory, between]. With versions on them blocks have two lines. */
function rowHeights(devices, panels, versions = false) {
  if (devices <= 4 && panels === 1) return [9, versions ? 30 : 27, 22, 12];
  if (devices <= 8) return panels === 1 ? [8, versions ? 26 : 20, 15, 9] : [7, versions ? 26 : 18, 12, 7];
  return [3, 14, 8, 4];
}

/** A few round numbers between 0 and `most`, about `count` of them. */
function ticks(from, to, count) {
  const span = to - from || 1;
  const raw = span / Math.max(count, 1);
  const size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((k) => k * size).find((k) => k >= raw * 0.999);
  const found = [];
  for (let k = Math.ceil(from / step - 1e-9); k * step <= to + 1e-9 * span; k += 1) found.push(k * step);
  return found;
}

class Chart {
  /** `resized` is called when it was drawn anew because its room has changed. */
  constructor(host, resized) {
    this.host = host;
    this.base = h("canvas", { role: "img" });
    this.over = h("canvas", { "aria-hidden": "true" });
    fill(host, this.base, this.over);
    this.scenes = [];
    this.window = null; // [from, to] in shown time; null: everything
    this.options = { pairs: false, names: [], memory: true, phases: true };
    this.mark = null; // {panel, kind, index}; kind: "block", "gap" or "message"
    this.moment = null; // time of the step cursor
    this.flowing = false; // whether that runs
    this.critical = false;
    this.lanes = false; // whether those of messages are drawn
    this.resizer = new ResizeObserver(() => {
      if (Math.abs(host.clientWidth - this.width) <= 0.5) return;
      this.draw();
      resized();
    });
    this.resizer.observe(host);
    this.width = 0;
  }

  close() {
    this.resizer.disconnect();
  }

  show(scenes, options = {}) {
    this.scenes = scenes;
    Object.assign(this.options, options);
    this.items = scenes.map((scene) => this.sorted(scene));
    if (this.mark && !this.valid(this.mark)) this.mark = null;
    this.draw();
  }

  valid(mark) {
    const scene = this.scenes[mark.panel];
    if (!scene) return false;
    if (mark.kind === "message") return this.lanes && mark.index < (scene.blocks.lanes?.told.length || 0);
    return mark.index < (mark.kind === "block" ? scene.blocks.device.length : scene.gaps.length);
  }

  /** What can be pointed at on each device, in the order of time: {kind, index, start, end}. */
  sorted(scene) {
    const rows = scene.devices.map(() => []);
    const { device, start, end } = scene.blocks;
    for (let k = 0; k < device.length; k += 1) rows[device[k]].push({ kind: "block", index: k, start: start[k], end: end[k] });
    scene.gaps.forEach((gap, k) => rows[gap[0]].push({ kind: "gap", index: k, start: gap[1], end: gap[2] }));
    for (const row of rows) row.sort((a, b) => a.start - b.start || a.end - b.end);
    return rows;
  }

  extent() {
    return Math.max(...this.scenes.map((scene) => scene.extent), 1e-12);
  }

  layout() {
    const { pairs } = this.options;
    const devices = this.scenes[0].devices.length;
    const versions = this.scenes.some((scene) => scene.versions);
    const [phases, blocks, memory, between] = rowHeights(devices, this.scenes.length, versions);
    const withPhases = this.options.phases && !pairs;
    const withMemory = this.options.memory && !pairs;
    const rows = [];
    const heads = [];
    let y = 2;
    if (pairs) {
      const half = devices <= 8 ? (versions ? 25 : 17) : 11;
      for (let r = 0; r < devices; r += 1) {
        for (let panel = 0; panel < this.scenes.length; panel += 1) {
          rows.push({ panel, device: r, y, height: half, phases: null, lanes: null, memory: null, versions: null });
          y += half + 1;
        }
        y += devices <= 8 ? 9 : 4;
      }
      y -= 4;
    } else {
      this.scenes.forEach((scene, panel) => {
        if (this.scenes.length > 1) {
          const narrow = this.width < NARROW; // title and figures have a line each
          heads.push({ panel, y, narrow });
          y += narrow ? 34 : 19;
        }
        const flat = scene.devices.length > 8 ? rowHeights(scene.devices.length, 2) : [phases, blocks, memory, between];
        const strip = Math.max(flat[2] - 6, 7);
        const lane = flat[1] < 18 ? 4 : 8;
        for (let r = 0; r < scene.devices.length; r += 1) {
          const top = y + (withPhases ? flat[0] + 1 : 0);
          const below = top + flat[1] + (this.lanes ? 3 + 2 * lane : 0);
          rows.push({
            panel,
            device: r,
            y: top,
            height: flat[1],
            phases: withPhases ? { y, height: flat[0] } : null,
            lanes: this.lanes ? { y: top + flat[1] + 2, height: 2 * lane } : null,
            memory: withMemory ? { y: below + 2, height: flat[2] } : null,
            versions: withMemory && scene.versions ? { y: below + flat[2] + 5, height: strip } : null,
          });
          y = below + (withMemory ? 2 + flat[2] : 0) + (withMemory && scene.versions ? 3 + strip : 0) + flat[3];
        }
        y += this.scenes.length > 1 ? 4 : -2;
      });
    }
    const chunked = this.scenes.some((scene) => scene.stages.some((stages) => stages.length > 1));
    return { rows, heads, bottom: y, left: chunked ? (devices > 10 ? 128 : 110) : pairs ? 112 : withMemory && devices <= 8 ? 92 : 68, right: withMemory ? 92 : 12, chunked, blocks };
  }

  x(time) {
    const [from, to] = this.span;
    return this.plan.left + ((time - from) / (to - from)) * this.room;
  }

  time(x) {
    const [from, to] = this.span;
    return from + ((x - this.plan.left) / this.room) * (to - from);
  }

  draw() {
    if (!this.scenes.length) return;
    this.width = this.host.clientWidth;
    if (!this.width) return;
    const plan = (this.plan = this.layout());
    this.room = Math.max(this.width - plan.left - plan.right, 50);
    this.span = this.window || [0, this.extent()];
    this.height = plan.bottom + 34;
    this.sharp = window.devicePixelRatio || 1;
    for (const canvas of [this.base, this.over]) {
      canvas.width = Math.round(this.width * this.sharp);
      canvas.height = Math.round(this.height * this.sharp);
      canvas.style.width = `${this.width}px`;
      canvas.style.height = `${this.height}px`;
    }
    this.base.setAttribute("aria-label", [...this.scenes.map((scene) => scene.alt), ...this.laneNotes()].join(" "));
    this.inks = inks(this.host);
    const context = this.base.getContext("2d");
    context.setTransform(this.sharp, 0, 0, this.sharp, 0, 0);
    context.textBaseline = "middle";
    for (const head of plan.heads) this.head(context, head);
    context.save();
    context.beginPath();
    context.rect(plan.left, 0, this.room + 1, plan.bottom + 2);
    context.clip();
    for (const row of plan.rows) this.row(context, row);
    context.restore();
    for (const row of plan.rows) this.names(context, row);
    this.axis(context);
    this.overlay();
  }

  head(context, { panel, y, narrow }) {
    const scene = this.scenes[panel];
    const title = (this.options.names || [])[panel] || scene.title;
    context.fillStyle = this.inks.ink;
    context.textAlign = "left";
    context.font = `600 ${CANVAS_FONT}`;
    context.fillText(title, 0, y + 8);
    const used = context.measureText(title).width + 12;
    context.font = CANVAS_FONT;
    context.fillStyle = this.inks.quiet;
    context.fillText(scene.figures, narrow ? 0 : used, y + (narrow ? 23 : 8));
  }

  hatching(context) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 6 * this.sharp;
    const pen = tile.getContext("2d");
    pen.scale(this.sharp, this.sharp);
    pen.fillStyle = this.inks.idle;
    pen.fillRect(0, 0, 6, 6);
    pen.strokeStyle = this.inks.hatch;
    pen.lineWidth = 0.8;
    for (const shift of [-6, 0, 6]) {
      pen.beginPath();
      pen.moveTo(shift - 1, 7);
      pen.lineTo(shift + 7, -1);
      pen.stroke();
    }
    const pattern = context.createPattern(tile, "repeat");
    pattern.setTransform(new DOMMatrix().scale(1 / this.sharp));
    return pattern;
  }

  row(context, row) {
    const scene = this.scenes[row.panel];
    if (!this.pattern || this.patternInk !== this.inks.hatch + this.sharp) {
      this.pattern = this.hatching(context);
      this.patternInk = this.inks.hatch + this.sharp;
    }
    context.fillStyle = this.pattern;
    const zero = this.x(0);
    context.fillRect(zero, row.y, this.x(scene.end) - zero, row.height);
    if (row.phases) {
      for (const [name, start, end] of scene.phases[row.device]) {
        const left = this.x(start);
        const right = this.x(end);
        context.fillStyle = this.inks.phases[name];
        context.fillRect(left, row.phases.y, right - left - 1, row.phases.height);
        if (row.phases.height >= 8 && right - left > 48) {
          context.font = "8.5px system-ui, sans-serif";
          context.textAlign = "center";
          context.fillStyle = name === "cool-down" ? "#000" : this.inks.ink;
          context.fillText(name, (Math.max(left, this.plan.left) + Math.min(right, this.plan.left + this.room)) / 2, row.phases.y + row.phases.height / 2 + 0.5);
        }
      }
    }
    if (row.lanes && scene.blocks.lanes) this.messages(context, row, scene.blocks.lanes);
    if (row.memory) this.strip(context, row.device, row.memory, scene.memory, scene);
    if (row.versions) this.strip(context, row.device, row.versions, scene.versions, scene);
    this.blocks(context, row, scene);
    for (const [device, start, end, , version] of scene.updates) {
      if (device !== row.device) continue;
      const short = Math.max(2 - (this.x(end) - this.x(start)), 0); // one that takes no time is a line
      this.block(context, this.x(start) - short / 2, this.x(end) + short / 2, row.y, row.height, "#1C1C1C", "#FFFFFF", "U", version);
    }
    context.strokeStyle = this.inks.ink;
    context.lineWidth = 1.2;
    const close = Math.round(this.x(scene.end)) + 0.5;
    context.beginPath();
    context.moveTo(close, row.y - 1);
    context.lineTo(close, row.y + row.height + 1);
    context.stroke();
  }

  blocks(context, row, scene) {
    const { start, end, parts, looks, versions } = scene.blocks;
    const chunked = scene.stages.some((stages) => stages.length > 1);
    const form = this.form(context, scene, chunked);
    const [from, to] = this.span;
    context.font = CANVAS_FONT;
    for (const { kind, index } of this.items[row.panel][row.device]) {
      if (kind !== "block") continue;
      if (end[index] < from || start[index] > to) continue;
      const left = this.x(start[index]);
      const right = this.x(end[index]);
      const many = parts[index].length;
      const high = row.height / many;
      parts[index].forEach(([look, stage, microbatch], part) => {
        const [op, colour, ink, named] = looks[look];
        const label = [named ? `${named} ${microbatch}` : `${stage}${op}${microbatch}`, `${op}${microbatch}`, named ? `${op}${microbatch}` : `${microbatch}`][form];
        this.block(context, left, right, row.y + part * high, high, colour, ink, label, versions && versions[index][part]);
      });
    }
  }

  /** All labels of a scene have one form, the longest for which nearly all blocks have room: 4F0, F0 or 0. */
  form(context, scene, chunked) {
    const { start, end, parts } = scene.blocks;
    if (scene.narrow === undefined) {
      const times = start.map((from, k) => end[k] - from).sort((a, b) => a - b);
      const most = (which) => parts.flat().reduce((found, part) => Math.max(found, part[which]), 0);
      scene.narrow = times[Math.floor(times.length / 10)] || 0;
      const widest = (which) => scene.blocks.looks.reduce((found, look) => ((look[which] || "").length > found.length ? look[which] : found), "");
      scene.named = Boolean(widest(3));
      scene.longest = [scene.named ? `${widest(3)} ${most(2)}` : `${most(1)}W${most(2)}`, `${scene.named ? widest(0) : "W"}${most(2)}`];
    }
    context.font = CANVAS_FONT;
    const room = this.x(scene.narrow) - this.x(0) - 3;
    const fits = scene.longest.findIndex((text, k) => (chunked || scene.named || k) && this.textWidth(context, text) <= room);
    return fits < 0 ? 2 : fits;
  }

  /** `version`, of the weights that it uses, stands below its label where there is room. */
  block(context, left, right, top, height, colour, ink, label, version = null) {
    const wide = right - left;
    const seam = wide > 4 ? 1 : wide > 2 ? 0.5 : 0;
    context.fillStyle = colour === "#1C1C1C" && wide <= 3 ? this.inks.ink : colour; // a line has no edge to be seen by
    context.fillRect(left, top, Math.max(wide - seam, 0.6), height);
    if (colour === "#1C1C1C" && wide > 3) {
      context.strokeStyle = this.inks.quiet;
      context.lineWidth = 0.8;
      context.strokeRect(left + 0.5, top + 0.5, wide - seam - 1, height - 1);
    }
    if (height < 9 || wide < 9) return;
    context.font = height >= 12 ? CANVAS_FONT : CANVAS_SMALL;
    if (this.textWidth(context, label) > wide - 3) return;
    context.fillStyle = ink;
    context.textAlign = "center";
    const middle = left + (wide - seam) / 2;
    const told = version === null ? "" : `v${version}`.replace("-", "−");
    const font = context.font;
    if (told && height >= 24) {
      context.font = CANVAS_TINY;
      if (this.textWidth(context, told) <= wide - 2) {
        context.fillText(told, middle, top + height / 2 + 7);
        context.font = font;
        context.fillText(label, middle, top + height / 2 - 5);
        return;
      }
      context.font = font;
    }
    context.fillText(label, middle, top + height / 2 + 0.5);
  }

  textWidth(context, text) {
    const key = context.font + text.replace(/\d/g, "0");
    this.widths = this.widths || new Map();
    if (!this.widths.has(key)) this.widths.set(key, context.measureText(text.replace(/\d/g, "0")).width);
    return this.widths.get(key);
  }

  /** What a device sends, and below it what it receives: a bar for each message, from sent to arrived. */
  messages(context, row, { kinds }) {
    for (const { kind, left, right, y, height } of this.bars(row)) {
      context.fillStyle = kinds[kind][1];
      const wide = right - left;
      context.fillRect(left, y, Math.max(wide - (wide > 4 ? 1 : 0), 0.6), height);
    }
  }

  /** The bars in the lanes of a row, on the screen; `index`: which message. */
  bars({ panel, device, lanes }) {
    const found = lanes && this.scenes[panel].blocks.lanes;
    if (!found) return [];
    return found.rows.slice(2 * device, 2 * device + 2).flatMap((lane, k) => {
      const height = (lanes.height / 2 - 1) / lane.length;
      const top = lanes.y + (k * lanes.height) / 2;
      return lane.flatMap((row, n) => row.map(([kind, sent, arrived, index]) => ({ kind, index, left: this.x(sent), right: this.x(arrived), y: top + n * height, height })));
    });
  }

  /** What the lanes show in words, of each scene whose lanes are drawn. */
  laneNotes() {
    return this.lanes && !this.options.pairs ? this.scenes.map((scene) => scene.blocks.lanes?.note).filter(Boolean) : [];
  }

  /** What a device holds over time: activations, or versions of its weights. */
  strip(context, device, { y, height }, { steps, top, limits }, scene) {
    const floor = y + height;
    const level = (value) => floor - (height * Math.min(value, top)) / (top || 1);
    context.beginPath();
    context.moveTo(this.x(0), floor);
    let now = floor;
    for (const [time, value] of steps[device]) {
      context.lineTo(this.x(time), now);
      now = level(value);
      context.lineTo(this.x(time), now);
    }
    context.lineTo(this.x(scene.extent), now);
    context.lineTo(this.x(scene.extent), floor);
    context.closePath();
    context.fillStyle = this.inks.memory;
    context.fill();
    context.strokeStyle = this.inks.curve;
    context.lineWidth = 1;
    context.stroke();
    if (limits && limits[device] <= top * 1.001) {
      context.setLineDash([4, 3]);
      context.strokeStyle = this.inks.ink;
      context.beginPath();
      context.moveTo(this.x(0), level(limits[device]) + 0.5);
      context.lineTo(this.x(scene.extent), level(limits[device]) + 0.5);
      context.stroke();
      context.setLineDash([]);
    }
  }

  names(context, row) {
    const scene = this.scenes[row.panel];
    const middle = row.y + row.height / 2;
    context.textAlign = "left";
    context.fillStyle = this.inks.ink;
    context.font = row.height >= 12 ? CANVAS_FONT : CANVAS_SMALL;
    if (this.options.pairs) {
      if (row.panel === 0) context.fillText(scene.devices[row.device], 0, middle);
      context.font = "9px system-ui, sans-serif";
      context.fillStyle = this.inks.quiet;
      context.textAlign = "right";
      context.fillText(this.options.names[row.panel], this.plan.left - 5, middle);
      return;
    }
    const stages = scene.stages[row.device];
    const listed = stages.length <= 4 ? stages.join(", ") : `${stages[0]}, … ${stages[stages.length - 1]}`;
    context.fillText(scene.devices[row.device], 0, middle);
    const taken = context.measureText(scene.devices[row.device]).width;
    if (this.plan.chunked && stages.length && row.height >= 12) {
      context.font = "9px system-ui, sans-serif";
      context.fillStyle = this.inks.quiet;
      context.textAlign = "right";
      const named = scene.blocks.looks.some((look) => look[3]);
      if (!named) context.fillText(`stages ${listed}`, this.plan.left - 5, middle);
      else if (context.measureText(listed).width < this.plan.left - taken - 13) context.fillText(listed, this.plan.left - 5, middle);
    }
    if (row.lanes && row.lanes.height >= 16) {
      context.font = "8px system-ui, sans-serif";
      context.fillStyle = this.inks.quiet;
      context.textAlign = "right";
      ["sends", "receives"].forEach((name, k) => context.fillText(name, this.plan.left - 5, row.lanes.y + 4 + 8 * k));
    }
    if (row.memory) this.scale(context, row.device, row.memory, scene.memory);
    if (row.versions) this.scale(context, row.device, row.versions, scene.versions);
  }

  scale(context, device, { y, height }, { peaks, top, axis }) {
    context.font = "10px system-ui, sans-serif";
    context.fillStyle = this.inks.quiet;
    context.textAlign = "left";
    context.fillText(axis === "versions" ? `${peaks[device]} (${axis})` : peaks[device], this.plan.left + this.room + 6, y + height / 2);
    if (height < 9) return;
    context.textAlign = "right";
    context.font = "9px system-ui, sans-serif";
    context.fillText(number(top), this.plan.left - 5, y + 4);
    if (height >= 15) context.fillText("0", this.plan.left - 5, y + height - 3);
    context.textAlign = "left";
    context.fillText(axis, 0, y + height / 2);
  }

  axis(context) {
    const y = this.plan.bottom + 3.5;
    context.strokeStyle = this.inks.quiet;
    context.fillStyle = this.inks.quiet;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(this.plan.left, y);
    context.lineTo(this.plan.left + this.room, y);
    context.font = CANVAS_SMALL;
    context.textAlign = "center";
    const whole = this.scenes[0].unit === "units" && this.span[1] - this.span[0] >= 4;
    for (const tick of ticks(...this.span, this.room / 60)) {
      if (whole && tick % 1) continue;
      const x = Math.round(this.x(tick)) + 0.5;
      context.moveTo(x, y);
      context.lineTo(x, y + 4);
      context.fillText(number(tick), x, y + 11);
    }
    context.stroke();
    const unit = this.scenes[this.scenes.length - 1].unit;
    context.fillText(`time (${unit})`, this.plan.left + this.room / 2, y + 24);
  }

  // ---- what is laid over it: the place that is pointed at, its neighbours, the step, the critical path -------------

  box(panel, index) {
    const { device, start, end } = this.scenes[panel].blocks;
    const row = this.rowOf(panel, device[index]);
    return { left: this.x(start[index]), right: this.x(end[index]), y: row.y, height: row.height };
  }

  rowOf(panel, device) {
    return this.plan.rows.find((row) => row.panel === panel && row.device === device);
  }

  overlay() {
    if (!this.plan) return;
    const pen = this.over.getContext("2d");
    pen.setTransform(this.sharp, 0, 0, this.sharp, 0, 0);
    pen.clearRect(0, 0, this.width, this.height);
    pen.save();
    pen.beginPath();
    pen.rect(this.plan.left - 3, 0, this.room + 6, this.plan.bottom + 8);
    pen.clip();
    if (this.moment !== null) this.veil(pen);
    if (this.critical) this.scenes.forEach((scene, panel) => this.path(pen, panel, scene.blocks.critical || []));
    if (this.moment !== null) this.step(pen);
    if (this.mark) this.pointed(pen, this.mark);
    pen.restore();
  }

  /** What is still to come is pale. */
  veil(pen) {
    const x = Math.max(this.x(this.moment), this.plan.left - 3);
    pen.globalAlpha = 0.74;
    pen.fillStyle = this.inks.paper;
    for (const row of this.plan.rows) {
      const top = row.phases ? row.phases.y : row.y - 1;
      const last = row.versions || row.memory || row.lanes || row;
      pen.fillRect(x, top, this.width - x, last.y + last.height + 2 - top);
    }
    pen.globalAlpha = 1;
  }

  /** What the micro-batches of a block keep on its device: entries of the scene. */
  kept({ panel, index }) {
    const { kept, device, parts } = this.scenes[panel].blocks;
    const mine = new Set(parts[index].map(([, stage, microbatch]) => `${stage} ${microbatch}`));
    return (kept || []).filter(([r, stage, microbatch]) => r === device[index] && mine.has(`${stage} ${microbatch}`));
  }

  /** The share of the memory strip that is a block's: from the floor, as high as what its micro-batch keeps. */
  share(pen, mark) {
    const scene = this.scenes[mark.panel];
    for (const [device, , , steps] of this.kept(mark)) {
      const { memory } = this.rowOf(mark.panel, device);
      if (!memory) continue;
      const floor = memory.y + memory.height;
      const level = (value) => floor - (memory.height * value) / (scene.memory.top || 1);
      const corners = [[this.x(steps[0][0]), floor]];
      steps.forEach(([time, value], k) => corners.push([this.x(time), k ? level(steps[k - 1][1]) : floor], [this.x(time), level(value)]));
      const end = steps[steps.length - 1][1] > 0 ? scene.extent : steps[steps.length - 1][0];
      corners.push([this.x(end), level(steps[steps.length - 1][1])], [this.x(end), floor]);
      pen.beginPath();
      corners.forEach(([x, y]) => pen.lineTo(x, y));
      pen.closePath();
      pen.globalAlpha = 0.35;
      pen.fillStyle = this.inks.accent;
      pen.fill();
      pen.globalAlpha = 1;
      pen.strokeStyle = this.inks.accent;
      pen.lineWidth = 2;
      pen.stroke();
    }
  }

  frame(pen, { left, right, y, height }, colour, line = 2.5, dash = []) {
    pen.setLineDash(dash);
    pen.strokeStyle = colour;
    pen.lineWidth = line;
    pen.strokeRect(left + line / 2 - 0.5, y + line / 2 - 0.5, Math.max(right - left - line, 1), height - line + 1);
    pen.setLineDash([]);
  }

  link(pen, from, to, colour, line = 1.6) {
    const x1 = from.right - 1;
    const x2 = to.left + 1;
    const y1 = from.y + from.height / 2;
    const y2 = to.y + to.height / 2;
    pen.strokeStyle = this.inks.paper;
    pen.lineWidth = line + 2.5;
    for (let pass = 0; pass < 2; pass += 1) {
      pen.beginPath();
      pen.moveTo(x1, y1);
      const bend = Math.max(Math.min((x2 - x1) / 2, 40), 10);
      pen.bezierCurveTo(x1 + bend, y1, x2 - bend, y2, x2, y2);
      pen.stroke();
      pen.strokeStyle = colour;
      pen.lineWidth = line;
    }
    pen.beginPath();
    pen.moveTo(x2, y2);
    pen.lineTo(x2 - 6, y2 - 3.5);
    pen.lineTo(x2 - 6, y2 + 3.5);
    pen.closePath();
    pen.fillStyle = colour;
    pen.fill();
  }

  path(pen, panel, indices) {
    const boxes = indices.map((index) => this.box(panel, index));
    boxes.forEach((box, k) => {
      this.frame(pen, box, this.inks.ink, 2);
      if (k && boxes[k - 1].y !== box.y) this.link(pen, boxes[k - 1], box, this.inks.ink, 1.2);
    });
  }

  step(pen) {
    const x = Math.round(this.x(this.moment)) + 0.5;
    pen.strokeStyle = this.inks.accent;
    pen.lineWidth = 2;
    pen.beginPath();
    pen.moveTo(x, 0);
    pen.lineTo(x, this.plan.bottom + 3);
    pen.stroke();
    if (this.flowing) return;
    this.scenes.forEach((scene, panel) => {
      const { start, ready } = scene.blocks;
      if (!ready) return; // its detail is still on its way
      const near = 1e-6 * scene.extent;
      const from = this.moment;
      for (let k = 0; k < start.length; k += 1) {
        if (ready[k] <= from + near && start[k] >= from - near) {
          this.frame(pen, this.box(panel, k), this.inks.accent, 1.6, start[k] > from + near ? [3, 2] : []);
        }
      }
    });
  }

  pointed(pen, { panel, kind, index }) {
    const scene = this.scenes[panel];
    if (kind === "message") {
      const rows = this.plan.rows.filter((row) => row.panel === panel);
      rows.flatMap((row) => this.bars(row)).filter((bar) => bar.index === index).forEach(({ y, height, ...bar }) => this.frame(pen, { ...bar, y: y - 1, height: height + 1 }, this.inks.accent, 2));
      return;
    }
    if (kind === "gap") {
      const [device, start, end] = scene.gaps[index];
      const row = this.rowOf(panel, device);
      const box = { left: this.x(start), right: this.x(end), y: row.y, height: row.height };
      this.frame(pen, box, this.inks.accent);
      return;
    }
    const own = this.box(panel, index);
    for (const [source] of scene.blocks.takes ? scene.blocks.takes[index] : []) {
      const from = this.box(panel, source);
      this.frame(pen, from, this.inks.accent, 1.6);
      if (from.y !== own.y) this.link(pen, from, own, this.inks.accent);
    }
    for (const taker of scene.blocks.takers ? scene.blocks.takers[index] : []) {
      const to = this.box(panel, taker);
      this.frame(pen, to, this.inks.accent, 1.6, [4, 2]);
      if (to.y !== own.y) this.link(pen, own, to, this.inks.accent);
    }
    this.share(pen, { panel, index });
    this.frame(pen, own, this.inks.accent, 3);
  }

  /** What lies under a point of the canvas: {panel, kind, index}, or null. */
  at(x, y) {
    if (!this.plan || x < this.plan.left || x > this.plan.left + this.room) return null;
    const row = this.plan.rows.find((one) => y >= one.y - 1 && y <= one.y + one.height + 1);
    if (!row) return this.message(x, y);
    const time = this.time(x);
    const items = this.items[row.panel][row.device];
    let low = 0;
    let high = items.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (items[middle].start <= time) low = middle;
      else high = middle - 1;
    }
    const item = items[low];
    return item && item.start <= time && time <= item.end ? { panel: row.panel, kind: item.kind, index: item.index } : null;
  }

  /** The message whose bar lies under a point, or null. */
  message(x, y) {
    for (const row of this.plan.rows) {
      const bar = this.bars(row).find((one) => y >= one.y && y <= one.y + one.height && x >= one.left && x <= one.right);
      if (bar) return { panel: row.panel, kind: "message", index: bar.index };
    }
    return null;
  }

  /** From when to when what `mark` points at was. */
  times({ panel, kind, index }) {
    const { blocks, gaps } = this.scenes[panel];
    if (kind === "block") return [blocks.start[index], blocks.end[index]];
    if (kind === "gap") return gaps[index].slice(1, 3);
    return blocks.lanes.rows.flat(2).find((bar) => bar[3] === index).slice(1, 3);
  }

  /** The next thing from `mark` in a direction: "left", "right", "up", "down", "first", "last". */
  move(mark, direction) {
    if (!mark || mark.kind === "message") return this.first();
    const scene = this.scenes[mark.panel];
    const device = mark.kind === "block" ? scene.blocks.device[mark.index] : scene.gaps[mark.index][0];
    const items = this.items[mark.panel][device];
    const place = items.findIndex((item) => item.kind === mark.kind && item.index === mark.index);
    if (direction === "left" || direction === "right" || direction === "first" || direction === "last") {
      const to = { left: place - 1, right: place + 1, first: 0, last: items.length - 1 }[direction];
      const item = items[Math.min(Math.max(to, 0), items.length - 1)];
      return { panel: mark.panel, kind: item.kind, index: item.index };
    }
    const rows = this.plan.rows;
    const here = rows.findIndex((row) => row.panel === mark.panel && row.device === device);
    const row = rows[Math.min(Math.max(here + (direction === "down" ? 1 : -1), 0), rows.length - 1)];
    const middle = (items[place].start + items[place].end) / 2;
    const others = this.items[row.panel][row.device];
    if (!others.length) return mark;
    const item = others.find((one) => one.start <= middle && middle < one.end) || others.reduce((a, b) => (Math.abs(a.start - middle) <= Math.abs(b.start - middle) ? a : b));
    return { panel: row.panel, kind: item.kind, index: item.index };
  }

  first() {
    const panel = this.items.findIndex((rows) => rows.some((row) => row.length));
    if (panel < 0) return null;
    const row = this.items[panel].find((one) => one.length);
    return { panel, kind: row[0].kind, index: row[0].index };
  }

  /** Make sure that what `mark` points at is in the window. */
  reveal(mark) {
    if (!this.window || !mark) return;
    const [start, end] = this.times(mark);
    const [from, to] = this.window;
    if (start < from || end > to) this.zoom(1, (start + end) / 2);
  }

  /** Show `1 / by` as much time as now, around `centre`. */
  zoom(by, centre = null) {
    const [from, to] = this.span;
    const extent = this.extent();
    const wide = Math.min((to - from) / by, extent);
    const middle = centre === null ? (from + to) / 2 : by === 1 ? centre : centre + ((from + to) / 2 - centre) / by;
    const left = Math.min(Math.max(middle - wide / 2, 0), extent - wide);
    this.window = wide >= extent * 0.999 ? null : [left, left + wide];
    this.draw();
  }

  pan(to) {
    if (!this.window) return;
    const wide = this.window[1] - this.window[0];
    const left = Math.min(Math.max(to, 0), this.extent() - wide);
    this.window = [left, left + wide];
    this.draw();
  }
}
