// What all widgets share: elements, numbers, the link to the kernel, and the colours of the page around.

/** An element: h("button", {class: "x", onclick: f}, "text", child, ...). */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** HTML that the kernel made, with its formulas as MathML. */
function fromHtml(element, html) {
  element.append(...new DOMParser().parseFromString(html, "text/html").body.childNodes); // it runs no scripts
  return element;
}

/** Put `children` in place of what is in `element`. */
function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
}

let pipelabNames = 0;
const pipelabPage = Math.random().toString(36).slice(2, 8); // each widget has a module of its own, and a counter
/** A name that no other element of the page has. */
const unique = (stem) => `pipelab-${stem}-${pipelabPage}-${(pipelabNames += 1)}`;

/** Put `words` into `element`, if they are others than there are: what is read aloud is not read again. */
function tell(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

/** A control with its name before it: the name is the label's alone, without what is chosen in the control. */
function labelled(words, control) {
  control.id = control.id || unique("control");
  return h("span", { class: "pl-group" }, h("label", { for: control.id }, words), control);
}

/** Four digits that count, without an exponent: 14, 352.1, 0.02531. */
function number(value) {
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "–";
  if (Math.abs(value) >= 1e4) return value.toFixed(0);
  return String(Number(value.toPrecision(4)));
}

/** The link to the kernel. One request is on its way at a time; of those that ask for the same thing meanwhile only
 * the last is sent, so that a dragged slider leaves no backlog. */
class Link {
  constructor(model) {
    this.model = model;
    this.busy = null; // the request on its way
    this.next = new Map(); // do -> the latest that waits
    this.heard = new Set(); // told about answers
    this.waits = new Set(); // told when an answer is late, and when it came
    this.count = 0;
    this.name = Math.random().toString(36).slice(2);
    this.listen = (content) => this.receive(content);
    model.on("msg:custom", this.listen);
  }

  /** Ask for `what`; `done(said)` is called with the answer's sentence, or nothing. Of several with one `key` that wait
   * only the last is sent; without a key each one is. */
  ask(what, done = null, key = unique("move")) {
    const request = { what, done };
    if (this.busy) {
      this.next.delete(key);
      this.next.set(key, request);
    } else this.send(request);
  }

  send(request) {
    const id = `${this.name}-${(this.count += 1)}`;
    this.busy = { ...request, id };
    try {
      this.model.send({ ...request.what, id });
    } catch (error) {
      this.busy = null; // the kernel that made this widget is gone, and nothing will be answered any more
      this.next.clear();
      this.tell("The kernel was restarted or has ended. Run this cell again.");
      return;
    }
    this.late = setTimeout(() => this.tell("The kernel is busy; this is done when it has time. (If it was restarted, run this cell again.)"), 900);
  }

  receive(content) {
    if (!this.busy || content.answers !== this.busy.id) return;
    clearTimeout(this.late);
    const { done } = this.busy;
    this.busy = null;
    this.tell("");
    if (done) done(content.said || "");
    const first = this.next.entries().next();
    if (!first.done && !this.busy) {
      this.next.delete(first.value[0]);
      this.send(first.value[1]);
    }
  }

  tell(words) {
    for (const listener of this.waits) listener(words);
  }

  close() {
    clearTimeout(this.late);
    this.model.off("msg:custom", this.listen);
  }
}

/** The page's colours, as they are now, for what is drawn on a canvas. */
function inks(element) {
  const style = getComputedStyle(element);
  const read = (name) => style.getPropertyValue(name).trim();
  return {
    paper: read("--pl-paper"),
    ink: read("--pl-ink"),
    quiet: read("--pl-quiet"),
    line: read("--pl-line"),
    idle: read("--pl-idle"),
    hatch: read("--pl-hatch"),
    memory: read("--pl-memory"),
    curve: read("--pl-curve"),
    accent: read("--pl-accent"),
    phases: { "warm-up": read("--pl-phase-1"), steady: read("--pl-phase-2"), "cool-down": read("--pl-phase-3") },
  };
}

/** Whether the page around is dark: what JupyterLab and VS Code say, else what the page's background looks like. */
function isDark() {
  const body = document.body;
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false";
  if (body.dataset.vscodeThemeKind) return !body.dataset.vscodeThemeKind.includes("light");
  const channels = getComputedStyle(body).backgroundColor.match(/[\d.]+/g);
  if (!channels || channels[3] === "0") return matchMedia("(prefers-color-scheme: dark)").matches;
  return (299 * channels[0] + 587 * channels[1] + 114 * channels[2]) / 1000 < 128;
}

/** Calls `change` when the page's theme changes; returns what ends that. */
function onTheme(root, change) {
  let dark = isDark();
  const set = () => {
    if (isDark() === dark) return;
    dark = isDark();
    root.classList.toggle("pl-dark", dark);
    change();
  };
  const observer = new MutationObserver(() => requestAnimationFrame(set));
  observer.observe(document.body, { attributes: true });
  observer.observe(document.documentElement, { attributes: true });
  const media = matchMedia("(prefers-color-scheme: dark)");
  media.addEventListener("change", set);
  root.classList.toggle("pl-dark", dark);
  return () => {
    observer.disconnect();
    media.removeEventListener("change", set);
  };
}

/** The element of a widget: keys pressed in it are its own, not the notebook's. */
function widgetRoot(el, kind, label) {
  const root = h("section", { class: `pl pl-${kind}`, "aria-label": label, "data-lm-suppress-shortcuts": "true" });
  root.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.key === "z" || event.key === "y") event.stopPropagation();
  });
  el.append(root);
  return root;
}
