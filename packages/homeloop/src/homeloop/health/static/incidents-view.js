// Incidents: what went wrong in the last minutes, with what is known of it and what to do.

import { byId, element, keepList, setText } from "./dom.js";
import { fillFrames, frameList } from "./frames.js";
import { label, times } from "./words.js";

const BLOCKING = new Set(["loop-blocked", "interpreter-stalled"]);

/** Whether an incident is one of those that `showStacks` shows. */
export function isBlocking(incident) {
  return BLOCKING.has(incident.kind);
}

/** The incidents, alike ones together: each as the latest of them, with their `number` and a `key`. */
export function together(incidents) {
  const found = new Map();
  for (const each of incidents) { // the latest comes first
    const key = JSON.stringify([each.kind, each.stack.length ? each.stack : each.text]);
    const known = found.get(key);
    if (known === undefined) found.set(key, { ...each, key, number: 1 });
    else known.number += 1;
  }
  return [...found.values()];
}

export function showIncidents(report) {
  const incidents = together(report.incidents.filter((each) => !isBlocking(each)));
  byId("incidents-empty").hidden = incidents.length > 0;
  keepList(byId("incidents"), incidents, (each) => each.key, makeIncident, fillIncident);
}

function makeIncident() {
  return element(
    "li",
    { class: "card incident" },
    element("p", { class: "row" }, element("span", { class: "badge" }), element("span", { class: "hint" })),
    element("p", { class: "text" }),
    element("p", { class: "advice" }),
    element("details", {}, element("summary", {}, "What is known"), element("dl", { class: "facts" }), frameList()),
  );
}

function fillIncident(card, incident) {
  const [head, text, advice, details] = card.children;
  const [, facts, frames] = details.children;
  setText(head.children[0], label(incident.kind));
  setText(head.children[1], times(incident));
  setText(text, incident.text);
  setText(advice, incident.advice);
  details.hidden = incident.facts.length + incident.stack.length === 0;
  keepList(facts, incident.facts, ([name]) => name, ([name]) => element("div", {}, element("dt", {}, name), element("dd")), (pair, [, value]) => setText(pair.lastElementChild, value));
  frames.hidden = incident.stack.length === 0;
  fillFrames(frames, incident.stack);
}
