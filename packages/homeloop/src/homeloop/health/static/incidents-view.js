// Incidents: what went wrong in the last minutes, with what is known of it and what to do.

import { byId, element, keepList, setText } from "./dom.js";
import { fillFrames, frameList } from "./stacks-view.js";
import { age, label, timeOfDay } from "./words.js";

export function showIncidents(report) {
  byId("incidents-empty").hidden = report.incidents.length > 0;
  keepList(byId("incidents"), report.incidents, (each) => `${each.at} ${each.kind}`, makeIncident, fillIncident);
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
  setText(head.children[1], `${timeOfDay(incident.at)}, ${age(incident.age)} ago`);
  setText(text, incident.text);
  setText(advice, incident.advice);
  details.hidden = incident.facts.length + incident.stack.length === 0;
  keepList(facts, incident.facts, ([name]) => name, ([name]) => element("div", {}, element("dt", {}, name), element("dd")), (pair, [, value]) => setText(pair.lastElementChild, value));
  frames.hidden = incident.stack.length === 0;
  fillFrames(frames, incident.stack);
}
