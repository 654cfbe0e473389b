// The tasks of each loop as a tree: who awaits whom, alike ones together.

import { byId, element, keepList, setAttribute, setText } from "./dom.js";
import { fillFrames, frameList } from "./frames.js";
import { age, count, loopName } from "./words.js";

export function showTasks(detail) {
  const { tasks, report } = detail;
  const loops = new Map(report.loops.map((loop) => [loop.home.loop, loop]));
  setText(byId("tasks-note"), note(tasks));
  keepList(byId("trees"), tasks.trees, (tree) => String(tree.loop), makeTree, (item, tree) => {
    const [title, list] = item.children;
    item.id = `tree-${tree.loop}`;
    setText(title, loopName(loops.get(tree.loop)));
    fillGroups(list, tree.groups);
  });
}

/** Bring the tasks of a loop before the person's eyes. */
export function goToTasks(loop) {
  const title = document.querySelector(`#tree-${loop} > h3`) ?? byId("tasks-title");
  title.tabIndex = -1;
  title.focus();
}

function note(tasks) {
  if (tasks.pending === 0) return "No task is pending.";
  const seen = tasks.looked_at < tasks.pending ? `${count(tasks.pending, "pending task")}, of which ${tasks.looked_at} were looked at.` : `${count(tasks.pending, "pending task")}.`;
  const left = tasks.groups_left_out ? ` ${count(tasks.groups_left_out, "group")} of alike tasks left out.` : "";
  const origins = tasks.origins ? "" : " HOMELOOP_TRACE=2 records where each is made.";
  return `${seen}${left}${origins}`;
}

function makeTree() {
  return element("li", { class: "card tree" }, element("h3"), element("ul", { class: "groups" }));
}

function groupKey(group) {
  return JSON.stringify([group.coroutine, group.made_at, group.waiting_at, group.labels]);
}

function fillGroups(list, groups) {
  keepList(list, groups, groupKey, makeGroup, fillGroup);
}

function makeGroup() {
  return element(
    "li",
    {},
    element(
      "details",
      {},
      element("summary", {}, element("span", { class: "times" }), element("span", { class: "code" }), element("span", { class: "badge" }), element("span", { class: "hint" })),
      element("dl", { class: "facts" }),
      frameList(),
    ),
    element("ul", { class: "groups" }),
  );
}

function fillGroup(item, group) {
  const [details, children] = item.children;
  const [summary, facts, frames] = details.children;
  const [times, code, badge, hint] = summary.children;
  times.hidden = group.number === 1;
  setText(times, `${group.number} ×`);
  setText(code, group.coroutine);
  badge.hidden = !group.langgraph && !group.running;
  setText(badge, group.running ? "runs now" : "LangGraph");
  setText(hint, `known for ${age(group.oldest)}${group.made_at && group.is_origin ? `, made at ${group.made_at}` : ""}`);
  keepList(facts, factsOf(group), ([name]) => name, ([name]) => element("div", {}, element("dt", {}, name), element("dd")), (pair, [, value]) => setText(pair.lastElementChild, value));
  setAttribute(frames, "aria-label", "Waits at, the innermost last");
  fillFrames(frames, group.waiting_at.length ? group.waiting_at : [group.running ? "runs now" : "has not begun"]);
  children.hidden = group.children.length === 0;
  fillGroups(children, group.children);
}

function factsOf(group) {
  const more = group.number > group.names.length ? ", …" : "";
  return [
    ["Tasks", group.names.join(", ") + more],
    [group.is_origin ? "Made at" : "Defined at", group.made_at],
    ...Object.entries(group.labels),
  ].filter(([, value]) => value !== "");
}
