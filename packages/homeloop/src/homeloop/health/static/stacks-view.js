// What blocks: loops that do not run now, those that did not, and what every thread does.

import { byId, element, keepList, setAttribute, setText } from "./dom.js";
import { fillFrames, frameList } from "./frames.js";
import { isBlocking, together } from "./incidents-view.js";
import { seconds, times } from "./words.js";

export function showStacks(detail) {
  const { report } = detail;
  const now = report.loops.filter((loop) => loop.stall !== null).map((loop) => ({
    key: `now ${loop.home.loop}`,
    title: `${loop.name} is blocked for ${seconds(loop.stall.seconds)}`,
    hint: loop.stall.task === null ? "by no task: a callback, or a signal handler" : `in task ${loop.stall.task}`,
    frames: loop.stall.blocked_at,
    isNow: true,
    advice: "Move what blocks to asyncio.to_thread().",
  }));
  const past = together(report.incidents.filter((each) => isBlocking(each) && !goesOn(each, report.loops))).map((each) => ({
    key: `then ${each.key}`,
    title: new Map(each.facts).has("name") ? `${new Map(each.facts).get("name")} was blocked` : each.text,
    hint: times(each),
    frames: each.stack,
    isNow: false,
    advice: each.advice,
  }));
  byId("stacks-empty").hidden = now.length + past.length > 0;
  keepList(byId("stacks"), [...now, ...past], (each) => each.key, makeCard, fillCard);
  setText(byId("threads-title"), `All threads (${detail.threads.length})`);
  if (byId("threads-fold").open) showThreads(detail.threads);
}

// The event that a stall began with is told as long as it is remembered; while it lasts the loop tells more.
function goesOn(incident, loops) {
  const home = new Map(incident.facts).get("loop");
  return home !== undefined && loops.some((loop) => loop.stall !== null && home.startsWith(`loop ${loop.home.loop} `) && incident.age <= loop.stall.seconds + 1);
}

function makeCard() {
  return element("li", { class: "card stack" }, element("p", { class: "name" }), element("p", { class: "hint" }), frameList(), element("p", { class: "advice" }));
}

function fillCard(card, { title, hint, frames, isNow, advice }) {
  const [name, when, list, what] = card.children;
  setAttribute(card, "data-now", isNow);
  setText(name, title);
  setText(when, hint);
  fillFrames(list, frames);
  setText(what, advice);
}

function showThreads(threads) {
  keepList(byId("threads"), threads, (thread) => thread.name, () => element("li", { class: "card stack" }, element("p", { class: "name" }), frameList()), (card, thread) => {
    setText(card.firstElementChild, thread.name);
    fillFrames(card.lastElementChild, thread.stack);
  });
}
