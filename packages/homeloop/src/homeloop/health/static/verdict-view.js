// The verdict: how it is, what is wrong, what to do.

import { byId, element, keepList, setAttribute, setText } from "./dom.js";
import { count, label } from "./words.js";

const TITLES = { healthy: "Healthy", warning: "Needs attention", critical: "Critical" };

export function showVerdict(report) {
  setText(byId("status"), TITLES[report.status]);
  setAttribute(byId("verdict"), "data-status", report.status);
  setText(byId("process-line"), `Process ${report.pid}: ${report.command}`);
  announce(report);
  keepList(byId("findings"), report.findings, (each) => `${each.kind} ${each.subject}`, makeFinding, fillFinding);
  byId("hints-box").hidden = report.hints.length === 0;
  keepList(byId("hints"), report.hints, (each) => each.subject, () => element("li"), (item, each) => setText(item, each.text));
  keepList(byId("figures"), figures(report), ([name]) => name, makeFigure, (item, [, value]) => setText(item.lastElementChild, value));
}

// Only what is new is said: a figure that changes every second would never let a screen reader rest.
function announce(report) {
  const kinds = [...new Set(report.findings.map((each) => label(each.kind)))];
  setText(byId("announcement"), [TITLES[report.status], ...kinds].join(". "));
}

function makeFinding() {
  return element(
    "li",
    { class: "finding" },
    element("span", { class: "badge" }),
    element("p", { class: "fact" }),
    element("p", { class: "advice" }),
  );
}

function fillFinding(item, finding) {
  const [badge, fact, advice] = item.children;
  setAttribute(item, "data-status", finding.status);
  setText(badge, label(finding.kind));
  setText(fact, finding.fact);
  setText(advice, finding.advice);
}

function figures(report) {
  const events = report.counts;
  const recycled = events.WorkerEnded ?? 0;
  const lost = events.WorkerLost ?? 0;
  const restarts = report.runtimes.reduce((sum, each) => sum + each.statistics.restarts, 0);
  return [
    ["Pending tasks", report.pending_tasks],
    ["of LangGraph", report.langgraph_tasks],
    ["on foreign loops", report.foreign_tasks],
    ["Calls in flight", report.calls_in_flight],
    ["Calls abandoned", report.abandoned_calls],
    ["Loops restarted", restarts],
    ["Workers", `${count(events.WorkerStarted ?? 0, "start")}, ${recycled} recycled, ${lost} lost`],
  ];
}

function makeFigure([name]) {
  return element("div", {}, element("dt", {}, name), element("dd"));
}
