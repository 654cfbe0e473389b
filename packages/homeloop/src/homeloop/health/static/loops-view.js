// The loops: state, lag and load with their last minutes, tasks.

import { drawChart, makeChart } from "./chart.js";
import { byId, element, keepList, setAttribute, setText } from "./dom.js";
import { percent, seconds } from "./words.js";

const OWNERS = { runtime: "of homeloop", watched: "watched", unknown: "nobody told of it" };

/** `onTasks(number)` hears whose tasks the person wants to see. */
export function showLoops(detail, onTasks) {
  const { report, history, thresholds } = detail;
  byId("loops-empty").hidden = report.loops.length > 0;
  byId("loops-table").hidden = report.loops.length === 0;
  keepList(byId("loops"), report.loops, (loop) => String(loop.home.loop), (loop) => makeRow(loop, onTasks), (row, loop) =>
    fillRow(row, loop, history[loop.home.loop] ?? { lag: [], load: [] }, thresholds),
  );
}

function makeRow(loop, onTasks) {
  const tasks = element("button", { type: "button", class: "link" });
  tasks.addEventListener("click", () => onTasks(loop.home.loop));
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, element("span", { class: "name" }), element("span", { class: "hint" })),
    element("td", { "data-label": "State" }, element("span", { class: "state" })),
    element("td", { "data-label": "Tasks" }, tasks, element("span", { class: "hint" })),
    element("td", { "data-label": "Lag" }, makeChart(), element("span", { class: "number" })),
    element("td", { "data-label": "Load" }, makeChart(), element("span", { class: "number" })),
  );
}

function fillRow(row, loop, history, thresholds) {
  const [name, state, tasks, lag, load] = row.children;
  setText(name.children[0], loop.name);
  setText(name.children[1], `loop ${loop.home.loop}, thread ${loop.home.thread}, ${OWNERS[loop.owner]}`);
  setAttribute(state.firstElementChild, "data-state", loop.state);
  setText(state.firstElementChild, loop.state === "blocked" ? `blocked for ${seconds(loop.stall.seconds)}` : loop.state);
  const lags = loop.lag === null ? "not known yet" : `median ${seconds(loop.lag.p50)}, 99 %: ${seconds(loop.lag.p99)}, worst ${seconds(loop.lag.max)}`;
  drawChart(lag.firstElementChild, history.lag, thresholds.lag, `Lag over the last two minutes: ${lags}`);
  setText(lag.lastElementChild, lags);
  const busy = loop.utilisation === null ? "not known yet" : `${percent(loop.utilisation)} busy`;
  drawChart(load.firstElementChild, history.load, thresholds.utilisation, `Load over the last two minutes: ${busy}`);
  setText(load.lastElementChild, busy);
  setText(tasks.firstElementChild, `${loop.pending} pending`);
  setText(tasks.lastElementChild, loop.langgraph ? `${loop.langgraph} of LangGraph` : "");
}
