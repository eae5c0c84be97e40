// What is pointed at in the picture is lit elsewhere too: in the table of actions, and in the account of its device.

/** The words of a block: "4F0" for each part of its slot, or "map 0". */
function blockName(scene, index) {
  return scene.blocks.parts[index].map(([look, stage, microbatch]) => (scene.blocks.looks[look][3] ? `${scene.blocks.looks[look][3]} ${microbatch}` : `${stage}${scene.blocks.looks[look][0]}${microbatch}`)).join("+");
}

/** The table itself: what each device runs, in order. A cell that is clicked is pointed at in the picture. */
class OrderTable {
  /** `pick(panel, index)` is called with the block that a cell stands for. */
  constructor(pick) {
    this.pick = pick;
    this.body = h("div", { class: "pl-scroll-x" });
    this.summary = h("summary", {});
    this.root = h("details", { class: "pl-order" }, this.summary, this.body);
    this.root.addEventListener("toggle", () => this.fill());
    this.cells = [];
  }

  /** One table for scenes that run the same table. */
  show(scenes, names, pairs) {
    this.scenes = scenes;
    this.summary.textContent = `The schedule's table: what each ${scenes[0].row} runs, in order`;
    this.names = names;
    this.pairs = pairs;
    if (this.touched === undefined) {
      this.touched = false;
      this.root.open = scenes.reduce((sum, scene) => sum + scene.blocks.device.length, 0) <= 160;
    }
    this.fill();
  }

  fill() {
    this.cells = this.scenes.map(() => []);
    if (!this.root.open) {
      fill(this.body);
      return;
    }
    const tables = (this.pairs ? this.scenes.slice(0, 1) : this.scenes).map((scene, panel) => {
      const rows = scene.devices.map((name) => [h("th", { scope: "row" }, name)]);
      const order = scene.blocks.start.map((_, k) => k).sort((a, b) => scene.blocks.start[a] - scene.blocks.start[b] || a - b);
      for (const k of order) {
        const cell = h("td", { onclick: () => this.pick(panel, k) }, blockName(scene, k));
        this.cells[panel][k] = cell;
        rows[scene.blocks.device[k]].push(cell);
      }
      const caption = h("caption", { class: this.scenes.length > 1 && !this.pairs ? "" : "pl-hidden" }, this.names[panel] || scene.title);
      return h("table", {}, caption, h("tbody", {}, rows.map((row) => h("tr", {}, row))));
    });
    fill(this.body, tables);
  }

  /** The cell of a block; of one in a second scene that runs the same table, the cell of that name. */
  cell(panel, index) {
    if (!this.pairs || panel === 0) return this.cells[panel][index];
    const { device } = this.scenes[panel].blocks;
    const name = blockName(this.scenes[panel], index);
    return this.cells[0].find((cell, k) => this.scenes[0].blocks.device[k] === device[index] && cell.textContent === name);
  }

  /** Light `index`, what it waited for and who waits for it. */
  light(panel, index, needs, takers) {
    for (const cell of this.lit || []) {
      cell.classList.remove("pl-lit", "pl-needs", "pl-taker");
      cell.removeAttribute("aria-current");
      cell.removeAttribute("title");
    }
    this.lit = [];
    const mark = (k, look, words) => {
      const cell = this.cell(panel, k);
      if (!cell) return;
      cell.classList.add(look);
      cell.title = words;
      this.lit.push(cell);
    };
    if (index === null) return;
    needs.forEach((k) => mark(k, "pl-needs", "what it waited for"));
    takers.forEach((k) => mark(k, "pl-taker", "waits for it"));
    mark(index, "pl-lit", "pointed at");
    const own = this.cell(panel, index);
    if (!own) return;
    own.setAttribute("aria-current", "true");
    const [left, right] = [own.offsetLeft, own.offsetLeft + own.offsetWidth];
    const { scrollLeft, clientWidth } = this.body;
    if (left < scrollLeft || right > scrollLeft + clientWidth) this.body.scrollLeft = left - clientWidth / 2;
  }
}

/** A term of the formula, as MathML that the kernel made. */
const formula = (math) => fromHtml(h("span", { class: "pl-formula" }), math);

/** Where the time of one device goes, beside the terms of the formula. */
class AccountLine {
  constructor() {
    this.root = h("p", { class: "pl-account" });
  }

  /** `kind`: the term to light, or null. */
  show(scene, device, kind, name) {
    const { kinds, rows, work, idle, expected, holds } = scene.account;
    const times = Object.fromEntries(kinds.map((one, k) => [one, rows[device][k]]));
    const term = (one, ...words) => h("span", { class: `pl-term${one === kind ? " pl-lit" : ""}`, "data-term": one, "aria-current": one === kind ? "true" : null }, ...words);
    const waits = kinds.filter((one) => one !== "work" && (times[one] > 0 || one === kind));
    const whole = waits.reduce((sum, one) => sum + times[one], 0);
    const off = Math.abs(whole - expected) > 1e-4 * scene.end;
    fill(
      this.root,
      `${name ? `${name}, ` : ""}${scene.devices[device]}: ${number(scene.end)} ${scene.unit} = `,
      term("work", "work ", h("b", {}, number(times.work)), work ? [" = ", formula(work)] : null),
      " + ",
      h("span", { class: `pl-term${kind && kind !== "work" ? " pl-around" : ""}`, "data-term": "idle" }, "idle ", h("b", {}, number(whole)), idle ? [off ? "; " : " = ", formula(idle), off ? ` gives ${number(expected)}` : "", holds ? ` in ${holds}` : ""] : null),
      waits.length ? [". Idle: ", ...waits.flatMap((one, k) => [k ? " + " : "", term(one, `${one} `, h("b", {}, number(times[one])))])] : null,
      ".",
    );
  }
}
