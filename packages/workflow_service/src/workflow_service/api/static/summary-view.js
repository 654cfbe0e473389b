// What a reader wants to know first.

import { byId, element } from "./dom.js";
import { readable } from "./values.js";
import { sentenceCase } from "./words.js";

/** Show the summary of an analysis; what the contract does not say is told, not left out. */
export function showSummary({ parties, effective_date: effective, term, governing_law: law, top_risks: risks }) {
  byId("facts").replaceChildren(
    fact("Parties", ...parties.map(party)),
    fact("In force from", readable(effective)),
    fact("Term", readable(term)),
    fact("Governing law", law),
  );
  byId("top-risks").replaceChildren(...risks.map(risk));
  byId("top-risks-title").textContent = risks.length > 0 ? "Look at these first" : "No risky clause was found";
}

function fact(name, ...values) {
  const said = values.filter(Boolean);
  const shown = said.length > 0 ? said.map((value) => element("dd", {}, value)) : [missing()];
  return element("div", {}, element("dt", {}, name), ...shown);
}

const missing = () => element("dd", { class: "hint" }, "not found");

function party({ name, role }) {
  return role ? element("span", {}, name, element("span", { class: "role" }, sentenceCase(role))) : name;
}

function risk({ label, severity, value }) {
  return element(
    "li",
    {},
    severityBadge(severity),
    element("span", {}, element("strong", {}, sentenceCase(label)), value ? `: ${value}` : ""),
  );
}

/** How much a finding matters, as a word on a colour. */
export function severityBadge(severity) {
  return element("span", { class: "badge", "data-severity": severity }, sentenceCase(severity));
}
