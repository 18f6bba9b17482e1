"use strict";
(() => {
  // Okabe and Ito's palette, apart for every kind of colour vision; lighter on dark paper.
  const LIGHT = ["#0072B2", "#D55E00", "#00795A", "#A3457F", "#7A6A00", "#3A7CA5", "#8C3B00", "#444444"];
  const DARK = ["#56B4E9", "#F08A3C", "#2CC295", "#E29AC3", "#E5D84A", "#8ECAE6", "#D9825B", "#C8C8C8"];
  const SHAPES = ["circle", "rect", "triangle", "rectRot", "cross", "star", "crossRot"];
  const DASHES = [[], [6, 4], [2, 3], [10, 4, 2, 4]];
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  let printing = false;
  const charts = [];

  function paint() {
    const night = dark.matches && !printing;
    return {
      ink: night ? "#e8eaed" : "#1b1f24",
      line: night ? "#3a4048" : "#d4d8dd",
      paper: night ? "#15181c" : "#ffffff",
      colours: night ? DARK : LIGHT,
    };
  }

  function number(value) {
    if (value === null) return "–";
    const size = Math.abs(value);
    if (size >= 1e5 || (size > 0 && size < 1e-3)) return value.toExponential(2);
    return String(Number(value.toPrecision(4)));
  }

  function axis(title, look, more) {
    return Object.assign({
      title: { display: true, text: title, color: look.ink },
      ticks: { color: look.ink },
      grid: { color: look.line },
      border: { color: look.ink },
    }, more);
  }

  function lines(data, look) {
    const sets = [];
    data.series.forEach((one, i) => {
      const colour = look.colours[i % look.colours.length];
      const dash = one.dashed ? [6, 4] : data.series.length > 4 ? DASHES[i % DASHES.length] : [];
      if (one.spread.length) {
        const edge = (sign) => one.points.map(([x, y], k) => ({ x, y: y === null ? null : y + sign * one.spread[k] }));
        const band = { borderWidth: 0, pointRadius: 0, pointHitRadius: 0, backgroundColor: colour + "33", band: true };
        sets.push({ ...band, label: one.name, data: edge(1), fill: "+1" });
        sets.push({ ...band, label: one.name, data: edge(-1), fill: false });
      }
      sets.push({
        label: one.name,
        data: one.points.map(([x, y]) => ({ x, y })),
        borderColor: colour, backgroundColor: colour, borderDash: dash, borderWidth: 2,
        pointStyle: SHAPES[i % SHAPES.length], pointRadius: one.points.length > 60 ? 0 : 4, pointHitRadius: 8,
      });
    });
    const y = data.percent ? (v) => number(100 * v) + " %" : number;
    const x = data.ticks.length ? (v) => data.ticks[v] ?? "" : number;
    const at = axis(data.x, look, { type: data.log ? "logarithmic" : "linear" });
    at.ticks.callback = x;
    if (data.series.every((one) => one.points.every(([x]) => Number.isInteger(x)))) at.ticks.precision = 0;
    if (data.ticks.length) { at.ticks.stepSize = 1; at.ticks.autoSkip = false; at.offset = true; }
    if (data.log) {
      const places = [...new Set(data.series.flatMap((one) => one.points.map(([x]) => x)))].sort((a, b) => a - b);
      at.afterBuildTicks = (scale) => { scale.ticks = places.map((value) => ({ value })); };
    }
    const up = axis(data.y, look, {});
    up.ticks.callback = y;
    return {
      type: "line",
      data: { datasets: sets },
      options: {
        scales: { x: at, y: up },
        interaction: { mode: "nearest", axis: "x", intersect: false },
        plugins: {
          legend: { labels: { color: look.ink, usePointStyle: true, filter: (item, d) => !d.datasets[item.datasetIndex].band } },
          tooltip: {
            filter: (item) => !item.dataset.band,
            callbacks: {
              title: (items) => (items.length ? data.x + " " + x(items[0].parsed.x) : ""),
              label: (item) => item.dataset.label + ": " + y(item.parsed.y),
            },
          },
        },
      },
    };
  }

  function dots(data, look, figure) {
    const tip = tipOf(figure, data);
    const many = data.names.length > 16;
    const sets = data.names.map((name, group) => ({
      label: name, index: [], data: [],
      backgroundColor: look.colours[group % look.colours.length],
      borderColor: look.colours[group % look.colours.length],
      pointStyle: SHAPES[group % SHAPES.length], pointRadius: 4, pointHoverRadius: 8, pointHitRadius: 4,
    }));
    const rest = { label: "no class", index: [], data: [], backgroundColor: look.ink, borderColor: look.ink, pointStyle: "circle", pointRadius: 3 };
    data.points.forEach(([x, y], i) => {
      const set = sets[data.groups[i]] ?? rest;
      set.data.push({ x, y });
      set.index.push(i);
    });
    if (rest.data.length) sets.push(rest);
    const bare = { ticks: { display: false }, grid: { color: look.line }, border: { color: look.ink } };
    return {
      type: "scatter",
      data: { datasets: sets.filter((set) => set.data.length) },
      options: {
        scales: { x: bare, y: bare },
        plugins: {
          legend: { display: !many, labels: { color: look.ink, usePointStyle: true } },
          tooltip: { enabled: false, external: ({ chart, tooltip }) => {
            if (!tooltip.opacity) { tip.hide(); return; }
            const point = tooltip.dataPoints[0];
            tip.show(chart.data.datasets[point.datasetIndex].index[point.dataIndex], tooltip.caretX, tooltip.caretY);
          } },
        },
      },
    };
  }

  function tipOf(figure, data) {
    if (figure.tip) return figure.tip;
    const box = document.createElement("div");
    box.className = "tip";
    box.hidden = true;
    const image = document.createElement("div");
    image.style.width = image.style.height = data.side + "px";
    image.style.backgroundImage = "url(" + data.sprite + ")";
    const name = document.createElement("span");
    const group = document.createElement("span");
    box.append(image, name, group);
    figure.querySelector(".canvas").append(box);
    figure.tip = {
      hide() { box.hidden = true; },
      show(i, x, y) {
        const place = data.places[i];
        image.hidden = place < 0;
        if (place >= 0) {
          image.style.backgroundPosition = -data.side * (place % data.across) + "px " + -data.side * Math.floor(place / data.across) + "px";
        }
        name.textContent = data.labels[i];
        group.textContent = data.groups[i] < 0 ? "" : data.names[data.groups[i]];
        const room = figure.querySelector(".canvas").clientWidth;
        box.style.left = Math.max(0, Math.min(x + 12, room - 232)) + "px";
        box.style.top = y + 12 + "px";
        box.hidden = false;
      },
    };
    return figure.tip;
  }

  // Arrow keys go through the images in their order; what is met is said and its image shown.
  function keys(canvas, chart, data) {
    const figure = canvas.closest("figure");
    const told = figure.querySelector(".told");
    const where = [];
    chart.data.datasets.forEach((set, s) => set.index.forEach((i, k) => { where[i] = [s, k]; }));
    let at = -1;
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") figure.tip.hide();
      if (!step) return;
      event.preventDefault();
      at = (at + step + where.length) % where.length;
      const [datasetIndex, index] = where[at];
      const { x, y } = chart.getDatasetMeta(datasetIndex).data[index].getProps(["x", "y"], true);
      chart.setActiveElements([{ datasetIndex, index }]);
      chart.draw();
      figure.tip.show(at, x, y);
      const group = data.groups[at] < 0 ? "" : ", " + data.names[data.groups[at]];
      told.textContent = data.labels[at] + group;
    });
    canvas.addEventListener("blur", () => figure.tip.hide());
  }

  function draw(canvas) {
    const data = JSON.parse(document.getElementById(canvas.dataset.from).textContent);
    const look = paint();
    const config = data.kind === "dots" ? dots(data, look, canvas.closest("figure")) : lines(data, look);
    Object.assign(config.options, { animation: false, responsive: true, maintainAspectRatio: false });
    const chart = new Chart(canvas, config);
    if (data.kind === "dots") keys(canvas, chart, data);
    charts.push({ chart, data, canvas });
  }

  function repaint() {
    for (const { chart, data, canvas } of charts) {
      const look = paint();
      const config = data.kind === "dots" ? dots(data, look, canvas.closest("figure")) : lines(data, look);
      Object.assign(config.options, { animation: false, responsive: true, maintainAspectRatio: false });
      chart.data = config.data;
      chart.options = config.options;
      chart.update("none");
    }
  }

  // Charts far down a long page are drawn when they come near.
  const near = new IntersectionObserver((seen) => {
    for (const one of seen) if (one.isIntersecting) { near.unobserve(one.target); draw(one.target); }
  }, { rootMargin: "600px" });
  const waiting = new Set(document.querySelectorAll("canvas[data-from]"));
  for (const canvas of waiting) near.observe(canvas);
  dark.addEventListener("change", repaint);

  const opened = [];
  window.addEventListener("beforeprint", () => {
    printing = true;
    for (const canvas of waiting) if (!charts.some((one) => one.canvas === canvas)) { near.unobserve(canvas); draw(canvas); }
    repaint();
    for (const box of document.querySelectorAll("details:not([open]):not([data-long])")) { box.open = true; opened.push(box); }
  });
  window.addEventListener("afterprint", () => {
    printing = false;
    repaint();
    for (const box of opened.splice(0)) box.open = false;
  });

  function value(cell) {
    const text = cell.textContent.trim();
    const first = Number(text.split(" ")[0].replaceAll(",", ""));
    return text !== "" && !Number.isNaN(first) ? first : text === "–" ? -Infinity : text;
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    table.querySelectorAll("thead button").forEach((button, column) => {
      button.addEventListener("click", () => {
        const head = button.parentElement;
        const up = head.getAttribute("aria-sort") !== "ascending";
        for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const body = table.tBodies[0];
        const keyed = [...body.rows].map((row) => [value(row.cells[column]), row]);
        keyed.sort(([a], [b]) => {
          const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
          return up ? order : -order;
        });
        body.append(...keyed.map(([, row]) => row));
      });
    });
  }
})();
