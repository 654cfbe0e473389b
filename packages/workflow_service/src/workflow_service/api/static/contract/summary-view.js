// What a reader wants to know first.

import { byId, element } from "../lib/dom.js";
import { readable } from "../lib/values.js";
import { count, sentenceCase } from "../lib/words.js";

/** Show the summary of an analysis; what the contract does not say is told, not left out. `onPick` hears of a risk. */
export function showSummary({ parties, effective_date: effective, term, governing_law: law, top_risks: risks }, onPick) {
  const named = parties.map(({ name, role }) => fact(role ? sentenceCase(role) : "Party", name));
  byId("facts").replaceChildren(
    ...(named.length > 0 ? named : [fact("Parties", "")]),
    fact("In force from", readable(effective)),
    fact("Term", readable(term)),
    fact("Governing law", law),
  );
  byId("top-risks").replaceChildren(...risks.map((risk) => riskItem(risk, onPick)));
  byId("top-risks-title").textContent = risks.length > 0 ? "Look at these first" : "No risky clause was found";
}

/** Tell what a language model added, and what it cost; null says that none read the contract. */
export function showModel(model) {
  byId("summary-model").textContent = model === null ? "" : [found(model), unread(model), price(model.usage)].filter(Boolean).join(" ");
}

function found({ windows, confirmed, added, dropped }) {
  const left = Object.values(dropped).reduce((sum, each) => sum + each, 0);
  const out = left > 0 ? `, and ${count(left, "finding")} that the text does not bear out ${left === 1 ? "was" : "were"} left out` : "";
  return `A language model read ${count(windows, "part")}: it added ${count(added, "finding")} and confirmed ${confirmed}${out}.`;
}

function unread({ chars_not_read: rest }) {
  return rest > 0 ? `${count(rest, "character")} of the contract were too much for it.` : "";
}

function price(usage) {
  if (usage === null) return "";
  return `${usage.model}: ${count(usage.input_tokens + usage.output_tokens, "token")}, ${dollars(usage.cost)}.`;
}

/** Tell a cost: null is unknown, 0 is free, and what is too little to be shown is neither. */
function dollars(cost) {
  if (cost === null) return "at a price that is not set here";
  if (cost === 0) return "free of charge";
  return cost < 0.0001 ? "less than USD 0.0001" : `USD ${cost.toFixed(4)}`;
}

function fact(name, value) {
  const said = value ? element("dd", {}, value) : element("dd", { class: "hint" }, "not found");
  return element("div", {}, element("dt", {}, name), said);
}

function riskItem(risk, onPick) {
  const name = element("button", { type: "button", class: "link" }, sentenceCase(risk.label));
  name.addEventListener("click", () => onPick(risk));
  return element("li", {}, severityBadge(risk.severity), element("span", {}, name, ` ${risk.value}`));
}

/** How much a finding matters, as a word on a colour. */
export function severityBadge(severity) {
  return element("span", { class: "badge", "data-severity": severity }, sentenceCase(severity));
}
