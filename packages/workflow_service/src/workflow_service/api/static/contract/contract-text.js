// The contract's text with its pages, clause headings and the places of the findings.

import { CodePoints } from "../lib/code-points.js";
import { element, scrollTo } from "../lib/dom.js";

const RANK = { high: 3, medium: 2, low: 1 };

/** Shows one text; tells `onPick(index)` which finding's place was clicked. */
export class ContractText {
  #container;
  #findings = [];
  #marks = []; // {element, indices}: indices of the findings that cover it, the shortest first
  #visible = new Set();
  #selected = null;

  constructor(container, onPick) {
    this.#container = container;
    container.addEventListener("click", (event) => {
      if (!document.getSelection().isCollapsed) return; // the person is selecting text to copy
      const index = this.#pick(event.target.closest("mark"));
      if (index !== null) onPick(index);
    });
  }

  /** Show an analysis' text; its spans are in code points. */
  show({ text, pages, headings: titles, findings }) {
    const points = new CodePoints(text);
    const place = (span) => ({ start: points.toUtf16(span.start), end: points.toUtf16(span.end) });
    this.#findings = findings.map((finding) => ({ ...finding, place: place(finding.span) }));
    this.#visible = new Set(findings.keys());
    this.#selected = null;
    this.#marks = [];
    const headings = titles.map(place);
    const starts = pages.map((page) => place(page.span).start);
    const sheets = pages.map((page, at) => {
      const start = at === 0 ? 0 : starts[at];
      const end = at + 1 < pages.length ? starts[at + 1] : text.length;
      return this.#sheet(text, start, end, headings, pages.length > 1 ? page.number : null);
    });
    this.#container.replaceChildren(...(sheets.length ? sheets : [this.#sheet(text, 0, text.length, headings, null)]));
    this.#paint();
  }

  /** Highlight only the places of these findings. */
  filter(visible) {
    this.#visible = visible;
    this.#paint();
  }

  /** Mark the place of a finding as selected and bring it into view; null selects nothing. */
  select(index) {
    this.#selected = index;
    this.#paint();
    const first = this.#marks.find((mark) => mark.indices.includes(index));
    if (first) scrollTo(first.element);
  }

  #sheet(text, start, end, headings, number) {
    const inside = ({ place }) => place.start < end && place.end > start;
    const here = [...this.#findings.keys()].filter((index) => inside(this.#findings[index]));
    const edges = new Set([start, end]);
    for (const { start: from, end: to } of [...here.map((index) => this.#findings[index].place), ...headings]) {
      if (from > start && from < end) edges.add(from);
      if (to > start && to < end) edges.add(to);
    }
    const cuts = [...edges].sort((a, b) => a - b);
    const parts = cuts.slice(1).map((to, at) => this.#part(text, cuts[at], to, here, headings));
    const body = element("div", { class: "sheet-text" }, ...parts);
    if (number === null) return element("div", { class: "sheet" }, body);
    const caption = element("p", { class: "page-number" }, `Page ${number}`);
    return element("section", { class: "sheet", "aria-label": `Page ${number}` }, caption, body);
  }

  #part(text, from, to, here, headings) {
    const piece = text.slice(from, to);
    const covers = (place) => place.start <= from && place.end >= to;
    const indices = here.filter((index) => covers(this.#findings[index].place));
    const isHeading = headings.some(covers);
    if (indices.length === 0) return isHeading ? element("strong", {}, piece) : document.createTextNode(piece);
    const length = (index) => this.#findings[index].place.end - this.#findings[index].place.start;
    indices.sort((a, b) => length(a) - length(b));
    const mark = element("mark", { class: isHeading ? "heading" : null }, piece);
    this.#marks.push({ element: mark, indices });
    return mark;
  }

  #paint() {
    for (const { element: mark, indices } of this.#marks) {
      const shown = indices.filter((index) => this.#visible.has(index));
      const severities = shown.map((index) => this.#findings[index].severity).filter((severity) => severity in RANK);
      const worst = severities.sort((a, b) => RANK[b] - RANK[a])[0] ?? "fact";
      mark.dataset.severity = shown.length === 0 ? "none" : worst;
      mark.classList.toggle("selected", indices.includes(this.#selected));
    }
  }

  // Where findings overlap, each click goes on to the next one, from the shortest to the longest.
  #pick(mark) {
    const found = this.#marks.find((known) => known.element === mark);
    const shown = found ? found.indices.filter((index) => this.#visible.has(index)) : [];
    return shown.length === 0 ? null : shown[(shown.indexOf(this.#selected) + 1) % shown.length];
  }
}
