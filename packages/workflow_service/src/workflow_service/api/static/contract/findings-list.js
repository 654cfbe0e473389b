// The list of findings with its filters.

import { byId, element } from "../lib/dom.js";
import { severityBadge } from "./summary-view.js";
import { count, label } from "../lib/words.js";

const SOURCES = { model: "found by the language model", both: "found by rules and model" }; // else by rules
const ORDER = ["high", "medium", "low"];

/** Shows findings; tells `onPick(index)` what was chosen and `onFilter(visible)` which indices are shown. */
export class FindingsList {
  #findings = [];
  #items = [];
  #selected = null;
  #list = byId("findings");
  #form = byId("filters");

  constructor(onPick, onFilter) {
    this.onPick = onPick;
    this.onFilter = onFilter;
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    this.#form.addEventListener("change", () => this.#filter());
    byId("filters-clear").addEventListener("click", () => {
      this.clearFilters();
      byId("findings-title").focus();
    });
    this.#list.addEventListener("keydown", (event) => this.#walk(event));
  }

  /** Show findings; `paged` says whether telling their pages makes sense. */
  show(findings, paged) {
    this.#findings = findings;
    this.#selected = null;
    this.#items = findings.map((finding, index) => this.#item(finding, index, paged));
    this.#list.replaceChildren(...this.#items);
    this.#fill("filter-severity", "severity", findings.map((finding) => finding.severity), ORDER);
    this.#fill("filter-kind", "kind", findings.map((finding) => finding.kind), []);
    this.#filter();
  }

  clearFilters() {
    for (const box of this.#boxes()) box.checked = false;
    this.#filter();
  }

  /** The indices that the filters leave, in the order of the list. */
  visible() {
    const chosen = (name) => this.#boxes().filter((box) => box.name === name && box.checked).map((box) => box.value);
    const severities = chosen("severity");
    const kinds = chosen("kind");
    const passes = ({ kind, severity }) =>
      (severities.length === 0 || severities.includes(String(severity))) && (kinds.length === 0 || kinds.includes(kind));
    return [...this.#findings.keys()].filter((index) => passes(this.#findings[index]));
  }

  /** Open one finding and close the one before; `focus` moves the keyboard there too. */
  select(index, focus = false) {
    if (this.#selected !== null) this.#open(this.#selected, false);
    this.#selected = index;
    if (index === null) return;
    this.#open(index, true);
    if (focus) this.#button(index).focus({ preventScroll: true });
    this.#bringIntoList(this.#items[index]);
  }

  #open(index, open) {
    const button = this.#button(index);
    button.setAttribute("aria-expanded", String(open));
    this.#items[index].classList.toggle("selected", open);
    byId(button.getAttribute("aria-controls")).hidden = !open;
  }

  #button(index) {
    return this.#items[index].querySelector("button");
  }

  #boxes() {
    return [...this.#form.querySelectorAll("input")];
  }

  // Scrolls the list only, never the page: the page is at the finding's place in the text.
  #bringIntoList(item) {
    const head = item.offsetTop - this.#list.offsetTop;
    const { scrollTop, clientHeight } = this.#list;
    if (head < scrollTop) this.#list.scrollTop = head - 8;
    else if (head + item.offsetHeight > scrollTop + clientHeight) {
      this.#list.scrollTop = Math.min(head - 8, head + item.offsetHeight - clientHeight + 8);
    }
  }

  #item(finding, index, paged) {
    const detail = `finding-detail-${index}`;
    const button = element(
      "button",
      { type: "button", class: "finding", "aria-expanded": "false", "aria-controls": detail },
      element(
        "span",
        { class: "finding-top" },
        element("span", { class: "kind" }, label(finding.kind)),
        finding.severity ? severityBadge(finding.severity) : null,
        element("span", { class: "where" }, where(finding, paged)),
        SOURCES[finding.source] ? element("span", { class: "source" }, SOURCES[finding.source]) : null,
      ),
      element("span", { class: "finding-label" }, finding.label),
      valueOf(finding),
    );
    button.addEventListener("click", () => this.onPick(index));
    return element(
      "li",
      { "data-severity": finding.severity || "fact" },
      button,
      element(
        "div",
        { class: "finding-detail", id: detail, hidden: true },
        finding.quote && finding.quote !== finding.value ? element("blockquote", {}, finding.quote) : null,
        finding.advice ? element("p", { class: "advice" }, finding.advice) : null,
      ),
    );
  }

  #fill(id, name, values, order) {
    const counts = new Map();
    for (const value of values.filter(Boolean)) counts.set(value, (counts.get(value) ?? 0) + 1);
    const known = order.filter((value) => counts.has(value));
    const others = [...counts.keys()].filter((value) => !order.includes(value));
    const chips = [...known, ...others].map((value) =>
      element(
        "label",
        { class: "chip", "data-severity": name === "severity" ? value : null },
        element("input", { type: "checkbox", name, value }),
        element("span", {}, label(value), " ", element("span", { class: "count" }, String(counts.get(value)))),
      ),
    );
    byId(id).hidden = chips.length === 0;
    byId(id).querySelector(".chips").replaceChildren(...chips);
  }

  #filter() {
    const visible = new Set(this.visible());
    this.#items.forEach((item, index) => { item.hidden = !visible.has(index); });
    const all = this.#findings.length;
    byId("findings-count").textContent =
      visible.size === all ? count(all, "finding") : `${visible.size} of ${count(all, "finding")}`;
    byId("filters-clear").hidden = visible.size === all && !this.#boxes().some((box) => box.checked);
    this.onFilter(visible);
  }

  #walk(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const buttons = this.visible().map((index) => this.#button(index));
    const at = buttons.indexOf(document.activeElement);
    if (step === undefined || at === -1) return;
    event.preventDefault();
    buttons[Math.min(Math.max(at + step, 0), buttons.length - 1)].focus();
  }
}

function where({ clause, page }, paged) {
  return [clause === "preamble" ? clause : clause && `clause ${clause}`, paged ? `page ${page}` : ""].filter(Boolean).join(", ");
}

function valueOf({ label: name, value }) {
  return value === "" || value === name ? null : element("span", { class: "finding-value" }, value);
}
