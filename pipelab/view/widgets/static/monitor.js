// A monitor's table: Python writes it, and here it takes the place of the one before.

function renderMonitor({ model, root }) {
  const place = h("div");
  const redraw = () => {
    fill(place);
    fromHtml(place, JSON.parse(model.get("view")).html);
  };
  root.append(place);
  model.on("change:view", redraw);
  redraw();
  return { redraw, close: () => model.off("change:view", redraw) };
}
