// The parts of a health report as elements: verdict, loops, calls, pools, faults.

import { element } from "../lib/dom.js";
import { count, label, seconds, time } from "../lib/words.js";

const NUMBER = new Intl.NumberFormat();
const PERCENT = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 0 });
const VERDICTS = {
  healthy: "All loops are well.",
  warning: "Something is not as it should be.",
  critical: "Something is wrong: work is held up.",
};

/** The status in a sentence. */
export function verdictOf({ status, monitored }) {
  if (!monitored) return "Nobody watches the loops of this process: lag is not measured.";
  return VERDICTS[status] ?? label(status);
}

/** What is wrong and what to do, the worst first, and the sizes that were measured. */
export function recommendations({ findings, hints }) {
  const wrong = findings.map(({ status, subject, fact, advice }) =>
    element("li", { "data-status": status }, badge(status), element("div", {}, subject ? element("strong", {}, subject) : null, element("p", {}, fact), advice && !fact.includes(advice) ? element("p", { class: "advice" }, advice) : null)),
  );
  const sizes = hints.map(({ subject, text }) =>
    element("li", {}, element("span", { class: "badge" }, "Hint"), element("div", {}, element("strong", {}, subject), element("p", {}, text))),
  );
  return [...wrong, ...sizes];
}

/** One loop. */
export function loopCard(loop) {
  const { name, home, owner, state, lag, utilisation, tasks, pending, langgraph, most, stall, last_stall: last } = loop;
  const card = element(
    "li",
    { class: "card small", "data-state": state },
    head(name, state, { running: "succeeded", idle: "", blocked: "failed", closed: "cancelled" }[state]),
    element("p", { class: "hint" }, [home.kind, `thread ${home.thread}`, owner === "runtime" ? null : `${owner} loop`].filter(Boolean).join(" · ")),
    figures(
      ["Lag, usual", lag && seconds(lag.p50)],
      ["Lag, 99 of 100", lag && seconds(lag.p99)],
      ["Lag, worst", lag && seconds(lag.max)],
      ["Busy", utilisation === null ? null : PERCENT.format(utilisation)],
      ["Tasks", `${NUMBER.format(pending)} of ${NUMBER.format(tasks)}`],
      ["LangGraph tasks", langgraph > 0 ? NUMBER.format(langgraph) : null],
    ),
  );
  if (most.length > 0) card.append(fold(`tasks-${name}`, "Most tasks", element("ul", {}, ...most.map(([coroutine, number]) => element("li", {}, element("code", {}, coroutine), ` × ${number}`)))));
  if (stall) card.append(stack(`stall-${name}`, `Blocked for ${seconds(stall.seconds)}`, stall, true));
  else if (last) card.append(stack(`last-${name}`, `Was blocked for ${seconds(last.seconds)}`, last, false));
  return card;
}

function stack(key, says, { blocked_at: lines, task }, isOpen) {
  const text = element("pre", { tabindex: "0", role: "region", "aria-label": "Stack" }, lines.join("\n"));
  return fold(key, says, element("div", {}, task ? element("p", { class: "hint" }, `In task ${task}`) : null, text), isOpen);
}

/** One runtime: the calls that others make to its loop. */
export function runtimeCard({ name, statistics, most_in_flight: most }) {
  const { home, in_flight: now, waiting, finished, abandoned, abandoned_calls: calls, restarts, workers } = statistics;
  const card = element(
    "li",
    { class: "card small" },
    head(name, home === null ? "not started" : "running", home === null ? "" : "succeeded"),
    figures(
      ["Calls now", `${NUMBER.format(now)}, at most ${NUMBER.format(most)}`],
      ["Waiting", NUMBER.format(waiting)],
      ["Finished", NUMBER.format(finished)],
      ["Abandoned", NUMBER.format(abandoned)],
      ["Restarts", NUMBER.format(restarts)],
      ["Threads", workers && Object.entries(workers).filter(([, value]) => typeof value === "number").map(([key, value]) => `${value} ${key.replaceAll("_", " ")}`).join(", ")],
    ),
  );
  if (calls.length > 0) card.append(fold(`abandoned-${name}`, "Calls that nobody waits for", element("ul", {}, ...calls.map((call) => element("li", {}, element("code", {}, call.name ?? JSON.stringify(call)))))));
  return card;
}

/** One pool or other resource that lives on loops. */
export function poolCard({ name, statistics, most_leases: most }) {
  const { live, in_use: used, waiting, hits, misses, opened, closed, failed, evicted } = statistics;
  return element(
    "li",
    { class: "card small" },
    head(name, waiting > 0 ? "waited for" : "ready", waiting > 0 ? "dead" : "succeeded"),
    figures(
      ["Open", NUMBER.format(live)],
      ["Lent now", `${NUMBER.format(used)}, at most ${NUMBER.format(most)}`],
      ["Waiting", NUMBER.format(waiting)],
      ["Asked for", `${NUMBER.format(hits + misses)}, found ${NUMBER.format(hits)}`],
      ["Opened, closed", `${NUMBER.format(opened)}, ${NUMBER.format(closed)}`],
      ["Failed", failed > 0 ? NUMBER.format(failed) : null],
      ["Evicted", evicted > 0 ? NUMBER.format(evicted) : null],
    ),
  );
}

/** A fault that happened lately. */
export function incidentItem({ kind, text, at, age }) {
  return element("li", {}, element("div", { class: "row spread" }, element("strong", {}, label(kind)), element("time", { class: "hint", datetime: new Date(at * 1000).toISOString() }, `${seconds(age)} ago, ${time(at * 1000)}`)), element("p", {}, text));
}

/** The parts that must be there for the service to work. */
export function checkItem([name, isReady]) {
  return element("li", {}, badge(isReady ? "ready" : "missing", isReady ? "succeeded" : "failed"), ` ${label(name)}`);
}

/** How many loops, tasks and calls there are. */
export function sums(report) {
  const { loops, pending_tasks: pending, foreign_tasks: foreign, blocked_loops: blocked, calls_in_flight: calls } = report;
  return [count(loops.length, "loop"), `${NUMBER.format(blocked)} blocked`, `${NUMBER.format(pending)} pending ${pending === 1 ? "task" : "tasks"}`, `${NUMBER.format(foreign)} on foreign loops`, `${NUMBER.format(calls)} ${calls === 1 ? "call" : "calls"} in flight`].join(" · ");
}

function head(name, state, status) {
  return element("div", { class: "row spread" }, element("h3", {}, name), badge(state, status));
}

function badge(text, status = text) {
  return element("span", { class: "status", "data-status": status }, label(text));
}

function figures(...pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return element("dl", { class: "figures" }, ...known.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

function fold(key, title, content, isOpen = false) {
  return element("details", { "data-key": key, open: isOpen }, element("summary", {}, title), content);
}
