// A small chart: the last two minutes of one figure, as an area, with a line where it becomes too much.

import { setAttribute, shape } from "./dom.js";

const WIDTH = 160;
const HEIGHT = 36;
const SPAN = 120; // seconds

/** An empty chart. */
export function makeChart() {
  return shape(
    "svg",
    { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
    shape("path", { class: "area" }),
    shape("path", { class: "line" }),
    shape("path", { class: "limit" }),
  );
}

/** Draw `[seconds ago, value]` samples, the oldest first; `limit` is where it becomes too much, null if nothing is; `says` is for those who do not see it. */
export function drawChart(chart, samples, limit, says) {
  const top = Math.max((limit ?? 0) * 1.25, ...samples.map(([, value]) => value)) || 1;
  const x = (ago) => (WIDTH * (1 - Math.min(ago, SPAN) / SPAN)).toFixed(1);
  const y = (value) => (HEIGHT - 1 - (HEIGHT - 2) * (value / top)).toFixed(1);
  const points = samples.filter(([ago]) => ago <= SPAN).map(([ago, value]) => `${x(ago)} ${y(value)}`);
  const [area, line, mark] = chart.children;
  const first = points.length === 0 ? "" : points[0].split(" ")[0];
  const last = points.length === 0 ? "" : points.at(-1).split(" ")[0];
  setAttribute(area, "d", points.length < 2 ? null : `M${first} ${HEIGHT} L${points.join(" L")} L${last} ${HEIGHT} Z`);
  setAttribute(line, "d", points.length === 0 ? null : `M${points.join(" L")}`);
  setAttribute(mark, "d", limit === null ? null : `M0 ${y(limit)} H${WIDTH}`);
  setAttribute(chart, "data-high", limit !== null && samples.length > 0 && Math.max(...samples.map(([, value]) => value)) > limit);
  setAttribute(chart, "aria-label", says);
}
