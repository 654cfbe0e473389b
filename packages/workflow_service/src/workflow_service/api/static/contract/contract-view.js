// A finished analysis: summary, findings and the contract's text, which select each other.

import { ContractText } from "./contract-text.js";
import { byId, scrollTo } from "../lib/dom.js";
import { FindingsList } from "./findings-list.js";
import { showModel, showSummary } from "./summary-view.js";
import { count, label, sentenceCase } from "../lib/words.js";

export class ContractView {
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

  /** Show an analysis. */
  show(analysis) {
    this.#findings = analysis.findings;
    this.#selected = null;
    const pages = analysis.pages.length > 1 ? `${analysis.pages.length} pages · ` : ""; // formats without pages have one
    byId("summary-count").textContent = pages + count(analysis.findings.length, "finding");
    showModel(analysis.model);
    showSummary(analysis.summary, (risk) => this.#selectRisk(risk));
    this.#text.show(analysis);
    this.#list.show(analysis.findings, analysis.pages.length > 1);
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

  // The summary tells a risk again, without its place; a clause has a kind of risk once.
  #selectRisk({ label: name, clause }) {
    const index = this.#findings.findIndex(
      (finding) => finding.kind === "risk" && finding.clause === clause && finding.label === sentenceCase(name),
    );
    if (index === -1) return;
    this.#list.clearFilters();
    this.#select(index);
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
