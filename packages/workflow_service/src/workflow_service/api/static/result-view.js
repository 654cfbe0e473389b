// A finished analysis: summary, findings and the contract's text, which select each other.

import { ContractText } from "./contract-text.js";
import { byId, element, scrollTo } from "./dom.js";
import { FindingsList } from "./findings-list.js";
import { count, label } from "./words.js";

export class ResultView {
  #findings = [];
  #selected = null;
  #text = new ContractText(byId("contract"), (index) => this.#select(index, { fromText: true }));
  #list = new FindingsList(
    (index) => this.#select(index === this.#selected ? null : index),
    (visible) => this.#filter(visible),
  );

  constructor() {
    byId("next").addEventListener("click", () => this.#step(1));
    byId("previous").addEventListener("click", () => this.#step(-1));
    byId("to-list").addEventListener("click", () => this.#toList());
  }

  /** Show a result as `GET /runs/{id}/result` gives it. */
  show(result) {
    // In the order of the text, so that "next" always moves down the page; what has no place comes last.
    const start = (finding) => finding.span?.start ?? Number.POSITIVE_INFINITY;
    this.#findings = [...result.findings].sort((a, b) => start(a) - start(b) || 0);
    this.#selected = null;
    const pages = result.document.pages;
    const parts = [pages.length > 1 ? count(pages.length, "page") : null, count(this.#findings.length, "finding")];
    byId("run-title").textContent = result.document.filename;
    byId("run-meta").textContent = parts.filter(Boolean).join(" · ");
    byId("summary").replaceChildren(...summaryParts(result.summary));
    this.#text.show(result.text, pages, result.clauses ?? [], this.#findings);
    this.#list.show(this.#findings);
    this.#sayPlace();
    byId("result").hidden = false;
  }

  close() {
    byId("result").hidden = true;
  }

  #select(index, { fromText = false } = {}) {
    this.#selected = index;
    this.#list.select(index, fromText);
    this.#text.select(index);
    this.#sayPlace();
  }

  #filter(visible) {
    this.#text.filter(visible);
    if (this.#selected !== null && !visible.has(this.#selected)) this.#select(null);
    else this.#sayPlace();
  }

  #step(by) {
    const visible = this.#list.visible();
    if (visible.length === 0) return;
    const at = visible.indexOf(this.#selected);
    const next = at === -1 && by < 0 ? visible.length - 1 : (at + by + visible.length) % visible.length;
    this.#select(visible[next]);
  }

  #sayPlace() {
    const visible = this.#list.visible();
    const at = visible.indexOf(this.#selected);
    byId("previous").disabled = visible.length === 0;
    byId("next").disabled = visible.length === 0;
    if (at === -1) {
      byId("place").textContent = visible.length === 0 ? "Nothing to step through" : "Select a finding to see its place";
      return;
    }
    const finding = this.#findings[this.#selected];
    byId("place").textContent = `${at + 1} of ${visible.length}: ${finding.label || label(finding.kind)}`;
  }

  #toList() {
    const goal = this.#selected === null ? byId("findings-title") : byId("findings").children[this.#selected];
    scrollTo(goal, "start");
    (goal.querySelector("button") ?? goal).focus({ preventScroll: true });
  }
}

// The summary is text, or facts by name.
function summaryParts(summary) {
  if (typeof summary === "string") return summary.split(/\n{2,}/).map((part) => element("p", {}, part));
  const facts = Object.entries(summary ?? {}).filter(([, value]) => String(value ?? "") !== "");
  const rows = facts.map(([name, value]) =>
    element(
      "div",
      {},
      element("dt", {}, label(name)),
      element("dd", {}, Array.isArray(value) ? value.join(", ") : String(value)),
    ),
  );
  return [element("dl", { class: "facts" }, ...rows)];
}
