// JSON as something to read: names and values, branches that open and close, lists of like things as tables.

import { button, element } from "../lib/dom.js";
import { count, label } from "../lib/words.js";

const OPEN_LEVELS = 2;
const AT_FIRST = 100; // entries of one branch; more on demand
const COLUMNS = 6; // of a table; wider ones are harder to read than a tree
const LONG = 400; // characters of a text that is shown as it is

/** The element that shows `value`. */
export function dataTree(value) {
  return element("div", { class: "tree" }, branchOrLeaf(value, 0));
}

function branchOrLeaf(value, level) {
  if (!isBranch(value)) return leaf(value);
  const columns = columnsOf(value);
  return columns === null ? entries(value, level) : table(value, columns);
}

const isBranch = (value) => typeof value === "object" && value !== null && Object.keys(value).length > 0;

function leaf(value) {
  if (typeof value === "string") return text(value);
  if (value === null) return element("span", { class: "nothing" }, "none");
  if (Array.isArray(value)) return element("span", { class: "nothing" }, "empty list");
  if (typeof value === "object") return element("span", { class: "nothing" }, "empty");
  if (typeof value === "boolean") return element("span", { class: "figure" }, value ? "yes" : "no");
  return element("span", { class: "figure" }, String(value));
}

function text(value) {
  if (value === "") return element("span", { class: "nothing" }, "empty text");
  if (value.length <= LONG) return element("span", { class: "text", dir: "auto" }, value);
  const start = element("span", { class: "text", dir: "auto" }, `${value.slice(0, LONG)}…`);
  const more = button(`Show all ${value.length} characters`, { class: "quiet" }, () => {
    start.textContent = value;
    more.remove();
  });
  return element("span", {}, start, more);
}

function entries(value, level) {
  const isList = Array.isArray(value);
  const list = element(isList ? "ol" : "ul", { class: isList ? "numbered" : null });
  const all = Object.entries(value);
  const add = (from) => {
    const items = all.slice(from, from + AT_FIRST).map(([name, each]) => entry(isList ? String(Number(name) + 1) : name, each, level, isList));
    list.append(...items);
    const rest = all.length - from - items.length;
    if (rest <= 0) return items[0];
    const more = element("li", {});
    more.append(button(`Show ${Math.min(rest, AT_FIRST)} more of ${rest}`, { class: "quiet" }, () => {
      more.remove();
      const first = add(from + items.length);
      (first.querySelector("summary, button") ?? first).focus();
    }));
    list.append(more);
    return items[0];
  };
  add(0);
  return list;
}

function entry(name, value, level, isNumber) {
  const title = element("span", { class: isNumber ? "name number" : "name" }, isNumber ? `${name}.` : label(name) || "(no name)");
  if (!isBranch(value)) return element("li", { class: "pair", tabindex: "-1" }, title, " ", leaf(value));
  const size = element("span", { class: "size" }, Array.isArray(value) ? count(value.length, "entry", "entries") : inShort(value));
  const details = element("details", {}, element("summary", {}, title, " ", size));
  // What is closed is not built: a result may have a hundred thousand values.
  const open = () => { if (details.children.length === 1) details.append(branchOrLeaf(value, level + 1)); };
  details.addEventListener("toggle", () => { if (details.open) open(); });
  if (level < OPEN_LEVELS) {
    open();
    details.open = true;
  }
  return element("li", {}, details);
}

/** The first words of an object, to tell it from its neighbours while it is closed. */
function inShort(value) {
  const named = ["name", "title", "label", "id"].map((name) => value[name]).find((each) => typeof each === "string" && each !== "");
  return named ? `${named.slice(0, 60)}` : count(Object.keys(value).length, "value");
}

/** The columns of a list of objects that are alike and flat, or null. */
function columnsOf(value) {
  if (!Array.isArray(value) || value.length < 2) return null;
  if (!value.every((each) => isBranch(each) && !Array.isArray(each))) return null;
  const columns = [...new Set(value.flatMap((each) => Object.keys(each)))];
  const isFlat = value.every((each) => Object.values(each).every((cell) => !isBranch(cell) && String(cell).length <= LONG));
  return isFlat && columns.length <= COLUMNS ? columns : null;
}

function table(value, columns) {
  const head = element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, label(name))));
  const body = element("tbody", {});
  const rows = (from) => value.slice(from, from + AT_FIRST).map((each) => element("tr", {}, ...columns.map((name) => element("td", {}, name in each ? leaf(each[name]) : ""))));
  body.append(...rows(0));
  const box = element("div", { class: "table", tabindex: "0", role: "region", "aria-label": `Table with ${count(value.length, "row")}` }, element("table", {}, element("thead", {}, head), body));
  if (value.length <= AT_FIRST) return box;
  const more = button("Show more rows", { class: "quiet" }, () => {
    body.append(...rows(body.children.length));
    if (body.children.length >= value.length) more.remove();
  });
  return element("div", {}, box, more);
}
