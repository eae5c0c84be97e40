// What JupyterLab, Notebook 7 and VS Code call: draws the widget of `kind` into `el`.

const KINDS = {
  timeline: [renderTimeline, "Timeline"],
  explorer: [renderExplorer, "Schedule explorer"],
  board: [renderBoard, "Drawing board"],
  breaker: [renderBreaker, "Break it"],
  monitor: [renderMonitor, "Monitor"],
};

export default {
  render({ model, el }) {
    const [draw, label] = KINDS[model.get("kind")];
    const root = widgetRoot(el, model.get("kind"), label);
    const link = new Link(model);
    const drawn = draw({ model, root, link });
    const unwatch = onTheme(root, () => drawn.redraw());
    return () => {
      unwatch();
      link.close();
      drawn.close();
    };
  },
};
